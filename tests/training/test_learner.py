"""The learner's steps are torch.optim's, on one flat tensor; minibatches use every row; unsound steps are
told."""

import math
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.algorithms.protocol import Metrics
from pgrad.data import Batch, Tokens
from pgrad.errors import TrainingError, UsageError
from pgrad.math.distributions import Categorical
from pgrad.training.learner import Learner
from pgrad.training.optimizers import clip


class Net(nn.Module):
    """Two bodies and one weight that is not trained."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Linear(3, 4)
        self.critic = nn.Linear(3, 1)
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("count", torch.zeros(()))


def batch(n: int = 8, seed: int = 0) -> Batch:
    draw = Generator().manual_seed(seed)
    x, y = torch.randn(n, 3, generator=draw), torch.randn(n, generator=draw)
    return Batch(obs=x, action=y, logp=y, mask=torch.ones(n), advantage=torch.arange(float(n)))


def loss(net: Net, batch: Batch) -> tuple[Tensor, Metrics]:
    both = (
        net.body(batch.obs).square().sum(1) + 3.0 * (net.critic(batch.obs).squeeze(1) - batch.action).square()
    )
    scalar = both.mean()
    return scalar, {"train/loss": scalar.detach()}


def learner(net: nn.Module, seed: int = 0, **settings: Any) -> Learner:
    algorithm = pg.PPO(**{"learning_rate": 0.01, "max_grad_norm": math.inf, **settings})
    made = Learner(net, algorithm, Generator().manual_seed(seed))  # type: ignore[arg-type]
    made.begin(0.0)
    return made


def reference(
    net: Net, optimizer: str, rate: float, critic_rate: float, eps: float = 1e-5
) -> torch.optim.Optimizer:
    """torch.optim on the separate parameters, with the settings of the papers' implementations."""
    groups = [
        {"params": list(net.body.parameters()), "lr": rate},
        {"params": list(net.critic.parameters()), "lr": critic_rate},
    ]
    if optimizer == "adam":
        return torch.optim.Adam(groups, eps=eps)
    return torch.optim.RMSprop(groups, alpha=0.99, eps=eps)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("max_grad_norm", [math.inf, 0.5])
@pytest.mark.parametrize("critic_rate", [None, 0.003, 0.0])
def test_steps_are_those_of_torch(optimizer: str, max_grad_norm: float, critic_rate: float | None) -> None:
    """Ten steps with norms far above the limit: clipped as by clip_grad_norm_, over both groups together
    (M-75)."""
    ours, theirs = Net(), Net()
    made = learner(ours, optimizer=optimizer, max_grad_norm=max_grad_norm, critic_learning_rate=critic_rate)
    other = reference(theirs, optimizer, 0.01, 0.01 if critic_rate is None else critic_rate)
    for k in range(10):
        made.descend(loss, batch(seed=k))
        other.zero_grad()
        loss(theirs, batch(seed=k))[0].backward()
        parameters = [*theirs.body.parameters(), *theirs.critic.parameters()]
        norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        other.step()
        assert made.read({})["train/grad_norm"] == pytest.approx(float(norm), rel=1e-5)
        made.begin(0.0)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), name
    assert torch.equal(ours.critic.weight, Net().critic.weight) == (critic_rate == 0.0)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_small_gradients_step_as_far_as_epsilon_lets_them(optimizer: str) -> None:
    """Gradients of 1e-6 and less: with ε = 1e-5 they hardly move anything, with 1e-8 nearly as far as large
    ones."""
    far = {}
    for eps in (1e-5, 1e-8):
        ours, theirs = Net(), Net()
        made, other = (
            learner(ours, optimizer=optimizer, optimizer_eps=eps),
            reference(theirs, optimizer, 0.01, 0.01, eps),
        )
        before = made._flat.values.clone()
        for _ in range(3):
            made.descend(lambda net, data: tiny(*loss(net, data)), batch())
            other.zero_grad()
            tiny(*loss(theirs, batch()))[0].backward()
            other.step()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(p, q, atol=1e-6), name
        far[eps] = float((made._flat.values - before).norm())
    assert far[1e-8] > 5 * far[1e-5]


def tiny(scalar: Tensor, metrics: Metrics) -> tuple[Tensor, Metrics]:
    """A loss whose gradient is next to nothing."""
    return 1e-7 * scalar, metrics


def test_the_clipped_norm_is_below_the_limit() -> None:
    net = Net()
    made = learner(net, max_grad_norm=0.5)
    made.descend(loss, batch())
    grads = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    assert made.read({})["train/grad_norm"] > 1.0
    assert 0.49 < float(grads.norm()) <= 0.5


def test_parameters_are_views_of_one_tensor() -> None:
    """A step moves the module; loading a state moves the flat tensor; what is not trained stays apart."""
    net = Net()
    made = learner(net)
    flat = made._flat
    assert flat.values.numel() == sum(p.numel() for p in net.parameters() if p.requires_grad)
    weights = torch.cat([p.detach().flatten() for name, p in net.named_parameters() if name != "fixed"])
    assert torch.equal(flat.values, weights), "the actor's first, then the critic's"
    made.descend(loss, batch())
    assert not torch.equal(weights, flat.values)
    assert torch.equal(net.body.weight.detach().flatten(), flat.values[:12])
    net.load_state_dict(Net(seed=5).state_dict())
    assert torch.equal(flat.values[:12], Net(seed=5).body.weight.detach().flatten())
    made.descend(loss, batch())
    assert torch.equal(net.critic.weight.detach().flatten(), flat.values[16:19])
    assert torch.equal(net.fixed, torch.ones(2))
    flat.values.zero_()
    assert not net.body.weight.any()


@pytest.mark.parametrize("group", ["actor", "critic"])
def test_a_step_of_one_group_moves_only_that(group: str) -> None:
    """And is clipped by its own norm, and does not advance the other's optimiser."""
    net = Net()
    made = learner(net, max_grad_norm=0.5)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    made.descend(loss, batch(), group)
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"actor": {"body.weight", "body.bias"}, "critic": {"critic.weight", "critic.bias"}}[group]
    own = net.body if group == "actor" else net.critic
    assert float(torch.cat([p.grad.flatten() for p in own.parameters()]).norm()) == pytest.approx(
        0.5, abs=1e-5
    )
    state = made.state_dict()["optimizers"]
    assert {name for name, part in state.items() if part["step"] > 0} == {group}


def test_groups_that_are_not_there() -> None:
    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 1)

    made = learner(Actor())
    with pytest.raises(UsageError, match="no parameter with a part of its name beginning with 'critic'"):
        made.descend(loss, batch(), "critic")
    with pytest.raises(UsageError, match="Tanh has no trainable parameters"):
        learner(nn.Tanh())
    with pytest.raises(UsageError, match=r"parameters must be float32, found torch\.float64"):
        learner(nn.Linear(2, 2).double())


@pytest.mark.parametrize(("schedule", "share"), [("constant", 1.0), ("linear", 0.25)])
def test_learning_rates_follow_the_schedule(schedule: Any, share: float) -> None:
    net = Net()
    made = learner(net, learning_rate_schedule=schedule, critic_learning_rate=0.04)
    made.begin(0.75)
    before = net.body.bias.detach().clone()
    made.descend(lambda net, batch: (net.body.bias.sum() + net.critic.bias.sum(), {}), batch())
    assert made.read({})["train/learning_rate"] == pytest.approx(0.01 * share)
    assert (before - net.body.bias).detach() == pytest.approx(torch.full((4,), 0.01 * share), rel=1e-3)
    assert made.learning_rates == pytest.approx({"actor": 0.01 * share, "critic": 0.04 * share})


@pytest.mark.parametrize(("n", "size"), [(12, 4), (12, 12), (12, 1), (10, 4)])
def test_minibatches_use_every_row_once(n: int, size: int) -> None:
    """Shuffled anew each time, from the learner's own generator, rows kept together."""
    made = learner(Net())
    whole = batch(n)
    orders = []
    for _ in range(2):
        parts = list(made.minibatches(whole, size))
        assert [len(part.mask) for part in parts] == [min(size, n - i) for i in range(0, n, size)]
        order = torch.cat([part.advantage for part in parts]).long()
        assert sorted(order.tolist()) == list(range(n))
        assert torch.equal(torch.cat([part.obs for part in parts]), whole.obs[order])
        orders.append(order.tolist())
    assert orders[0] != orders[1]
    again = [
        int(x) for _ in range(2) for part in learner(Net()).minibatches(whole, size) for x in part.advantage
    ]
    assert again == orders[0] * 2, "the same generator gives the same order"


def test_metrics_are_means_over_steps() -> None:
    made = learner(Net())
    for x in (1.0, 2.0, 6.0):
        made.descend(lambda net, batch, x=x: (net.body.bias.sum(), {"a": torch.tensor(x)}), batch())
    made.descend(lambda net, batch: (net.body.bias.sum(), {"b": torch.tensor(5)}), batch())
    metrics = made.read({"c": torch.tensor(7.0, dtype=torch.float64)})
    assert (metrics["a"], metrics["b"], metrics["c"]) == (3.0, 5.0, 7.0)
    assert made.n_updates == 4
    made.begin(0.0)
    assert "a" not in made.read({}), "begin forgets them"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite(bad: float) -> None:
    """Parameters and moments stay finite, and `read` stops the run."""
    net = Net()
    made = learner(net)
    before = made._flat.values.clone()
    made.descend(lambda net, batch: (loss(net, batch)[0] * bad, {"train/loss": torch.tensor(bad)}), batch())
    assert torch.equal(made._flat.values, before)
    assert all(x.isfinite().all() for part in made.state_dict()["optimizers"].values() for x in part.values())
    with pytest.raises(
        TrainingError, match="train/loss and train/grad_norm not finite after 1 gradient steps"
    ):
        made.read({})


def test_one_bad_step_among_good_ones_is_found() -> None:
    net = Net()
    made = learner(net)
    for k in range(5):
        factor = math.nan if k == 2 else 1.0
        made.descend(lambda net, batch, f=factor: (loss(net, batch)[0] * f, {}), batch())
    assert made._flat.values.isfinite().all()
    with pytest.raises(TrainingError, match="train/grad_norm not finite"):
        made.read({})


@pytest.mark.parametrize(("ratio", "fails"), [(0.0, False), (1e-5, False), (0.01, True), (math.nan, True)])
def test_the_first_ratio_must_be_one(ratio: float, fails: bool) -> None:
    """Only the first: later steps have moved the policy."""

    def with_ratio(x: float) -> Any:
        return lambda net, batch: (net.body.bias.sum(), {"train/max_log_ratio": torch.tensor(x)})

    made = learner(Net())
    made.descend(lambda net, batch: (net.critic.bias.sum(), {}), batch(), "critic")
    made.descend(with_ratio(ratio), batch())
    made.descend(with_ratio(0.5), batch())
    if fails:
        with pytest.raises(TrainingError, match="the policy that is trained is not the policy that acted"):
            made.read({})
    else:
        assert "train/max_log_ratio" not in made.read({})


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_learner_goes_on_from_its_state(optimizer: str) -> None:
    """Parameters, moments, step counts, generator, variables: five steps more are bit for bit the same."""
    one, other = Net(), Net(seed=1)
    first, second = learner(one, optimizer=optimizer), learner(other, seed=9, optimizer=optimizer)
    for k in range(3):
        first.descend(loss, batch(seed=k))
    first.descend(loss, batch(), "critic")
    first.variables["beta"] = torch.tensor(2.0)
    state = first.state_dict()
    other.load_state_dict(one.state_dict())
    second.load_state_dict(state)
    copies = [x for part in state["optimizers"].values() for x in part.values()]
    own = [x for part in second.state_dict()["optimizers"].values() for x in part.values()]
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(copies, own, strict=True)), "nothing is shared"
    for k in range(5):
        for made in (first, second):
            for part in made.minibatches(batch(seed=k), 4):
                made.descend(loss, part)
    assert torch.equal(first._flat.values, second._flat.values)
    assert second.variables["beta"] == 2.0
    assert first.n_updates == second.n_updates == 14


def test_a_batch_without_grad_in_the_critic() -> None:
    """A loss that does not touch a group leaves its gradient zero, whatever it was before."""
    net = Net()
    made = learner(net)
    made.descend(loss, batch())
    made.descend(lambda net, batch: (net.body(batch.obs).sum(), {}), replace(batch(), mask=torch.zeros(8)))
    assert not any(p.grad.any() for p in net.critic.parameters())


@pytest.mark.parametrize(
    "algorithm", [pg.PPO(), pg.A2C(normalize_advantage=True), pg.Reinforce(baseline="none")]
)
def test_parts_of_texts_give_the_step_of_the_whole(algorithm: Any) -> None:
    """However many texts are held at once: the same gradient, metrics and parameters, to rounding."""
    ends = []
    for at_once in (0, 1, 2, 5):
        agent = Reader()
        learner = Learner(agent, algorithm, Generator().manual_seed(0))
        learner.texts_at_once = at_once
        learner.begin(0.0)
        metrics = learner.descend(algorithm.loss, texts(agent))
        ends.append(
            (
                *(float(metrics[key]) for key in sorted(metrics)),
                *agent.table.detach().flatten().tolist(),
            )
        )
    for end in ends[1:]:
        assert end == pytest.approx(ends[0], abs=2e-6)


class Reader(nn.Module):
    """A policy and values of the last token."""

    def __init__(self) -> None:
        super().__init__()
        noise = torch.randn(6, 7, generator=Generator().manual_seed(7))
        self.table = nn.Parameter(noise)

    def policy(self, obs: Tokens) -> Categorical:
        return Categorical(self.table[obs.id, :6])

    def value(self, obs: Tokens) -> Tensor:
        return self.table[obs.id, 6]

    def policy_and_value(self, obs: Tokens) -> tuple[Categorical, Tensor]:
        return self.policy(obs), self.value(obs)


def texts(agent: Reader) -> Batch:
    """Five texts of different lengths."""
    noise = Generator().manual_seed(1)
    T, B = 6, 5
    place = torch.arange(T).unsqueeze(1)
    mask = (place < torch.tensor([6, 2, 4, 1, 5])).float()
    obs = Tokens(torch.randint(6, (T, B), generator=noise), place.expand(T, B), mask > 0)
    action = torch.randint(6, (T, B), generator=noise)
    numbers = torch.randn(3, T, B, generator=noise)
    logp = agent.policy(obs).log_prob(action).detach() + 0.1 * numbers[2]
    return Batch(obs, action, logp, mask, numbers[0], numbers[1], numbers[1] + numbers[0])


def test_norms_of_groups_that_are_stepped_alone_have_names_of_their_own() -> None:
    """A mean over actor and critic would be neither's."""
    made = learner(Net())
    made.descend(loss, batch(), "actor")
    made.descend(loss, batch(), "critic")
    found = made.read({})
    assert {"train/actor_grad_norm", "train/critic_grad_norm"} <= found.keys()
    assert "train/grad_norm" not in found
    assert found["train/actor_grad_norm"] != found["train/critic_grad_norm"]
    made.begin(0.0)
    made.descend(lambda net, data: (loss(net, data)[0] * math.inf, {}), batch(), "critic")
    with pytest.raises(TrainingError, match="critic_grad_norm not finite"):
        made.read({})


def test_no_tensor_of_a_step_outlives_it() -> None:
    """Hundreds of small ones would keep the memory of large ones around them from being used again."""
    net, rows = Net(), batch()
    mine = learner(net)
    answers = [weakref.ref(x) for _ in range(3) for x in mine.descend(loss, rows).values()]
    assert len(answers) == 6
    assert not any(answer() is not None for answer in answers)
    told = mine.read({})
    assert math.isfinite(told["train/loss"])
    assert told["train/loss"] > 0


@pytest.mark.parametrize("limit", [0.5, math.inf])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 3e38])
def test_a_gradient_that_is_not_finite_moves_nothing(wrong: float, limit: float) -> None:
    """Nor one whose norm is not: 3e38 squared is no float32."""
    grads = torch.tensor([1.0, wrong, 3e38])
    assert not clip(grads, limit).isfinite()
    assert grads.tolist() == [0.0, 0.0, 0.0]
    grads = torch.tensor([3.0, 4.0])
    assert clip(grads, limit) == 5.0
    torch.testing.assert_close(grads, torch.tensor([3.0, 4.0]) * min(1.0, limit / 5.0))
