"""The network: exact scores and gradients, packed texts, critic, reference, adapters, parameters' groups."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pgrad.data import Tokens
from pgrad.errors import UsageError
from pgrad.models.language import LanguageNetwork, LanguageSpec, generate
from pgrad.models.language.adapters import adapted
from pgrad.training.optimizers import flatten_parameters
from tests.models.language.texts import PROMPTS, columns, packed
from tests.models.language.tiny import model, network, tokenizer

RATES = {"actor": 1e-3, "critic": 1e-3, "temperature": 1e-3}


def texts(net: LanguageNetwork) -> tuple[Tokens, Tensor]:
    done = generate(
        net, PROMPTS, seeds=torch.arange(8), max_completion_length=9, num_generations=2, eos=net.eos
    )
    return columns(PROMPTS, done, 2)[:2]


def stir(net: LanguageNetwork) -> None:
    """Move what is trained, as training would."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p += 0.2 * torch.randn(p.shape, generator=g)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gemma2"])
def test_scores_and_gradients_are_those_of_the_models_own_logits(kind: str) -> None:
    net, plain = network(kind), model(kind).eval()
    tokens, action = texts(net)
    plain.get_input_embeddings().padding_idx = None
    logits = plain(input_ids=tokens.id.t(), attention_mask=None).logits.transpose(0, 1)
    full = torch.where(tokens.decides, logits.log_softmax(-1).gather(-1, action[..., None])[..., 0], 0.0)
    logp = net.policy(tokens).log_prob(action)
    torch.testing.assert_close(logp, full, atol=1e-5, rtol=0)
    logp.square().sum().backward()
    full.square().sum().backward()
    for mine, theirs in zip(net.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "attention"),
    [(kind, how) for kind in ("llama", "qwen2", "gpt2", "mistral", "gemma3") for how in ("sdpa", "eager")]
    + [("gemma2", "eager")],  # transformers has no sdpa for Gemma 2
)
def test_texts_packed_into_one_column_do_not_see_one_another(kind: str, attention: str) -> None:
    net = network(kind)
    net.model.set_attn_implementation(attention)
    tokens, action = texts(net)
    apart = net.policy(tokens).log_prob(action)
    dense, actions, where = packed(tokens, action)
    together = net.policy(dense).log_prob(actions)[:, 0]
    for i, rows in enumerate(where):
        n = rows.stop - rows.start
        torch.testing.assert_close(together[rows], apart[:n, i], atol=1e-5, rtol=0)
    # and with padding after the last text, whatever stands there
    more = torch.full((5, 1), 3)
    padded = Tokens(
        torch.cat([dense.id, more]),
        torch.cat([dense.position, 0 * more]),
        torch.cat([dense.decides, more < 0]),
    )
    again = net.policy(padded).log_prob(torch.cat([actions, more]))[:, 0]
    torch.testing.assert_close(again[:-5], together, atol=1e-5, rtol=0)


def test_a_model_that_counts_positions_itself_takes_one_text_a_column() -> None:
    net = network("bloom")
    tokens, action = texts(net)
    net.policy(tokens).log_prob(action)
    with pytest.raises(UsageError, match="takes no positions"):
        net.policy(packed(tokens, action)[0])


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_padding_at_the_end_is_never_seen(kind: str) -> None:
    net = network(kind, critic=True)
    assert net.critic is not None
    torch.nn.init.normal_(net.critic.head.weight)
    tokens, action = texts(net)
    beyond = tokens.decides.flip(0).cumsum(0).flip(0) == 0
    other = Tokens(
        torch.where(beyond, 7, tokens.id), torch.where(beyond, 99, tokens.position), tokens.decides
    )
    seen = net.policy(tokens).log_prob(action), net.value(tokens)[tokens.decides]
    unseen = net.policy(other).log_prob(action), net.value(other)[tokens.decides]
    torch.testing.assert_close(seen, unseen, atol=0, rtol=0)


def test_critic_begins_as_the_policys_body_with_value_zero_and_is_a_group_of_its_own() -> None:
    net = network(critic=True)
    tokens, action = texts(net)
    assert net.critic is not None
    value = net.value(tokens)
    assert value.shape == action.shape
    assert not value.any()
    body = dict(net.model.model.named_parameters())
    for name, p in net.critic.body.named_parameters():
        assert torch.equal(p, body[name])
        assert p is not body[name]
    flat = flatten_parameters(net, RATES, "adam")
    assert sum(p.numel() for p in net.critic.parameters()) == flat.groups["critic"].values.numel()
    assert sum(p.numel() for p in net.model.parameters()) == flat.groups["actor"].values.numel()
    (net.value(tokens) - 1.0).square().sum().backward()
    assert not flat.groups["actor"].grads.any()
    with pytest.raises(UsageError, match="without a critic"):
        network().value(tokens)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_tied_heads_stay_tied_in_the_flat_tensor(kind: str) -> None:
    net = network(kind)
    flat = flatten_parameters(net, RATES, "adam")
    assert net.model.lm_head.weight is net.model.get_input_embeddings().weight
    assert flat.values.numel() == sum(p.numel() for p in net.parameters())
    tokens, action = texts(net)
    before = net.policy(tokens).log_prob(action)
    (-before.sum()).backward()
    flat.groups["actor"].optimizer.step(1e-4)
    after = net.policy(tokens).log_prob(action)
    assert float(after.detach().sum()) > float(before.detach().sum())


def test_reference_stays_and_is_not_trained() -> None:
    net = network(reference=True, critic=True)
    tokens, action = texts(net)
    first = net.policy(tokens).log_prob(action).detach()
    assert not any(
        part.startswith(("critic", "target", "temperature"))
        for name, _ in net.named_parameters()
        if name.startswith("frozen")
        for part in name.split(".")
    )
    stir(net)
    reference = net.reference(tokens)
    assert torch.equal(reference.log_prob(action), first)
    assert not reference.hidden.requires_grad
    kl = net.policy(tokens).kl(reference)
    assert bool((kl[tokens.decides] > 0).all())
    kl.sum().backward()
    assert all(p.grad is None for p in net.frozen.parameters())  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="keeps no reference"):
        network().reference(tokens)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_adapters_begin_as_the_model_which_is_their_reference(kind: str) -> None:
    plain = network(kind)
    net = network(kind, lora=3, critic=True, reference=True)
    tokens, action = texts(plain)
    base = plain.policy(tokens).log_prob(action).detach()
    assert net.frozen is None
    torch.testing.assert_close(net.policy(tokens).log_prob(action).detach(), base, atol=1e-6, rtol=0)
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert all("lora_" in name or name.startswith("critic.head") for name in trained)
    stir(net)
    moved = net.policy(tokens).log_prob(action)
    assert float((moved - base).detach().abs().max()) > 0.1
    assert torch.equal(net.reference(tokens).log_prob(action), base)
    torch.testing.assert_close(net.policy(tokens).log_prob(action), moved, atol=0, rtol=0)
    done = generate(net, PROMPTS, seeds=torch.arange(8), max_completion_length=9, num_generations=2)
    own, actions, logp = columns(PROMPTS, done, 2)
    torch.testing.assert_close(net.policy(own).log_prob(actions).detach(), logp, atol=3e-5, rtol=0)


def test_adapters_can_keep_what_they_were_as_the_reference() -> None:
    """Exactly, whatever they are trained to; it is saved, comes back, and is no parameter."""
    net = network("qwen2", lora=3, critic=True, reference=True)
    tokens, action = texts(net)
    stir(net)
    kept = net.policy(tokens).log_prob(action).detach()
    net.keep_reference()
    flat = flatten_parameters(net, RATES, "adam")
    stir(net)
    moved = net.policy(tokens).log_prob(action).detach()
    assert float((moved - kept).abs().max()) > 0.1
    assert torch.equal(net.reference(tokens).log_prob(action), kept)
    assert torch.equal(net.policy(tokens).log_prob(action), moved), "the adapters are back in their place"
    flat.values.mul_(1.5)
    assert not torch.equal(net.policy(tokens).log_prob(action), moved), "and still views of the flat tensor"
    assert torch.equal(net.reference(tokens).log_prob(action), kept)
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert not any("frozen" in name for name in trained)
    fresh = network("qwen2", lora=3, critic=True, reference=True, seed=1)
    loaded = fresh.load_state_dict({name: x.clone() for name, x in net.state_dict().items()})
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    assert torch.equal(fresh.reference(tokens).log_prob(action), kept)
    bare = network("qwen2", lora=3, critic=True, reference=True)
    fresh.load_state_dict(bare.state_dict())
    assert fresh.frozen_adapters is None, "a run whose reference is the model without adapters"


def test_adapters_of_policy_and_critic_share_the_model_and_nothing_else() -> None:
    net = network(lora=3, critic=True)
    assert net.critic is not None
    policy, critic = net.model.model, net.critic.body
    shared = {id(p) for p in policy.parameters()} & {id(p) for p in critic.parameters()}
    assert shared == {id(p) for p in policy.parameters() if not p.requires_grad}
    assert len(adapted(critic)) == len(adapted(policy)) == 14
    tokens, action = texts(net)
    flat = flatten_parameters(net, RATES, "adam")
    torch.nn.init.ones_(net.critic.head.weight)
    net.value(tokens).sum().backward()
    assert flat.groups["critic"].grads.any()
    assert not flat.groups["actor"].grads.any()
    flat.grads.zero_()
    net.policy(tokens).log_prob(action).sum().backward()
    assert flat.groups["actor"].grads.any()
    assert not flat.groups["critic"].grads.any()


@pytest.mark.parametrize("lora", [0, 2])
def test_gradient_checkpointing_changes_no_gradient(lora: int) -> None:
    grads = []
    for checkpointing in (False, True):
        net = network(lora=lora, critic=True, gradient_checkpointing=checkpointing)
        stir(net)
        tokens, action = texts(network())
        (net.policy(tokens).log_prob(action).sum() + net.value(tokens).sum()).backward()
        grads.append([p.grad for p in net.parameters() if p.requires_grad])
    for x, y in zip(*grads, strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-6)


def test_half_precision_holds_what_is_frozen_in_half_without_changing_it() -> None:
    net = network(dtype="bfloat16", reference=True)
    tokens, action = texts(net)
    logp = net.policy(tokens).log_prob(action)
    assert logp.dtype == torch.float32
    assert torch.equal(net.reference(tokens).log_prob(action), logp)
    half = {name for name, p in net.named_parameters() if p.dtype == torch.bfloat16}
    assert half
    assert all(name.startswith("frozen") and "_proj" in name for name in half)
    logp.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("spec", [{}, {"lora": 2}, {"reference": True}])
def test_every_tensor_is_saved_once_and_comes_back(spec: dict[str, Any]) -> None:
    net, fresh = network(critic=True, **spec), network(critic=True, seed=1, **spec)
    stir(net)
    state = net.state_dict()
    assert len({x.data_ptr() for x in state.values() if x.numel()}) == len(state)
    loaded = fresh.load_state_dict({name: x.clone() for name, x in state.items()})
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    tokens, action = texts(net)
    assert torch.equal(fresh.policy(tokens).log_prob(action), net.policy(tokens).log_prob(action))
    assert torch.equal(fresh.value(tokens), net.value(tokens))


def test_a_copy_is_independent() -> None:
    net = network(critic=True)
    twin = copy.deepcopy(net)
    tokens, action = texts(net)
    before = net.policy(tokens).log_prob(action)
    stir(twin)
    assert torch.equal(net.policy(tokens).log_prob(action), before)
    assert len(twin.state_dict()) == len(net.state_dict())


def test_dropout_is_off_in_training() -> None:
    net = network("gpt2")  # whose configuration drops a tenth, of everything, by default
    tokens, action = texts(net)
    assert net.model.training
    scores = [net.policy(tokens).log_prob(action) for _ in range(2)]
    net.eval()
    scores.append(net.policy(tokens).log_prob(action))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


def test_every_end_token_is_found() -> None:
    net = network("qwen2")
    assert net.eos == (1,)
    made = model("qwen2")
    made.generation_config.eos_token_id = [5, 1]
    made.config.eos_token_id = 7
    other = LanguageNetwork(
        made,
        tokenizer(),
        LanguageSpec("scratch:tiny"),
        critic=False,
        generator=torch.Generator().manual_seed(0),
    )
    assert other.eos == (1, 5, 7)
    silent = model("qwen2")
    silent.config.eos_token_id = silent.generation_config.eos_token_id = None
    with pytest.raises(UsageError, match="end-of-text"):
        LanguageNetwork(
            silent,
            tokenizer(eos=None),
            LanguageSpec("scratch:tiny"),
            critic=False,
            generator=torch.Generator().manual_seed(0),
        )


def test_a_head_that_is_not_known_is_refused(monkeypatch: Any) -> None:
    made = model("granite")
    monkeypatch.setattr(made.config, "logits_scaling", 1.0)
    made.logits_scaling = 3.0
    original = type(made).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = original(self, *args, **kwargs)
        out.logits = out.logits.exp()
        return out

    monkeypatch.setattr(type(made), "forward", forward)
    with pytest.raises(UsageError, match="logits"):
        LanguageNetwork(
            made,
            tokenizer(),
            LanguageSpec("scratch:tiny"),
            critic=False,
            generator=torch.Generator().manual_seed(0),
        )
