"""Prompts that are read once for several completions: the numbers of reading each text by itself."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from pgrad.data import Batch, Tokens
from pgrad.data.shared import PAIRS, TOKENS_AT_ONCE, Texts, cost, parted, pieces, sharing, texts_of
from pgrad.models.language import LanguageNetwork, LanguageSpec
from pgrad.models.language.body import body_of, read
from pgrad.models.language.shared import lay_out, read_shared, width_of_sharing
from tests.models.language.texts import packed
from tests.models.language.tiny import V, config, network, tokenizer

GROUPS = [(12, [5, 1, 3, 4]), (17, [2]), (7, [6, 2, 1]), (7, [4, 4]), (1, [3, 2])]
"""Rows of each prompt, and how long its completions are: one is alone, another was thinned out."""


def texts(groups: list[tuple[int, list[int]]] = GROUPS, beyond: int = 2) -> tuple[Tokens, Tensor]:
    """Texts with random tokens, also in the padding, and their actions."""
    g = torch.Generator().manual_seed(0)
    lengths = [(prompt, prompt + n - 1) for prompt, completions in groups for n in completions]
    T, B = max(n for _, n in lengths) + beyond, len(lengths)
    ids, action = torch.randint(4, V, (2, T, B), generator=g)
    column = 0
    for prompt, completions in groups:
        ids[:prompt, column : column + len(completions)] = torch.randint(4, V, (prompt, 1), generator=g)
        column += len(completions)
    row = torch.arange(T).unsqueeze(1)
    decides = torch.stack([(row[:, 0] >= p - 1) & (row[:, 0] < n) for p, n in lengths], 1)
    return Tokens(ids, torch.where(row <= T - beyond, row, 0).expand(T, B), decides), action


def wide(kind: str, how: str = "sdpa", **spec: Any) -> LanguageNetwork:
    """A network whose sliding windows, if it has any, are longer than the texts."""
    given = config(kind)
    if getattr(given, "sliding_window", None):
        given.sliding_window = 64
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(given, attn_implementation=how)
    g = torch.Generator().manual_seed(0)
    net = LanguageNetwork(made, tokenizer(), LanguageSpec("scratch:tiny", **spec), critic=True, generator=g)
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn(p.shape, generator=g)
    return net


def watch(body: Any) -> list[int]:
    """How many tokens each call of a body is given, from now on."""
    seen: list[int] = []
    body.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return seen


def close(mine: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert float((mine - theirs).norm()) <= tolerance * float(theirs.norm())


def everything(net: LanguageNetwork, tokens: Tokens, action: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Scores by the policy, the critic and the reference, and the gradients of all that is trained."""
    reference = net.reference(tokens).log_prob(action)
    logp, value = net.policy(tokens).log_prob(action), net.value(tokens)
    bootstrap = tokens.decides | tokens.decides.roll(1, 0)
    value = torch.where(bootstrap, value, 0.0)
    trained = [p for p in net.parameters() if p.requires_grad]
    spread = torch.linspace(-1.0, 2.0, logp.numel()).view(logp.shape)
    grads = torch.autograd.grad((spread * logp).sum() + (spread * value).sum(), trained)
    return [reference, logp.detach(), value.detach()], list(grads)


@pytest.mark.parametrize("how", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "kind", ["llama", "llama3-rope", "qwen2", "qwen3", "gpt2", "mistral", "gemma2", "gemma3", "granite"]
)
def test_hidden_states_and_gradients_in_double_precision(kind: str, how: str) -> None:
    if (kind, how) == ("gemma2", "sdpa"):
        pytest.skip("transformers has no sdpa for Gemma 2")
    body = body_of(wide(kind, how).model).double()
    tokens, _ = texts()
    where = tokens.decides | tokens.decides.roll(1, 0)
    trained = list(body.parameters())
    plain = read(body, tokens, torch.float32)[where]
    seen = watch(body)
    mine = read_shared(body, tokens, torch.float32, after=1)[where]
    assert seen[0] < tokens.id.numel()
    torch.testing.assert_close(mine, plain, atol=1e-6, rtol=1e-6)  # norms and rotations are float32
    weight = torch.linspace(-1, 1, plain.numel(), dtype=plain.dtype).view(plain.shape)
    grads = [torch.autograd.grad((weight * x).sum(), trained, allow_unused=True) for x in (mine, plain)]
    for x, y in zip(*grads, strict=True):
        if x is not None and y is not None:
            close(x, y, 1e-6)


@pytest.mark.parametrize("kind", ["qwen2", "bloom"])
def test_scoring_without_gradients_goes_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers in the same places, for models that share prompts and others, and little at once."""
    net = wide(kind, "eager" if kind == "bloom" else "sdpa", reference=True)
    assert net.critic is not None
    tokens, action = texts()
    seen = watch(net.model.base_model), watch(net.critic.body)

    def scores() -> list[Tensor]:
        with torch.no_grad():
            reference, logp = (x.log_prob(action) for x in (net.reference(tokens), net.policy(tokens)))
            return [reference, logp, torch.where(wanted, net.value(tokens), 0.0)]

    wanted = tokens.decides | tokens.decides.roll(1, 0)
    whole = scores()
    assert [len(calls) for calls in seen] == [1, 1]
    limit = 3 * len(tokens.id)
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", limit)
    for x, y in zip(scores(), whole, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    for calls in seen:
        assert len(calls) > 3
        assert max(calls[1:]) <= limit
    net.policy(tokens)  # of which a gradient is wanted: in parts that the learner makes
    assert seen[0][-1] == seen[0][0]


@pytest.mark.parametrize("spec", [{}, {"gradient_checkpointing": True}, {"lora": 2}])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_policy_value_and_reference_say_the_same(
    kind: str, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = wide(kind, reference=True, **spec)
    assert net.critic is not None
    tokens, action = texts()
    seen = watch(net.critic.body)
    scores, grads = everything(net, tokens, action)
    assert seen[0] < tokens.id.numel()
    monkeypatch.setattr(
        "pgrad.models.language.network.read_shared",
        lambda body, tokens, dtype, after=0, stop=None: read(body, tokens, dtype),
    )
    for x, y in zip(scores, (plain := everything(net, tokens, action))[0], strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    for x, y in zip(grads, plain[1], strict=True):
        close(x, y)


def test_the_tokens_that_are_read_are_those_of_the_rule() -> None:
    net = wide("llama")
    body = body_of(net.model)
    seen = watch(body)
    for groups in (GROUPS, [(30, [4] * 8)], [(30, [4] * 8), (20, [8] * 4)], [(2, [30] * 8)], [(9, [3])] * 3):
        tokens, _ = texts(groups)
        found = texts_of(tokens)
        assert found is not None
        assert [len(group) for group in found.groups] == [len(completions) for _, completions in groups]
        best, rows = sharing(found, body.config.hidden_size)
        net.policy(tokens)
        if rows is None:
            assert seen[-1] == tokens.id.numel()
        else:
            assert seen[-1] == len(rows) * max(map(found.laid_out, rows))
            assert best < cost(len(found.length), max(found.length), body.config.hidden_size)


def test_the_rule_by_hand() -> None:
    assert cost(3, 8, 4) == 3 * 8 * (1 + 8 / (PAIRS * 4))
    # a prompt of 10 with 4 completions of 2: 48 tokens apart, 28 in two rows, 18 in one
    four = Texts([10] * 4, [12] * 4, [range(4)])
    assert sharing(four, 10**6)[1] == [range(4)]
    # 48·1.3, 28·1.35, 18·1.45 with 40 for PAIRS · width; at 1: 48·13, 28·15, 18·19
    assert sharing(four, 10) == (18 * 1.45, [range(4)])
    # a prompt of 4 with 4 completions of 8: 48, 40 and 36 tokens in rows of 12, 20 and 36
    longer = Texts([4] * 4, [12] * 4, [range(4)])
    assert sharing(longer, 10**6)[1] == [range(4)]
    assert sharing(longer, 20)[1] == [range(2), range(2, 4)]  # 55.2, 50, 52.2
    assert sharing(longer, 4)[1] is None  # 84, 90, 117
    assert sharing(Texts([4, 4], [12, 12], [range(1), range(1, 2)]), 10**6)[1] is None
    assert pieces(range(3, 10), 3) == [range(3, 5), range(5, 7), range(7, 10)]


def test_what_is_not_one_text_a_column_or_not_known_is_read_as_ever() -> None:
    tokens, action = texts()
    silent = Tokens(tokens.id, tokens.position, tokens.decides & (torch.arange(12) > 0))
    assert texts_of(silent) is None
    assert texts_of(packed(tokens, action)[0]) is None
    assert texts_of(Tokens(*(x[:, :0] for x in (tokens.id, tokens.position, tokens.decides)))) is None
    other = tokens.id.clone()
    other[3, 1] += 1
    changed = texts_of(Tokens(other, tokens.position, tokens.decides))
    assert changed is not None
    assert [len(group) for group in changed.groups[:3]] == [1, 1, 2]
    for kind, refuses in {"llama": False, "bloom": True, "mistral": True, "gemma3": True}.items():
        net = network(kind)  # with a window of 6 where there is one
        assert (net.shares(18) is None) == refuses
        seen = watch(body_of(net.model))
        net.policy(tokens)
        assert (seen[0] == tokens.id.numel()) == refuses
    assert network("mistral").shares(6) == 24
    body = body_of(network("llama").model)
    assert width_of_sharing(body, 18) == 24
    body.config._attn_implementation = "flash_attention_2"
    assert width_of_sharing(body, 18) is None


def test_a_layout_holds_every_token_once_and_prompts_once_a_row() -> None:
    tokens, _ = texts()
    found = texts_of(tokens)
    assert found is not None
    rows = [piece for group in found.groups for piece in pieces(group, 2)]
    at = lay_out(found, rows, tokens.id.shape, tokens.id.device)
    assert at.source.shape[0] == len(rows)
    for column, length in enumerate(found.length):
        places = at.back[:length, column]
        assert len(set(places.tolist())) == length
        assert torch.equal(tokens.id.flatten()[at.source].flatten()[places], tokens.id[:length, column])
        assert at.position.flatten()[places].tolist() == list(range(length))
        assert (at.text.flatten()[places] == 0).sum() == found.prompt[column]


def test_parts_keep_groups_together_where_that_is_cheaper() -> None:
    groups = [(20 + i, [1 + (i + j) % 5 for j in range(4)]) for i in range(6)]
    tokens, action = texts(groups)
    net = wide("qwen2")
    spread = torch.linspace(-1.0, 2.0, action.numel()).view(action.shape)
    mask = tokens.decides.float()
    batch = Batch(tokens, action, torch.zeros_like(mask), mask, spread)
    trained = list(net.model.parameters())

    def gradient(parts: list[Batch]) -> list[Tensor]:
        total = sum((net.policy(b.obs).log_prob(b.action) * b.advantage * b.mask).sum() for b in parts)
        return list(torch.autograd.grad(total, trained))  # type: ignore[arg-type]

    whole = gradient([batch])
    for n in (3, 4, 9, 10):
        apart, together = batch.parts(n), batch.parts(n, net.shares(len(mask)))
        assert sum(part.mask.shape[1] for part in together) == 24
        assert max(part.mask.shape[1] for part in together) <= n
        found = [texts_of(part.obs) for part in together]
        sizes = [len(group) for one in found if one is not None for group in one.groups]
        assert sorted(sizes) == ([2] * 12 if n == 3 else [4] * 6)
        for parts in (apart, together):
            for x, y in zip(gradient(parts), whole, strict=True):
                close(x, y)
    looser = batch.parts(9, 24, strict=False)
    assert 9 < max(part.mask.shape[1] for part in looser) <= 9 * 4
    assert len(looser) < len(batch.parts(9, 24))
    for x, y in zip(gradient(looser), whole, strict=True):
        close(x, y)
    short = texts([(1, [20, 10, 20, 10])] * 4)[0]
    alone = texts_of(short)
    assert alone is not None
    assert parted(alone, 4, 24) is None
