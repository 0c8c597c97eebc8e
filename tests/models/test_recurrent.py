"""Memories: equal to torch's layers, to single steps, and to a fresh memory wherever an episode begins."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn
from torch.fx import GraphModule

from pgrad.data import Batch, Masked, Sequence, leaves, map_tree
from pgrad.data.sequence import by_row
from pgrad.errors import UsageError
from pgrad.math.natural import pulled_back
from pgrad.models import Agent, AgentSpec, build_agent
from pgrad.models.cells import CELLS, Cell, derivative
from pgrad.models.cells.steps import unroll
from pgrad.training.compiled.graph import trace
from tests.models.spaces import ACTIONS, OBSERVATIONS, observations

KINDS = tuple(CELLS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


BOX, TWO = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2)


def weights(cell: Cell, n_in: int = 2, size: int = 3, seed: int = 0) -> list[Tensor]:
    draw, G = Generator().manual_seed(seed), cell.gates * size
    shapes = (G, n_in), (G, size), (G,), (G,)
    return [torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in shapes]


def problem(
    cell: Cell, T: int = 6, B: int = 4, n_in: int = 2, size: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, 0 where an episode begins (some at the first row), and a first state of one cell."""
    draw = Generator().manual_seed(1)
    x = torch.randn(T, B, n_in, generator=draw, dtype=torch.float64).requires_grad_()
    keep = (torch.rand(T, B, 1, generator=draw) > 0.3).double()
    assert 0 < keep[0].sum() < B
    return x, keep, torch.randn(1, B, cell.parts * size, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_without_resets_it_is_torchs_layer(kind: str) -> None:
    """Outputs and every gradient of nn.GRU and nn.LSTM with the same weights."""
    cell = CELLS[kind]
    own, (x, keep, state) = weights(cell), problem(cell)
    layer = (nn.GRU if kind == "gru" else nn.LSTM)(2, 3, dtype=torch.float64)
    with torch.no_grad():
        for theirs, mine in zip(layer.parameters(), own, strict=True):
            theirs.copy_(mine)
    (y,) = cell.sequence.apply(x, torch.ones_like(keep), state, *own)
    first = [part.contiguous() for part in state.chunk(cell.parts, -1)]
    z, _ = layer(x, tuple(first) if cell.parts == 2 else first[0])
    assert torch.allclose(y, z, atol=1e-12)
    weight = torch.randn_like(y)
    mine = torch.autograd.grad(y, (x, *own), weight)
    theirs = torch.autograd.grad(z, (x, *layer.parameters()), weight)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_with_resets_it_is_one_step_after_another(kind: str) -> None:
    """Values, gradients, gradients of gradients (TRPO) and batched gradients (the optimal baseline).

    Of two cells side by side.
    """
    cell = CELLS[kind]
    own, (x, keep, state) = [*weights(cell), *weights(cell, seed=2)], problem(cell)
    state = torch.cat([state, torch.randn_like(state)])

    def fast(x: Tensor, *own: Tensor) -> Tensor:
        return cell.sequence.apply(x, keep, state, *own)

    y, z = fast(x, *own), unroll(cell.sequence.step, x, keep, state, *own)
    assert torch.allclose(y, z, atol=1e-14)
    assert torch.autograd.gradcheck(fast, (x, *own))
    assert torch.autograd.gradgradcheck(fast, (x, *own))
    each = torch.eye(y.shape[2], dtype=torch.float64)

    def gradients(weight: Tensor, batched: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y.sum((0, 1, 3)), (x, *own), weight, True, is_grads_batched=batched)

    one_by_one = map(torch.stack, zip(*map(gradients, each.unbind(0)), strict=True))
    both_ways = gradients(each, True), torch.func.vmap(gradients)(each)
    for theirs, *mine in zip(one_by_one, *both_ways, strict=True):
        assert all(torch.allclose(a, theirs, atol=1e-12) for a in mine)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6, 4), (6, 1), (1, 4)])
def test_in_a_graph_it_is_one_loop(kind: str, shape: tuple[int, int]) -> None:
    """Outputs and gradients as in Python, from a graph that does not grow with the number of steps."""
    cell = CELLS[kind]
    draw = Generator().manual_seed(1)

    def both(x: Tensor, keep: Tensor, state: Tensor, grad: Tensor, *own: Tensor) -> list[Tensor]:
        inputs = [part.detach().requires_grad_() for part in (x, *own)]
        y = cell.sequence.apply(inputs[0], keep, state, *inputs[1:])
        return [y.detach(), *torch.autograd.grad(y, inputs, grad)]

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, dtype=torch.float64)

    def graph(T: int, B: int) -> tuple[GraphModule, list[Tensor]]:
        keep, own = (torch.rand(T, B, 1, generator=draw) > 0.3).double(), [w.detach() for w in weights(cell)]
        inputs = [normal(T, B, 2), keep, normal(1, B, cell.parts * 3), normal(1, T, B, 3), *own]
        return trace(both, inputs), inputs

    made, inputs = graph(*shape)
    for mine, theirs in zip(made(*inputs), both(*inputs), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)
    sizes = [len(graph(T, shape[1])[0].graph.nodes) for T in (7, 70)]
    assert abs(sizes[1] - sizes[0]) < 10, "63 steps more are not 63 nodes more"
    assert len(list(made.children())) == 2, "forwards and backwards"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_loop_leaves_can_be_learned_from(kind: str) -> None:
    """Its steps are taken in inference mode; outputs and gradients are tensors like any other."""
    cell = CELLS[kind]
    own, (x, keep, state) = weights(cell), problem(cell)
    with torch.no_grad():
        y = cell.sequence.apply(x, keep, state, *own)
    assert not y.is_inference()
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((y * scale).square().sum(), scale)
    assert torch.allclose(slope, 2 * y.square().sum((0, 1, 2)))
    grads = torch.autograd.grad(cell.sequence.apply(x, keep, state, *own).sum(), (x, *own))
    assert not any(grad.is_inference() for grad in grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [True, False])
def test_products_with_a_gauss_newton_matrix_take_no_plain_step(
    kind: str, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jᵀ·M·J·v as autograd finds it through the plain loop, where x moves too and where it is given."""
    cell = CELLS[kind]
    own, (x, keep, state) = [*weights(cell), *weights(cell, seed=2)], problem(cell)
    state = torch.cat([state, torch.randn_like(state)])
    moving = own if given else [x, *own]
    x = x.detach() if given else x
    v = torch.randn(sum(p.numel() for p in moving), dtype=torch.float64)
    plain = unroll(cell.sequence.step, x, keep, state, *own)
    curve = torch.rand(plain.numel(), dtype=torch.float64)
    theirs = pulled_back(lambda w: curve * w, [plain], moving)(v)

    def never(*_: Any) -> Tensor:
        raise AssertionError("a plain step was taken")

    monkeypatch.setattr(derivative, "unroll", never)
    product = pulled_back(lambda w: curve * w, [cell.sequence.apply(x, keep, state, *own)], moving)
    assert torch.allclose(product(v), theirs, rtol=1e-11, atol=1e-12)
    assert torch.allclose(product(2 * v), 2 * theirs, rtol=1e-11, atol=1e-12), "it may be asked again"
    assert theirs.norm() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_third_derivatives_are_refused(kind: str) -> None:
    cell = CELLS[kind]
    own, (x, keep, state) = weights(cell), problem(cell)
    (first,) = torch.autograd.grad(cell.sequence.apply(x, keep, state, *own).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_forgets_everything(kind: str) -> None:
    """After it outputs are those of a sequence that begins there, bitwise the same whatever was before."""
    cell = CELLS[kind]
    own, (x, _, state) = [w.detach().float() for w in weights(cell)], problem(cell)
    x, state = x.detach().float(), state.float()
    keep = torch.ones(*x.shape[:2], 1)
    keep[2] = 0.0
    (y,) = cell.sequence.apply(x, keep, state, *own)
    (fresh,) = cell.sequence.apply(x[2:], keep[2:], torch.zeros_like(state), *own)
    assert torch.allclose(y[2:], fresh, atol=1e-6)
    (other,) = cell.sequence.apply(torch.cat([x[:2] + 1, x[2:]]), keep, -2 * state, *own)
    assert torch.equal(y[2:], other[2:])
    assert not torch.equal(y[:2], cell.sequence.apply(x[:2], keep[:2], torch.zeros_like(state), *own)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_cells_side_by_side_do_not_touch_each_other(kind: str) -> None:
    """Outputs and gradients of two cells together are those of each alone, whose gradient may be missing."""
    cell = CELLS[kind]
    (x, keep, state), both = problem(cell), [weights(cell), weights(cell, seed=2)]
    states = torch.cat([state, torch.randn_like(state)])
    together = cell.sequence.apply(x, keep, states, *both[0], *both[1])
    for i, own in enumerate(both):
        (alone,) = cell.sequence.apply(x, keep, states[i : i + 1], *own)
        assert torch.allclose(together[i], alone, atol=1e-14)
        weight = torch.randn_like(alone)
        mine = torch.autograd.grad(together.unbind(0)[i], (x, *both[0], *both[1]), weight, retain_graph=True)
        theirs = torch.autograd.grad(alone, (x, *own), weight)
        others = mine[1:5] if i else mine[5:]
        for a, b in zip((mine[0], *mine[1 + 4 * i : 5 + 4 * i]), theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-12)
        assert not any(other.any() for other in others)


def made(observation: Any = BOX, action: Any = TWO, kind: str = "gru", **spec: Any) -> Agent:
    built = AgentSpec(net_arch=(8,), memory=kind, memory_size=6, **spec)  # type: ignore[arg-type]
    agent = build_agent(
        observation, action, built, gamma=0.99, critic="value", generator=Generator().manual_seed(0)
    )
    with torch.no_grad():  # first policies hardly look at anything
        for p in agent.network.actor.parameters():  # type: ignore[union-attr]
            p.mul_(3.0)
    return agent


@torch.no_grad()
def lived(agent: Agent, obs: Any, start: Tensor) -> tuple[Sequence, list[Any], list[Tensor]]:
    """Step by step as a collector does: what was seen [T, B], and each row's policy and value."""
    memory, rows, policies, values = agent.memory(start.shape[1]), [], [], []
    for t in range(len(start)):
        memory.begin(~start[t])
        seen = memory.see(map_tree(lambda x, t=t: x[t], obs))
        rows.append(seen)
        values.append(agent.value(seen))
        policies.append(agent.step(seen, memory))
    return map_tree(lambda *x: torch.stack(x), *rows), policies, values


def starts(T: int = 12, B: int = 5) -> Tensor:
    start = torch.rand(T, B, generator=Generator().manual_seed(3)) < 0.2
    start[0] = True
    return start


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["box", "image", "dict", "tuple", "discrete"])
def test_a_sequence_is_its_steps(name: str, kind: str) -> None:
    """Policy and value of whole sequences are those of acting, whatever observations and actions are."""
    agent = made(OBSERVATIONS[name], ACTIONS["dict"], kind)
    obs, start = observations(OBSERVATIONS[name], (12, 5)), starts()
    seen, policies, values = lived(agent, obs, start)
    with torch.no_grad():
        policy, value = agent.policy(seen), agent.value(seen)
    assert torch.allclose(value, torch.stack(values), atol=1e-5)
    both = agent.policy_and_value(seen)
    assert torch.allclose(both[1], value, atol=1e-6)
    action = policy.sample(Generator().manual_seed(0))
    logp = policy.log_prob(action)
    assert logp.shape == (12, 5)
    assert torch.allclose(both[0].log_prob(action), logp, atol=1e-5)
    for t, row in enumerate(policies):
        assert torch.allclose(row.log_prob(map_tree(lambda x, t=t: x[t], action)), logp[t], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_answer_as_the_agent_does(kind: str, copied: Any) -> None:
    """After it was used; and go their own way."""
    agent = made(kind=kind)
    seen, _, values = lived(agent, torch.randn(12, 5, 3), starts())
    agent.value(seen).sum().backward()
    other = copied(agent)
    assert torch.equal(other.value(seen), agent.value(seen))
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    assert torch.allclose(agent.value(seen), torch.stack(values), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_their_memories_are_the_sequence(kind: str) -> None:
    """Without a step through time; of another agent's memories they are another answer."""
    agent = made(action=ACTIONS["dict"], kind=kind)
    seen, _, _ = lived(agent, torch.randn(12, 5, 3), starts())
    value, policy = by_row(agent.value, seen), by_row(agent.policy, seen)
    assert torch.allclose(value, agent.value(seen), atol=1e-6)
    for one, other in zip(leaves(policy), leaves(agent.policy(seen)), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    with torch.no_grad():
        for p in agent.parameters():
            p.mul_(1.5)
    assert not torch.allclose(by_row(agent.value, seen), agent.value(seen), atol=1e-2)
    plain = torch.randn(4, 3)
    assert by_row(lambda obs: obs, plain) is plain


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_may_begin_anywhere(kind: str) -> None:
    """Cut into pieces, each from the memory that is stored with it, a window gives the same answers."""
    agent = made(kind=kind, sequence_length=4)
    seen, _, _ = lived(agent, torch.randn(12, 5, 3), starts())
    mask = torch.ones(12, 5)
    place = torch.arange(60.0).reshape(12, 5)
    batch = Batch(seen, place, mask, mask, agent.value(seen).detach(), policy=agent.policy(seen)).flatten()
    assert batch.mask.shape == (4, 15)
    assert batch.obs.state["cells"].shape[:3] == (1, 15, 2), "one memory for each sequence"
    assert torch.equal(batch.action[1:] - batch.action[:-1], torch.full((3, 15), 5.0)), (
        "rows follow each other"
    )
    assert torch.allclose(agent.value(batch.obs), batch.advantage, atol=1e-6)
    assert batch.policy is not None
    assert torch.allclose(agent.policy(batch.obs).logits, batch.policy.logits, atol=1e-6)
    forgetful = replace(batch.obs, state=map_tree(torch.zeros_like, batch.obs.state))
    assert not torch.allclose(agent.value(forgetful), batch.advantage, atol=1e-3)
    picked = batch.select(torch.tensor([7, 2]))
    assert torch.equal(picked.action, batch.action[:, [7, 2]])
    assert torch.allclose(agent.value(picked.obs), picked.advantage, atol=1e-6)
    part = list(batch.split(2))[1]
    assert torch.equal(part.action, batch.action[:, [2, 3]])
    assert torch.equal(part.obs.state["cells"], batch.obs.state["cells"][:, [2, 3]])


def test_a_window_shorter_than_a_sequence_is_one() -> None:
    agent = made(sequence_length=16)
    seen, _, _ = lived(agent, torch.randn(6, 2, 3), starts(6, 2))
    mask = torch.ones(6, 2)
    assert Batch(seen, mask, mask, mask, mask).flatten().mask.shape == (6, 2)


def test_sequences_of_unequal_length_are_refused() -> None:
    agent = made(sequence_length=16)
    seen, _, _ = lived(agent, torch.randn(20, 2, 3), starts(20, 2))
    mask = torch.ones(20, 2)
    with pytest.raises(UsageError, match=r"sequence_length 16 does not divide n_steps 20; .* are 10 and 20"):
        Batch(seen, mask, mask, mask, mask).flatten()


def test_masks_and_normalisers_see_the_observation() -> None:
    """Inside a sequence forbidden actions have probability 0, and statistics are of the observation alone."""
    agent = made(action=spaces.Discrete(3), normalize_obs=True)
    assert agent.normalizer is not None
    assert agent.normalizer.moments is not None
    allowed = torch.rand(12, 5, 3) < 0.5
    allowed[..., 1] = True
    obs = torch.randn(12, 5, 3) * 2.0 + 5.0
    agent.normalizer.update(obs, torch.ones(12, 5))
    seen, policies, _ = lived(agent, Masked(obs, allowed), starts())
    probability = agent.policy(seen).logits.softmax(-1)
    assert (probability[~allowed] == 0.0).all()
    assert torch.allclose(torch.stack([p.logits.softmax(-1) for p in policies]), probability, atol=1e-5)
    plain = made(action=spaces.Discrete(3))
    scaled = replace(seen, obs=agent.normalizer(obs))
    assert torch.allclose(plain.value(scaled), agent.value(seen), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_acting_on_single_observations(kind: str) -> None:
    """With its memory an agent acts as it did in a batch; without one it says what it needs."""
    agent = made(kind=kind)
    obs, start = torch.randn(12, 1, 3).clamp(-1, 1), torch.zeros(12, 1, dtype=torch.bool)
    start[0] = start[5] = True
    _, policies, _ = lived(agent, obs, start)
    taken, memory = [], agent.memory()
    for t in range(12):
        memory = agent.memory() if start[t] else memory
        taken.append(agent.act(obs[t, 0].numpy(), memory=memory))
    assert taken == [int(policy.mode) for policy in policies]
    assert 0 < sum(taken) < 12
    with pytest.raises(UsageError, match=r"has a memory: make one .* memory = agent.memory\(\)"):
        agent.act(obs[0, 0].numpy())
    with pytest.raises(UsageError, match=r"takes observations with it: agent.memory\(n\).see\(obs\)"):
        agent.policy(obs[0])


def test_an_agent_without_a_memory_may_be_given_one() -> None:
    """One loop acts with any agent."""
    agent = build_agent(
        BOX, TWO, AgentSpec(), gamma=0.99, critic="none", generator=Generator().manual_seed(0)
    )
    memory = agent.memory()
    assert not agent.has_memory
    assert agent.act([0.1, 0.2, 0.3], memory=memory) == agent.act([0.1, 0.2, 0.3])
    assert memory.state_dict() == {}


def test_weights_come_from_the_generator_alone() -> None:
    """Gate by gate orthogonal; the memory's own gate begins open; torch's global generator is not touched."""
    before = torch.get_rng_state()
    first, second = (
        build_agent(
            BOX,
            TWO,
            AgentSpec(memory="lstm", memory_size=6),
            gamma=0.99,
            critic="value",
            generator=Generator().manual_seed(0),
        )
        for _ in range(2)
    )
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    layer: Any = first.network.actor.memory  # type: ignore[union-attr]
    for gate in layer.weight_hidden.split(6):
        assert torch.allclose(gate @ gate.T, torch.eye(6), atol=1e-5)
    assert layer.bias_input.tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12
    named = dict(first.named_parameters())
    critics = [n for n in named if any(part.startswith("critic") for part in n.split("."))]
    assert len(critics) * 2 == len(named), "actor and critic have a memory each"


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"memory": "rnn"}, "memory must be one of none, gru, lstm, got 'rnn'"),
        ({"memory_size": 0}, "memory_size must be a whole number ≥ 1, got 0"),
        ({"sequence_length": 1.5}, "sequence_length must be a whole number ≥ 1, got 1.5"),
    ],
)
def test_bad_memories(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        AgentSpec(**wrong)
