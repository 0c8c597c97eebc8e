"""Machine code computes what the functions do: same random numbers, same steps up to rounding."""

import copy
import inspect
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.data import map_tree
from pgrad.errors import TrainingError
from pgrad.math.distributions import Categorical
from pgrad.models.cells import CELLS
from pgrad.models.normalizer import RunningMoments
from pgrad.stopping import Stopped, signals_later
from pgrad.training.acting import likeliest
from pgrad.training.compiled import Call, Machine, compile_after, package
from pgrad.training.compiled.describe import describe
from pgrad.training.compiled.graph import Draw, Draws, trace
from pgrad.training.loop import Training
from pgrad.training.optimizers import Adam
from pgrad.training.versions import hash_of_sources
from tests.training.tools import CODED, NORMALIZED, training

pytestmark = pytest.mark.usefixtures("cache")
SMALL = pg.AgentSpec(net_arch=(8,))


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


def zeroed(raw: bytes) -> bytes:
    """A package of the same length whose code is no code."""
    begin = raw.index(b"\x7fELF")
    return raw[: begin + 64] + bytes(4096) + raw[begin + 64 + 4096 :]


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
    assert "compiling numbers between gradient steps (noisy)" in told[0]


@pytest.mark.usefixtures("interpreted")
def test_answers_keep_their_structure_and_inputs_may_be_views() -> None:
    machine, _ = compiled(Scale())
    x = torch.arange(8.0).view(4, 2)
    for view in (x[1], x.T[:, 2], x[:, 0][:2]):
        answer = machine.run(product, view)
        assert list(answer) == ["product"]
        assert torch.equal(answer["product"], torch.tensor([2.0, 3.0]) * view)


@pytest.mark.usefixtures("interpreted")
def test_what_an_answer_depends_on_beside_shapes_is_told_apart() -> None:
    """Numbers, the order and the structure of inputs; those of one call are never used for another."""
    machine, told = compiled(Scale())

    def weighed(agent: Scale, parts: Any, factor: float = 1.0, **more: Tensor) -> Tensor:
        first = parts["x"] if isinstance(parts, dict) else parts[0]
        return agent.factor * first * factor - more.get("less", torch.zeros(2))

    one, two, less = torch.ones(2), torch.full((2,), 5.0), torch.full((2,), 0.5)
    calls: list[tuple[Any, ...]] = [
        (weighed, {"x": one, "y": two}),
        (weighed, {"y": two, "x": one}),
        (weighed, (two, one)),
        (partial(weighed, factor=2.0), (one, two)),
        (partial(weighed, factor=True), (one, two)),
        (partial(weighed, factor=3.0, less=less), (one, two)),
        (partial(weighed, less=less, other=two), (one, two)),
        (partial(weighed, other=two, less=less), (one, two)),
    ]
    for function, *inputs in calls:
        assert torch.equal(machine.run(function, *inputs), function(machine.agent, *inputs))
    assert not [line for line in told if "cannot" in line]
    assert len(machine._programs) == len(calls)


@pytest.mark.usefixtures("interpreted")
def test_a_tensor_that_is_no_input_is_not_frozen_into_a_program() -> None:
    """It may be written to: what reads one runs as it is written."""
    machine, told = compiled(Scale())
    hidden = torch.ones(2)

    def secret(agent: Scale, x: Tensor) -> Tensor:
        return agent.factor * x * hidden

    def beside(agent: Scale, x: Tensor, more: Any) -> Tensor:
        return agent.factor * x * more["tensor"] * more["number"]

    for value in (1.0, 2.0):
        hidden.fill_(value)
        expected = torch.tensor([2.0, 3.0]) * value
        assert torch.equal(machine.run(secret, torch.ones(2)), expected)
        assert torch.equal(machine.run(beside, torch.ones(2), {"tensor": hidden, "number": 1.0}), expected)
    assert len(told) == 2
    assert all("cannot be compiled" in line for line in told)


def test_numbers_in_a_graph_are_part_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings of somebody's own agent that give one graph with other constants."""
    names: list[str] = []
    monkeypatch.setattr(package, "load", lambda key, _: names.append(key))
    monkeypatch.setattr(package, "build", lambda module, *_: lambda tensors: module(*tensors))

    def shifted(agent: Any, x: Tensor) -> Tensor:
        return agent.factor * x + torch.tensor([agent.shift, 1.0])

    for shift in (1.0, 2.0):
        agent = Scale()
        agent.shift = shift  # type: ignore[assignment]
        machine, _ = compiled(agent)
        assert torch.equal(machine.run(shifted, torch.ones(2)), torch.tensor([2.0 + shift, 4.0]))
    assert len(set(names)) == 2


@pytest.mark.usefixtures("interpreted")
def test_inputs_that_a_function_writes_to_are_written_once() -> None:
    machine, _ = compiled(Scale())
    x = torch.zeros(2)

    def counted(agent: Scale, x: Tensor) -> Tensor:
        return agent.factor * x.add_(1.0)

    assert torch.equal(machine.run(counted, x), torch.tensor([2.0, 3.0]))
    assert torch.equal(x, torch.ones(2))


@pytest.mark.usefixtures("interpreted")
def test_other_shapes_are_other_programs() -> None:
    machine, _ = compiled(Scale())
    for n in (1, 3):
        x = torch.randn(n, 2)
        assert torch.equal(machine.run(product, x)["product"], torch.tensor([2.0, 3.0]) * x)


@pytest.mark.usefixtures("interpreted")
def test_strides_along_a_dimension_of_one_name_no_other_program() -> None:
    """They differ between answers of what is written and of machine code, and mean nothing."""
    x = torch.tensor([[1.0], [2.0]])
    for given, lines in ((x, 1), (x.as_strided((2, 1), (1, 2)), 0)):
        machine, told = compiled(Scale())
        assert torch.equal(machine.run(product, given)["product"], torch.tensor([2.0, 3.0]) * x)
        assert len(told) == lines


@pytest.mark.usefixtures("interpreted")
def test_what_decides_by_values_runs_as_it_is_written() -> None:
    machine, told = compiled(Scale())
    for x in (torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])):
        assert torch.equal(machine.run(by_value, x), x.abs())
    assert len(told) == 1
    assert told[0].startswith("by_value cannot be compiled")


def test_what_the_compiler_refuses_runs_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(package, "build", _no_compiler)
    machine, told = compiled(Scale())
    assert torch.equal(machine.run(product, torch.ones(2))["product"], torch.tensor([2.0, 3.0]))
    assert "no compiler" in told[-1]


@pytest.mark.parametrize("lacks", ["compiler", "folder"])
def test_where_nothing_can_be_compiled_it_is_said_once(
    lacks: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    if lacks == "compiler":
        monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", _no_compiler)
        monkeypatch.setenv("PGRAD_CACHE", str(tmp_path / "cache"))
    else:
        monkeypatch.setenv("PGRAD_CACHE", str(tmp_path / "file" / "cache"))
    made = training(pg.PPO(n_steps=8, batch_size=8, n_epochs=2), "cartpole", agent=SMALL)
    plain = training(pg.PPO(n_steps=8, batch_size=8, n_epochs=2), "cartpole", agent=SMALL)
    made.compile_after = 0
    told: list[str] = []
    machine = made.learner.machine
    machine.tell = machine.warn = told.append
    assert run(made, 2) == run(plain, 2)
    assert len(told) == 1
    assert told[0].startswith("nothing can be compiled here")


@pytest.mark.parametrize("damage", [lambda raw: raw[:-200], lambda raw: b"", zeroed])
def test_a_damaged_package_is_compiled_again(
    damage: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One bit is enough: the loader itself looks at no checksum."""
    x = torch.ones(2)
    names: list[str] = []
    load = package.load
    monkeypatch.setattr(package, "load", lambda key, device: (names.append(key), load(key, device))[1])
    machine, _ = compiled(Scale())
    expected = machine.run(noisy, x, Generator().manual_seed(1))
    whole, path = (cache / f"{names[0]}.pt2").read_bytes(), tmp_path / f"{names[0]}.pt2"
    path.write_bytes(damage(whole))
    monkeypatch.setenv("PGRAD_CACHE", str(tmp_path))
    again, told = compiled(Scale())
    monkeypatch.setattr(
        package, "build", lambda *_: (path.write_bytes(whole), package._open(path, x.device))[1]
    )
    assert torch.equal(again.run(noisy, x, Generator().manual_seed(1)), expected)
    assert [line for line in told if "(noisy)" in line]


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
    compare(pg.PPO(n_steps=8, batch_size=8, n_epochs=2), "cartpole", CODED)


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
    first, second = (training(algorithm, "cartpole", agent=CODED) for _ in range(2))
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
        loss = pg.PPO(n_steps=8, batch_size=8, **settings).loss
        return package.key_of(describe(Call(loss, {"x": torch.ones(1)}), made.agent))

    assert key() == key(learning_rate=1.0) == key(n_epochs=3)
    assert key() != key(clip_range=0.1)
    assert key() != key(ent_coef=0.0)


SPECS = [
    SMALL,
    pg.AgentSpec(net_arch=(8,), activation="relu"),
    pg.AgentSpec(net_arch=(8,), normalize_obs=True),
    pg.AgentSpec(net_arch=(8,), learn_std=False),
]


def test_other_agents_name_other_programs() -> None:
    """Also where no shape tells them apart: what is trained of it, a clip, a hook."""
    loss = pg.PPO(n_steps=8, batch_size=8).loss

    def key(agent: nn.Module, function: Any = loss) -> str:
        return package.key_of(describe(Call(function, {"x": torch.ones(1)}), agent))

    agents = [training(pg.PPO(n_steps=8, batch_size=8), "pendulum", agent=spec).agent for spec in SPECS]
    assert len({key(agent) for agent in agents}) == len(agents)
    first, second, normalized = agents[0], agents[1], agents[2]
    before, clipped = key(first), key(normalized)
    next(first.network.parameters()).requires_grad_(False)
    assert key(first) != before
    assert normalized.normalizer is not None
    normalized.normalizer.clip = 5.0
    assert key(normalized) != clipped
    kl = pg.PPOKL(n_steps=8, batch_size=8)
    assert key(second, kl.loss) != key(second, loss)
    second.register_forward_hook(lambda *_: None)
    assert describe(Call(loss, {"x": torch.ones(1)}), second) is None


def test_packages_are_named_by_all_that_is_compiled() -> None:
    """A change of any source that a graph is made of must not meet an old package."""
    home = Path(package.__file__).parents[2]
    found = {path for pattern in package.COMPILED for path in home.glob(pattern)}
    for part in (pg.PPO.loss, likeliest, Adam, trace, RunningMoments, Categorical):
        assert Path(inspect.getfile(part)) in found


def test_packages_are_named_by_the_threads_that_they_are_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler divides loops among as many threads as there are when it runs."""
    names = []
    for threads in (1, 4, 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        names.append(package.key_of("it"))
    assert names[0] == names[2] != names[1]


@pytest.mark.usefixtures("interpreted")
def test_tensors_in_keywords_are_inputs() -> None:
    machine, _ = compiled(Scale())

    def power(agent: Scale, x: Tensor, exponent: Tensor) -> Tensor:
        return agent.factor * x**exponent

    for exponent in (1.0, 2.0):
        answer = machine.run(partial(power, exponent=torch.tensor(exponent)), torch.tensor([2.0, 2.0]))
        torch.testing.assert_close(answer, torch.tensor([2.0, 3.0]) * 2.0**exponent)


def test_packages_are_named_by_the_sources_that_were_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What changes on the disk afterwards is not what runs here; another process reads it, and its name is
    another."""
    assert hash_of_sources(*package.COMPILED) == package.SOURCES
    package._surroundings.cache_clear()
    before = package.key_of("it")
    changed = tmp_path / "pgrad" / "training" / "optimizers.py"
    changed.parent.mkdir(parents=True)
    changed.write_text("edited")
    monkeypatch.setattr("pgrad.training.versions.__file__", str(changed))
    package._surroundings.cache_clear()
    assert package.key_of("it") == before
    assert hash_of_sources(*package.COMPILED) != package.SOURCES


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("after", [6, 8])
def test_a_run_is_compiled_after_a_number_of_gradient_steps(after: int) -> None:
    """Not after a time, and not by what is planned: so it does not matter where a run was stopped."""
    assert compile_after("yes", usual=False) == 0
    assert compile_after("no", usual=True) is None
    assert compile_after("auto", usual=False) is None
    made = training(pg.PPO(n_steps=8, batch_size=8, n_epochs=2))
    made.compile_after = after  # an iteration takes four
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


LINEAR: dict[str, Any] = {"learning_rate_schedule": "linear"}
RESUMED = [
    (
        pg.PPO(n_steps=8, batch_size=8, n_epochs=2, recompute_advantage=True, **LINEAR),
        "pendulum",
        NORMALIZED,
    ),
    (
        pg.PPOKL(n_steps=8, batch_size=8, n_epochs=2, recompute_advantage=True, **LINEAR),
        "cartpole",
        NORMALIZED,
    ),
    (pg.A2C(), "cartpole", NORMALIZED),
    (pg.TRPO(n_steps=8, batch_size=8, n_critic_updates=2), "pendulum", NORMALIZED),
    (pg.OffPolicyActorCritic(n_steps=8, replay_ratio=2), "cartpole", NORMALIZED),
    (
        pg.SAC(learning_starts=10, batch_size=8, buffer_size=30),
        "pendulum",
        pg.AgentSpec(net_arch=(8,), normalize_obs=True),
    ),
]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("algorithm", "world", "agent"), RESUMED)
def test_stops_anywhere_change_nothing(algorithm: Any, world: str, agent: Any) -> None:
    """In the middle of windows and of updates that are undone, before and after the switch: bit for bit.

    Machine code reads and writes the tensors that are there, so these must be put back in place.
    """
    stop_and_go_on(algorithm, world, agent, after=5, every=(3, 8, 11))


def test_stops_change_nothing_of_what_the_compiler_made() -> None:
    stop_and_go_on(pg.PPO(n_steps=8, batch_size=8, n_epochs=2), "cartpole", CODED, after=0, every=(9,))


def stop_and_go_on(algorithm: Any, world: str, agent: Any, after: int, every: tuple[int, ...]) -> None:
    iterations = 7

    def begun() -> Training:
        made = training(algorithm, world, agent=agent)
        made.compile_after, made.patience = after, -1.0  # every update can be undone
        made.learner.machine.tell = lambda _: None
        return made

    whole = begun()
    run(whole, iterations)
    assert any(program is not None for program in whole.learner.machine._programs.values())
    for n in every:
        made, stops = stopped_every(n, begun, iterations)
        assert stops > 1
        expected, found = (dict(numbered(one.state_dict())) for one in (whole, made))
        assert expected.keys() == found.keys()
        for name, number in expected.items():
            same = torch.equal(number, found[name]) if isinstance(number, Tensor) else number == found[name]
            assert same, name


def stopped_every(n: int, begin: Callable[[], Training], iterations: int) -> tuple[Training, int]:
    """A run that the n-th chance stops, five times; in turn it goes on anew and where it is."""
    made, asked, stops = begin(), 0, 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked % n == 0 and asked <= 5 * n:
            raise Stopped

    while made.iterations < iterations:
        try:
            made.iterate(stop)
        except Stopped:
            state = copy.deepcopy(detached(made.state_dict()))
            made = made if stops % 2 else begin()
            made.load_state_dict(state)
            stops += 1
    return made, stops


def detached(state: Any) -> Any:
    if isinstance(state, list):
        return [detached(part) for part in state]
    return map_tree(lambda x: x.detach() if isinstance(x, Tensor) else x, state)


def numbered(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a state with where it is."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, part in items:
            yield from numbered(part, f"{name}/{key}")
    else:
        yield name, state


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("after", [None, 0])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_told(after: int | None) -> None:
    made = training(pg.PPO(n_steps=8, batch_size=16, n_epochs=1), "cartpole", agent=SMALL)
    made.compile_after = after
    before = {name: p.detach().clone() for name, p in made.agent.named_parameters()}
    step = made.world.step  # type: ignore[union-attr]
    infinite = torch.full((2,), float("inf"))
    made.world.step = lambda *x: step(*x)._replace(reward=infinite)  # type: ignore[union-attr, method-assign]
    with pytest.raises(
        TrainingError, match="grad_norm not finite after 1 gradient steps; they moved nothing"
    ):
        made.iterate()
    assert all(torch.equal(p, before[name]) for name, p in made.agent.named_parameters())


@pytest.mark.usefixtures("interpreted")
def test_whole_episodes_are_only_acted_by_machine_code() -> None:
    """Their lengths differ every time: there would be a program for each, compiled anew."""
    plain, quick = (training(pg.Reinforce(n_episodes=2), "cartpole", agent=CODED) for _ in range(2))
    quick.compile_after = 0
    told: list[str] = []
    quick.learner.machine.tell = told.append
    for one, other in zip(run(plain, 4), run(quick, 4), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    assert [line.split(",")[0] for line in told] == ["compiling acting (sampled)"]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("gru", pg.PPO(n_steps=32, batch_size=64, n_epochs=1)), ("lstm", pg.A2C(n_steps=8))],
)
def test_agents_with_a_memory_learn_by_machine_code(kind: Any, algorithm: Any) -> None:
    """They act as they are: numpy and C++ take no longer."""
    spec = pg.AgentSpec(net_arch=(8,), memory=kind, memory_size=6, normalize_obs=True)
    plain, quick = (training(algorithm, "cartpole", agent=spec) for _ in range(2))
    quick.compile_after = 0
    told: list[str] = []
    quick.learner.machine.tell, quick.learner.machine.warn = told.append, pytest.fail
    for one, other in zip(run(plain, 2), run(quick, 2), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    name = type(algorithm).__name__
    parts = (
        "numbers between gradient steps (foreseen)",
        f"numbers between gradient steps ({name}.credit)",
        f"a gradient step ({name}.loss)",
    )
    assert {f"compiling {part}" for part in parts} == {line.split(",")[0] for line in told}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loop_as_machine_code(dtype: torch.dtype) -> None:
    """Forwards and backwards: in C++ or, in double precision, torch's own."""
    cell, draw = CELLS["lstm"], Generator().manual_seed(0)
    shapes = (5, 3, 2), (5, 3, 1), (2, 3, 8), (2, 5, 3, 4), *2 * ((16, 2), (16, 4), (16,), (16,))
    inputs = [torch.randn(shape, generator=draw, dtype=dtype) for shape in shapes]
    inputs[1] = (inputs[1] > 0).to(dtype)

    def both(x: Tensor, keep: Tensor, state: Tensor, grad: Tensor, *weights: Tensor) -> list[Tensor]:
        own = [part.detach().requires_grad_() for part in (x, *weights)]
        y = cell.sequence.apply(own[0], keep, state, *own[1:])
        return [y.detach(), *torch.autograd.grad(y, own, grad)]

    with warnings.catch_warnings(action="ignore"):  # the compiler's own
        code = package.build(
            trace(both, inputs), inputs, package.key_of(f"a loop of {dtype}"), torch.device("cpu")
        )
    for mine, theirs in zip(code(inputs), both(*inputs), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.usefixtures("interpreted")
def test_a_group_that_a_loss_does_not_reach_stays() -> None:
    made = training(pg.A2C(), "cartpole", agent=SMALL)
    made.learner.machine.compiles = True
    made.learner.machine.warn = pytest.fail
    before = {name: p.detach().clone() for name, p in made.agent.named_parameters()}
    batch = made.algorithm.credit(made.agent, made.collector.collect(made.request))
    made.learner.descend(actor_only, batch)
    for name, p in made.agent.named_parameters():
        assert torch.equal(p, before[name]) == ("critic" in name), name


def actor_only(agent: Any, batch: Any) -> Any:
    loss = (agent.policy(batch.obs).log_prob(batch.action) * batch.advantage).mean()
    return loss, {"train/loss": loss.detach()}


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be kept here")
def test_ctrl_c_reaches_the_compiler_as_little_as_the_run() -> None:
    """Without its compiler a step would be taken by the function as it is written, and rounded otherwise.

    Another thread may hear the signal at once; a run's handler only notes it.
    """
    tells = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with signals_later():
            os.kill(os.getpid(), signal.SIGINT)
            told = subprocess.run([sys.executable, "-c", tells], capture_output=True, text=True).stdout
    finally:
        signal.signal(signal.SIGINT, before)
    assert told.strip() == "True"
    assert heard == [signal.SIGINT]
