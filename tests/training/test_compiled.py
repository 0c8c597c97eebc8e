"""Machine code computes what the functions do: same random numbers, same steps up to rounding."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.training.compiled import Call, Machine, compile_after, package
from pgrad.training.compiled.graph import Draw, Draws, trace
from pgrad.training.loop import Training
from tests.training.tools import NORMALIZED, training

SMALL = pg.AgentSpec(net_arch=(8,))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for packages that the tests of this file share."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("packages")
        patch.setenv("PGRAD_CACHE", str(folder))
        yield folder


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph itself in place of machine code, which takes the compiler seconds."""
    monkeypatch.setattr(package, "load", lambda *_: None)
    monkeypatch.setattr(package, "build", lambda module, *_: lambda tensors: module(*tensors))


class Scale(nn.Module):
    """Somebody's own agent."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([2.0, 3.0]))


def product(agent: Scale, x: Tensor) -> dict[str, Tensor]:
    return {"product": agent.factor * x}


def by_value(agent: Scale, x: Tensor) -> Tensor:
    return x if bool(x.sum() > 0) else -x


def noisy(agent: Scale, x: Tensor, generator: Generator) -> Tensor:
    first = torch.empty_like(x).exponential_(generator=generator)
    second = torch.empty_like(x).normal_(generator=generator)
    third = torch.empty_like(x).uniform_(-1.0, 1.0, generator=generator)
    return agent.factor * (first.log() + second * third)


def compiled(agent: nn.Module) -> tuple[Machine, list[str]]:
    machine = Machine(agent, compiles=True)
    told: list[str] = []
    machine.tell = machine.warn = told.append
    return machine, told


def test_draws_become_inputs_in_their_order() -> None:
    agent, x = Scale(), torch.zeros(2)
    with Draws() as inside:
        expected = noisy(agent, x, Generator().manual_seed(3))
    again = Generator().manual_seed(3)
    drawn = [draw(again) for draw in inside.noted]
    factor = agent.factor.detach()

    def pure(factor: Tensor, x: Tensor) -> list[Tensor]:
        first = Scale()
        first.factor = nn.Parameter(factor)
        return [noisy(first, x, Generator())]

    graph = trace(pure, [factor, x, *drawn], 3)
    torch.testing.assert_close(graph(factor, x, *drawn)[0], expected)
    untouched = Generator().manual_seed(3)
    noisy(agent, x, untouched)
    assert torch.equal(again.get_state(), untouched.get_state())


def test_machine_code_draws_what_the_function_draws_and_follows_the_parameters() -> None:
    agent = Scale()
    machine, told = compiled(agent)
    plain, quick = Generator().manual_seed(1), Generator().manual_seed(1)
    x = torch.zeros(2)
    for _ in range(3):
        expected = noisy(agent, x, plain)
        torch.testing.assert_close(machine.run(noisy, x, quick), expected)
        agent.factor.data.mul_(1.5)
    assert torch.equal(plain.get_state(), quick.get_state())
    assert len(told) == 1
    assert "compiling noisy" in told[0]


@pytest.mark.usefixtures("interpreted")
def test_answers_keep_their_structure_and_inputs_may_be_views() -> None:
    machine, _ = compiled(Scale())
    x = torch.arange(8.0).view(4, 2)
    for view in (x[1], x.T[:, 2], x[:, 0][:2]):
        answer = machine.run(product, view)
        assert list(answer) == ["product"]
        assert torch.equal(answer["product"], torch.tensor([2.0, 3.0]) * view)


@pytest.mark.usefixtures("interpreted")
def test_other_shapes_are_other_programs() -> None:
    machine, _ = compiled(Scale())
    for n in (1, 3):
        x = torch.randn(n, 2)
        assert torch.equal(machine.run(product, x)["product"], torch.tensor([2.0, 3.0]) * x)


@pytest.mark.usefixtures("interpreted")
def test_what_decides_by_values_runs_as_it_is_written() -> None:
    machine, told = compiled(Scale())
    for x in (torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])):
        assert torch.equal(machine.run(by_value, x), x.abs())
    assert len(told) == 1
    assert told[0].startswith("by_value cannot be compiled")


def test_without_a_compiler_functions_run_as_they_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(package, "build", _no_compiler)
    machine, told = compiled(Scale())
    assert torch.equal(machine.run(product, torch.ones(2))["product"], torch.tensor([2.0, 3.0]))
    assert "no compiler" in told[-1]


def _no_compiler(*_: Any) -> Any:
    raise RuntimeError("no compiler")


def run(made: Training, iterations: int) -> list[dict[str, float]]:
    return [made.iterate() for _ in range(iterations)]


ALGORITHMS = [
    (pg.PPO(n_steps=8, batch_size=8, n_epochs=2, clip_range_schedule="linear"), "pendulum", SMALL),
    (pg.PPOKL(n_steps=8, batch_size=8, n_epochs=2), "cartpole", NORMALIZED),
    (pg.A2C(), "cartpole", SMALL),
    (pg.ActorCritic(), "cartpole", SMALL),
    (pg.TRPO(n_steps=16, batch_size=32), "pendulum", SMALL),
    (pg.OffPolicyActorCritic(n_steps=16), "cartpole", SMALL),
]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("algorithm", "world", "agent"), ALGORITHMS)
def test_graphs_are_the_same_up_to_rounding(algorithm: Any, world: str, agent: Any) -> None:
    compare(algorithm, world, agent)


def test_machine_code_is_the_same_up_to_rounding() -> None:
    compare(pg.PPO(n_steps=8, batch_size=8, n_epochs=2), "cartpole", NORMALIZED)


def compare(algorithm: Any, world: str, agent: Any) -> None:
    plain, quick = (training(algorithm, world, agent=agent) for _ in range(2))
    quick.compile_after = 0
    told: list[str] = []
    quick.learner.machine.tell = told.append
    for one, other in zip(run(plain, 10), run(quick, 10), strict=True):
        assert one.keys() == other.keys()
        for key, number in one.items():
            assert other[key] == pytest.approx(number, rel=1e-3, abs=1e-4), key
    assert not [line for line in told if "cannot" in line]
    assert told
    theirs = dict(quick.agent.named_parameters())
    for name, p in plain.agent.named_parameters():
        torch.testing.assert_close(p, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("interpreted")
def test_soft_actor_critic_steps_are_the_same_up_to_rounding() -> None:
    algorithm = pg.SAC(learning_starts=20, batch_size=16, buffer_size=1000)
    plain, quick = (training(algorithm, "pendulum", agent=pg.AgentSpec(net_arch=(8,))) for _ in range(2))
    quick.compile_after = 0
    for one, other in zip(run(plain, 14), run(quick, 14), strict=True):
        for key, number in one.items():
            assert other[key] == pytest.approx(number, rel=1e-3, abs=1e-3), key


def test_the_second_run_neither_traces_nor_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = pg.PPO(n_steps=8, batch_size=8, n_epochs=2)
    first, second = (training(algorithm, "cartpole") for _ in range(2))
    for made in (first, second):
        made.compile_after = 0
    run(first, 2)
    monkeypatch.setattr("pgrad.training.compiled.machine.trace", _no_compiler)
    monkeypatch.setattr(package, "build", _no_compiler)
    told: list[str] = []
    second.learner.machine.tell = told.append
    run(second, 2)
    assert told == []
    ours = dict(first.agent.named_parameters())
    assert all(torch.equal(p, ours[name]) for name, p in second.agent.named_parameters())


def test_a_setting_of_the_loss_names_another_program_and_a_step_size_does_not() -> None:
    made = training(pg.PPO(n_steps=8, batch_size=8))

    def key(**settings: Any) -> str:
        from pgrad.training.compiled.describe import describe

        loss = pg.PPO(n_steps=8, batch_size=8, **settings).loss
        return package.key_of(describe(Call(loss, {"x": torch.ones(1)}), made.agent))

    assert key() == key(learning_rate=1.0) == key(n_epochs=3)
    assert key() != key(clip_range=0.1)
    assert key() != key(ent_coef=0.0)


@pytest.mark.usefixtures("interpreted")
def test_tensors_in_keywords_are_inputs() -> None:
    machine, _ = compiled(Scale())

    def power(agent: Scale, x: Tensor, exponent: Tensor) -> Tensor:
        return agent.factor * x**exponent

    for exponent in (1.0, 2.0):
        answer = machine.run(partial(power, exponent=torch.tensor(exponent)), torch.tensor([2.0, 2.0]))
        torch.testing.assert_close(answer, torch.tensor([2.0, 3.0]) * 2.0**exponent)


def test_the_oldest_packages_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package, "KEPT", 2)
    for k in range(4):
        path = tmp_path / f"{k}.pt2"
        path.touch()
        import os

        os.utime(path, (k, k))
    package._make_room(tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.pt2")) == ["2", "3"]


@pytest.mark.usefixtures("interpreted")
def test_a_run_is_compiled_after_a_number_of_gradient_steps() -> None:
    """Not after a time, and not by what is planned: so it does not matter where a run was stopped."""
    assert compile_after("yes", usual=False) == 0
    assert compile_after("no", usual=True) is None
    assert compile_after("auto", usual=False) is None
    made = training(pg.PPO(n_steps=8, batch_size=8, n_epochs=2))
    made.compile_after = 6  # an iteration takes four
    states = []
    for _ in range(4):
        made.learner.machine.compiles = False
        made.iterate()
        states.append(made.learner.machine.compiles)
    assert states == [False, False, True, True]


def test_a_draw_repeats_the_operation() -> None:
    draw = Draw("normal_", (1.0, 2.0), torch.empty(3))
    expected = torch.empty(3).normal_(1.0, 2.0, generator=Generator().manual_seed(0))
    assert torch.equal(draw(Generator().manual_seed(0)), expected)
