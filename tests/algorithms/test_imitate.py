"""Imitation is maximum likelihood: frequencies, means and deviations of what was done come out exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import pgrad as pg
from pgrad.data import Batch, Trajectory
from pgrad.math.distributions import Categorical, Gaussian, MultiCategorical, Product
from pgrad.training.disk.demonstrations import save_demonstrations

N = 300


class Table(nn.Module):
    """π(a|s) with parameters of its own for each of two states."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.logits, self.mean = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2, 1))
        self.log_std = nn.Parameter(torch.zeros(2, 1))

    def policy(self, obs: Tensor) -> Any:
        state = obs[..., 0].long()
        if self.kind == "discrete":
            return Categorical(self.logits[state] + 0.0 * self.mean.sum())
        return Gaussian(self.mean[state], self.log_std[state])


class Shown:
    """Tensor dynamics of which only the spaces matter: what comes of an action raises."""

    name, max_episode_steps, noise = "shown", 1, 1
    observation_space = spaces.Box(0.0, 1.0, (1,))

    def __init__(self, kind: str) -> None:
        self.action_space: Any = spaces.Discrete(3) if kind == "discrete" else spaces.Box(-9.0, 9.0, (1,))
        self.begun = 0

    def start(self, noise: Any) -> Any:
        self.begun += 1
        return torch.zeros_like(noise)

    def step(self, state: Any, action: Any, noise: Any) -> Any:
        raise AssertionError("the world was asked")

    observe = draw = step


def demonstrations(path: Path, kind: str) -> tuple[Tensor, Tensor]:
    """N episodes of one decision each: states 0 and 1 in turn, actions from a known source."""
    generator = torch.Generator().manual_seed(0)
    state = (torch.arange(N) % 2).float()
    if kind == "discrete":
        odds = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])[state.long()]
        action = torch.multinomial(odds, 1, generator=generator)[:, 0]
    else:
        noise = torch.randn(N, 1, generator=generator)
        action = noise * torch.where(state == 0, 0.5, 2.0)[:, None] + (3.0 - state[:, None])
    yes, zero = torch.ones(1, N, dtype=torch.bool), torch.zeros(1, N)
    obs = state.expand(2, N).unsqueeze(-1)
    save_demonstrations(path, Trajectory(obs, action[None], zero, zero, yes, yes, yes.float()), {})
    return state, action


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_maximum_of_the_likelihood_is_found(kind: str, tmp_path: Path) -> None:
    """In closed form: the frequencies of a table, the sample mean and (biased) deviation of a Gaussian."""
    state, action = demonstrations(tmp_path / "d", kind)
    imitate = pg.Imitate(
        str(tmp_path / "d"), batch_size=N, learning_rate=0.05, held_out=0.0, learning_rate_schedule="linear"
    )
    world: Any = Shown(kind)
    run = pg.train(imitate, world, total_timesteps=400 * N, agent=Table(kind), log_every=100 * N)
    for s in (0, 1):
        done = action[state == s]
        policy = run.agent.policy(torch.full((1, 1), float(s)))
        if kind == "discrete":
            frequency = torch.bincount(done, minlength=3) / len(done)
            torch.testing.assert_close(torch.softmax(policy.logits[0], -1), frequency, atol=2e-3, rtol=0.0)
        else:
            torch.testing.assert_close(policy.mean[0], done.mean(0), atol=2e-3, rtol=0.0)
            deviation = done.std(0, correction=0)
            torch.testing.assert_close(policy.log_std[0].exp(), deviation, atol=2e-3, rtol=0.0)
    known = run.agent.policy(state[:, None]).log_prob(action).mean()
    last = run.history[-1]
    assert last["train/log_likelihood"] == pytest.approx(-last["train/loss"])
    assert last["train/log_likelihood"] == pytest.approx(float(known.detach()), abs=2e-3)
    if kind == "discrete":
        right = (run.agent.policy(state[:, None]).mode == action).float().mean()
        assert last["train/accuracy"] == pytest.approx(float(right), abs=1e-6)
    else:
        assert "train/accuracy" not in last
    assert not any(key.startswith("held_out") for key in last)


def batch_of(action: Any, mask: Tensor) -> Batch:
    zero = torch.zeros_like(mask)
    return Batch(torch.zeros(*mask.shape, 1), action, zero, mask, torch.ones_like(mask))


def test_the_gradient_is_the_score_and_rows_without_weight_are_not_learned_from() -> None:
    """∇loss = −Σ wᵢ ∇log π(aᵢ|sᵢ)/Σ wᵢ: for a softmax, π − frequencies of the rows with weight."""
    table = Table("discrete")
    action = torch.tensor([0, 2, 2, 1])
    batch = batch_of(action, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    loss, metrics = pg.Imitate("d").loss(table, batch)  # type: ignore[arg-type]
    loss.backward()
    assert table.logits.grad is not None
    expected = torch.full((3,), 1 / 3) - torch.tensor([1 / 3, 0.0, 2 / 3])
    torch.testing.assert_close(table.logits.grad[0], expected)
    assert (table.logits.grad[1] == 0.0).all()
    assert metrics["train/accuracy"] == pytest.approx(1 / 3)  # the mode of equal logits is the first
    regularised, more = pg.Imitate("d", ent_coef=0.5).loss(table, batch)  # type: ignore[arg-type]
    entropy = torch.tensor(3.0).log()
    torch.testing.assert_close(regularised, loss - 0.5 * entropy)
    torch.testing.assert_close(more["train/entropy_loss"], -entropy)


def test_accuracy_wants_all_discrete_parts_right() -> None:
    """Parts of a MultiDiscrete and of a Dict; continuous parts are not counted."""

    class Fixed:
        def policy(self, obs: Tensor) -> Any:
            logits = torch.tensor([5.0, 0.0, 0.0, 5.0]).expand(len(obs), 4)  # 0 and 1
            flat = torch.zeros(len(obs), 2)
            return Product(
                {"a": MultiCategorical(logits, (2, 2)), "b": Categorical(flat), "c": Gaussian(flat, flat)}
            )

    pairs = torch.tensor([[0, 1], [0, 0], [1, 1], [0, 1]])
    action = {"a": pairs, "b": torch.tensor([0, 0, 0, 1]), "c": torch.ones(4, 2)}
    _, metrics = pg.Imitate("d").loss(Fixed(), batch_of(action, torch.ones(4)))  # type: ignore[arg-type]
    assert metrics["train/accuracy"] == 0.25


def test_nothing_is_asked_of_the_world(tmp_path: Path) -> None:
    """Steps are demonstrated decisions; the world is made for its spaces and never begun."""
    demonstrations(tmp_path / "d", "discrete")
    world: Any = Shown("discrete")
    run = pg.train(pg.Imitate(str(tmp_path / "d")), world, total_timesteps=1000, agent=Table("discrete"))
    assert run.timesteps == 1024
    assert world.begun == 1, "only the state that a tensor world is made with"
    assert run.history[-1].keys() >= {"held_out/log_likelihood", "held_out/accuracy", "train/accuracy"}


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "Imitate needs demonstrations: a file recorded with `pgrad play RUN --record FILE`"),
        ({"demonstrations": "nowhere"}, "there is no recording at nowhere"),
        ({"demonstrations": "minari:a/b-v0"}, r"minari:a/b-v0 needs Minari: pip install 'pgrad\[minari\]'"),
        ({"demonstrations": "d", "batch_size": 10, "n_steps": 4}, "n_steps 4 does not divide batch_size 10"),
    ],
)
def test_what_is_missing_is_told(given: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrad.training.minari.find_spec", lambda name: None)
    with pytest.raises(pg.UsageError, match=what):
        pg.train(pg.Imitate(**given), "cartpole", total_timesteps=10)


MINARI = '''
import numpy as np

class Episode:
    """As Minari's EpisodeData."""
    def __init__(self, n, ends=True, infos=None):
        self.observations = {"n": np.arange(1, n + 2), "x": np.arange(2.0 * (n + 1)).reshape(n + 1, 2)}
        self.actions = (np.arange(n) % 3, np.full((n, 2, 2), 0.5, np.float32))
        self.rewards, self.truncations = np.ones(n), (np.arange(n) == n - 1) & ends
        self.terminations, self.infos = np.zeros(n, bool), infos

class Dataset:
    def __init__(self, *episodes):
        self.episodes = episodes
    def iterate_episodes(self):
        return iter(self.episodes)

class Damaged(Dataset):
    def iterate_episodes(self):
        raise ValueError("Invalid column\\nindex")

def load_dataset(name):
    if name == "a/damaged-v0":
        return Damaged()
    if name == "a/masked-v0":
        return Dataset(Episode(3, infos={}), Episode(2, infos={"action_mask": np.ones((3, 3), np.int8)}))
    if name != "a/b-v0":
        raise FileNotFoundError("Dataset not found locally")
    return Dataset(Episode(3, ends=False), Episode(2, infos={"success": np.zeros(3, bool)}))
'''


def test_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its episodes [T + 1 observations, T actions] as rows, counted from zero where spaces are not.

    An episode that the recorder broke off has no flag at its end, and ends there nevertheless.
    """
    from pgrad.training.minari import load_minari

    (tmp_path / "minari.py").write_text(MINARI)
    monkeypatch.syspath_prepend(str(tmp_path))

    class Place:
        name = "place"
        observation_space = spaces.Dict({"n": spaces.Discrete(9, start=1), "x": spaces.Box(-9.0, 99.0, (2,))})
        action_space: Any = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2, 2))))

    place: Any = Place()
    recording = load_minari("a/b-v0", place)
    assert recording.lengths == (3, 2)
    n, x = recording.obs
    assert n.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert x[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 0.0, 2.0, 4.0]
    which, how = recording.action
    assert which.tolist() == [0, 1, 2, 0, 0, 1, 0]
    assert how.tolist() == [[0.5] * 4] * 3 + [[0.0] * 4] + [[0.5] * 4] * 2 + [[0.0] * 4]
    assert recording.facts["mask"].tolist() == [1, 1, 1, 0, 1, 1, 0]
    assert recording.facts["done"].tolist() == [False, False, True, True, False, True, True]
    assert not recording.facts["terminated"].any()
    with pytest.raises(pg.UsageError, match="no Minari dataset 'c/d-v0' here: minari download c/d-v0"):
        load_minari("c/d-v0", place)
    with pytest.raises(
        pg.UsageError, match=r"^minari:a/damaged-v0 cannot be read: ValueError: Invalid column index$"
    ):
        load_minari("a/damaged-v0", place)
    with pytest.raises(pg.UsageError, match=r"minari:a/masked-v0 has action masks .*'action_mask'") as error:
        load_minari("a/masked-v0", place)
    assert "\n" not in str(error.value)
    place.action_space = spaces.Tuple((spaces.Discrete(2), spaces.Box(-1.0, 1.0, (2, 2))))
    with pytest.raises(
        pg.UsageError, match=r"minari:a/b-v0 does not fit place: action is .* declares Discrete"
    ):
        load_minari("a/b-v0", place)
