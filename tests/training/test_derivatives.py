"""The learner's derivatives: as written and as machine code they are those of dense algebra."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor

import pgrad as pg
from pgrad.algorithms.trpo import policy_and_divergence
from pgrad.data import Batch, Masked, Trajectory, map_tree
from pgrad.models import build_agent
from pgrad.training.learner import Learner
from tests.math.outcomes import outcomes
from tests.training.tools import CONSTRAINED, RELU, Parts

pytestmark = pytest.mark.usefixtures("cache")
T = 5
OBSERVATIONS = Parts.observation_space
ACTIONS: dict[str, Any] = {
    "categorical": spaces.Discrete(3),
    "masked categorical": spaces.Discrete(3),
    "Gaussian": spaces.Box(-1.0, 1.0, (2,)),
    "MultiCategorical": spaces.MultiDiscrete([2, 3]),
    "product": Parts.action_space,
}
WEIGHTS = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0])
SMALL = pg.AgentSpec(net_arch=(4,), log_std_init=-0.3, memory_size=3)
PLAIN = pg.TRPO(normalize_advantage=False)


def case(
    name: str, spec: pg.AgentSpec = SMALL, algorithm: pg.TRPO = PLAIN, B: int = 1
) -> tuple[pg.TRPO, Learner, Batch]:
    """A learner of a network with random weights, and a batch of its decisions."""
    draw = Generator().manual_seed(0)
    agent = build_agent(OBSERVATIONS, ACTIONS[name], spec, gamma=0.9, critic="value", generator=draw)
    with torch.no_grad():
        for p in agent.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=draw))
    obs: Any = torch.randn(T + 1, B, 3, generator=draw)
    if name == "masked categorical":
        obs = Masked(obs, torch.tensor([True, False, True]).expand(T + 1, B, 3))
    if spec.memory != "none":
        obs = lived(agent, obs)
    reward, none = torch.randn(T, B, generator=draw), torch.zeros(T, B, dtype=torch.bool)
    with torch.no_grad():
        policy = agent.policy(map_tree(lambda x: x[:-1], obs))
        action = policy.sample(draw)
        logp = policy.log_prob(action)
    traj = Trajectory(obs, action, logp, reward, none, none, WEIGHTS.view(T, 1).expand(T, B))
    learner = Learner(agent, algorithm, draw)
    learner.begin(0.0)
    return algorithm, learner, algorithm.credit(agent, traj).flatten()


@torch.no_grad()
def lived(agent: Any, obs: Tensor) -> Any:
    """Observations with the memory before each; an episode begins at the third, too."""
    memory, rows = agent.memory(1), []
    for t in range(T + 1):
        memory.begin(torch.tensor([t not in (0, 2)]))
        rows.append(memory.see(obs[t]))
        agent.step(rows[-1], memory)
    return map_tree(lambda *x: torch.stack(x), rows[0], *rows[1:])


def dense_fisher(agent: Any, batch: Batch) -> Tensor:
    """Σ_s m(s)·E_a[∇log π ∇log πᵀ] / Σ m, from scores alone."""
    theta = [p for name, p in agent.named_parameters() if "critic" not in name]
    total = torch.zeros(())
    for action, weight in outcomes(agent.policy(batch.obs)):
        logp = agent.policy(batch.obs).log_prob(map_tree(Tensor.detach, action)).flatten()
        each = [torch.autograd.grad(x, theta, retain_graph=True, materialize_grads=True) for x in logp]
        scores = torch.stack([torch.cat([g.flatten() for g in found]) for found in each]).double()
        share = batch.mask.flatten() * weight.detach() / batch.mask.sum()  # with a memory one column
        total = total + torch.einsum("s,si,sj->ij", share.double(), scores, scores)
    return total


def compare(algorithm: pg.TRPO, learner: Learner, batch: Batch) -> None:
    actor = learner.derivatives("actor")
    g, told = actor.gradient(algorithm.loss, batch)
    F = actor.curvature(policy_and_divergence, batch)
    as_written = torch.stack([F(unit) for unit in torch.eye(len(g))])
    lines: list[str] = []
    learner.machine.compiles, learner.machine.tell = True, lines.append
    learner.machine.warn = lines.append
    quick, same = actor.gradient(algorithm.loss, batch)
    product = actor.curvature(policy_and_divergence, batch)
    by_machine = torch.stack([product(unit) for unit in torch.eye(len(g))])
    assert [line.split(",")[0] for line in lines] == [
        "compiling a gradient (TRPO.loss)",
        "compiling a curvature (policy_and_divergence)",
    ]
    torch.testing.assert_close(quick, g, rtol=1e-4, atol=1e-5)
    assert told.keys() == same.keys()
    torch.testing.assert_close(same, told, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_machine, as_written, rtol=1e-4, atol=1e-5)
    dense = dense_fisher(learner.agent, batch)
    torch.testing.assert_close(as_written.double(), dense, rtol=1e-4, atol=1e-5)
    assert dense.norm() > 0.1, "the comparison can fail"


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", ACTIONS)
def test_graphs_are_the_fisher_matrix(name: str) -> None:
    compare(*case(name))


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_graphs_with_a_memory_are_the_fisher_matrix(memory: Any) -> None:
    """Their loops over time are loops of the graph: forwards, backwards, and forwards with a change."""
    compare(*case("Gaussian", replace(SMALL, memory=memory)))


def test_machine_code_is_the_fisher_matrix() -> None:
    compare(*case("product", RELU, CONSTRAINED, 4))


@pytest.mark.usefixtures("interpreted")
def test_products_follow_the_parameters_and_the_batch() -> None:
    """What was made for one batch is used for the next, at other parameters; nothing moved meanwhile."""
    algorithm, learner, batch = case("Gaussian")
    actor, v = learner.derivatives("actor"), torch.linspace(-1, 1, 28)
    before = [p.detach().clone() for p in learner.agent.parameters()]
    products = []
    for step in (0.0, 0.3):
        learner.attempt(torch.full((28,), step), "actor", lambda: torch.tensor(True))
        now = algorithm.credit(learner.agent, trajectory(batch)).flatten()
        learner.machine.compiles = True
        quick = actor.curvature(policy_and_divergence, now)(v)
        learner.machine.compiles = False
        torch.testing.assert_close(quick, actor.curvature(policy_and_divergence, now)(v))
        products.append(quick)
    assert (products[0] - products[1]).norm() > 0.1 * products[0].norm()
    moved = [not torch.equal(p, old) for p, old in zip(learner.agent.parameters(), before, strict=True)]
    named = [name for name, _ in learner.agent.named_parameters()]
    assert moved == ["critic" not in name for name in named]


def trajectory(batch: Batch) -> Trajectory:
    """The window of a flattened batch, which ends where it began."""
    obs, action, logp, reward, mask = (
        x.unflatten(0, (T, 1)) for x in (batch.obs, batch.action, batch.logp, batch.advantage, batch.mask)
    )
    none = torch.zeros(T, 1, dtype=torch.bool)
    return Trajectory(torch.cat([obs, obs[:1]]), action, logp, reward, none, none, mask)
