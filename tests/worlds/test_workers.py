"""Worker processes: the same numbers as without them, and nothing that happens to one is a riddle."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgrad.environments.create import Recipe
from pgrad.environments.history import environment_seeds
from pgrad.environments.shared import STEP
from pgrad.errors import UsageError, WorldError
from pgrad.worlds import make
from pgrad.worlds.gym.workers import WorkerWorld
from tests.worlds.conformance import check_state, check_world
from tests.worlds.fakes import BOTH, TERMINATED, TRUNCATED, StructuredEnv, check_counting, counting_factory
from tests.worlds.tools import advance, same, same_state, sampler, through_file

LENGTHS, ENDINGS = (3, 1, 5), (TERMINATED, TRUNCATED, BOTH)


class Troubled(gymnasium.Env[Any, Any]):
    """As told: 0 answer, 1 raise, 2 die, 3 hang, 4 answer NaN, 5 exit, 6 tell about its process."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Discrete(7)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3), {}

    def step(self, action: int) -> Any:
        if action == 1:
            raise ValueError("joint 7\nis broken")
        if action == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 3:
            time.sleep(600)
        if action == 5:
            os._exit(3)
        obs = np.zeros(3) if action != 4 else np.full(3, np.nan)
        if action == 6:
            ignored = [signal.getsignal(s) is signal.SIG_IGN for s in (signal.SIGINT, signal.SIGTERM)]
            obs = np.array([os.getpid(), float(os.environ["OMP_NUM_THREADS"]), float(all(ignored))])
        return obs, 0.0, False, False, {}


def troubled() -> WorkerWorld:
    return WorkerWorld(Recipe(Troubled, {}, False), environment_seeds(0, 5), 2)


def act(world: Any, *actions: int) -> Any:
    return world.step(torch.tensor(actions))


def pids(world: WorkerWorld) -> list[int]:
    return [process.pid for process in world._team.processes]


def gone(pid: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    left = Path(f"/proc/{server}/task/{server}/children")
    assert server is None or not left.exists() or all(gone(int(pid)) for pid in left.read_text().split())


@pytest.mark.parametrize("workers", [1, 3])
def test_conformance(workers: int) -> None:
    factory = counting_factory(LENGTHS, ENDINGS, 4, shuffled=True)
    check_world(lambda n, seed: make(factory, n_envs=n, seed=seed, workers=workers), steps=25)


def test_conformance_of_nested_spaces() -> None:
    check_state(lambda n, seed: make(StructuredEnv, n_envs=n, seed=seed, workers=2), 12)


def test_every_row_is_what_happened() -> None:
    world = make(counting_factory(LENGTHS, ENDINGS, 4), n_envs=3, workers=2)
    check_counting(world, LENGTHS, ENDINGS, 4)
    world.close()


def test_the_same_for_any_number_of_workers() -> None:
    """Observations, rewards, flags and states, bit for bit; a state goes from any number to any other."""
    worlds = [make("CartPole-v1", n_envs=5, seed=7, workers=workers) for workers in (0, 1, 2, 5)]
    actions = sampler(worlds[0], 1)
    first = [world.reset() for world in worlds]
    assert all(same(obs, first[0]) for obs in first)
    for _ in range(60):
        action = actions()
        rows = [advance(world, action) for world in worlds]
        assert all(same(row, rows[0]) for row in rows)
    states = [through_file(world.state_dict()) for world in worlds]
    assert all(same_state(state, states[0]) for state in states)
    for _ in range(20):
        action = actions()
        rows = [advance(world, action) for world in worlds]
    for world, state in zip(worlds, reversed(states), strict=True):
        world.load_state_dict(state)
    for _ in range(20):
        action = actions()
        rows = [advance(world, action) for world in worlds]
        assert all(same(row, rows[0]) for row in rows)
    for world in worlds:
        world.close()


def test_workers_are_processes_of_one_thread_that_leave_signals_to_the_parent() -> None:
    world = troubled()
    world.reset()
    told = act(world, 6, 6, 6, 6, 6).obs
    assert told[:, 0].tolist() == [float(pid) for pid in np.repeat(pids(world), [2, 3])]
    assert os.getpid() not in pids(world)
    assert (told[:, 1:] == 1).all()
    for pid in pids(world):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert (act(world, 0, 0, 0, 0, 0).obs == 0).all()
    world.close()


def test_an_exception_keeps_its_type_text_and_environment() -> None:
    world = troubled()
    world.reset()
    with pytest.raises(WorldError) as caught:
        act(world, 0, 0, 0, 1, 0)
    expected = (
        "Troubled, environment 3, step 1 of its episode: step raised ValueError: joint 7 is broken (action 1)"
    )
    assert str(caught.value) == expected
    world.reset()  # the workers live on
    act(world, 0, 0, 0, 0, 0)
    with pytest.raises(WorldError, match=r"environment 4, step 2 .*: observation\[0\] is nan \(action 4\)"):
        act(world, 0, 0, 0, 0, 4)
    with pytest.raises(WorldError, match="environment 2, step 3 of its episode: the action 9 is not in"):
        act(world, 0, 0, 9, 0, 0)
    with pytest.raises(WorldError, match=r"5 actions are needed, got \(4,\)"):
        act(world, 0, 0, 0, 0)
    world.close()


def test_a_killed_worker() -> None:
    world = troubled()
    world.reset()
    pid = pids(world)[1]
    with pytest.raises(WorldError) as caught:
        act(world, 0, 0, 0, 2, 0)
    what = f"worker 1 (pid {pid}, environments 2 to 4) was killed by signal 9 (SIGKILL, often out of memory)"
    assert str(caught.value) == f"Troubled: {what}"
    assert all(gone(pid) for pid in pids(world))
    for call in (world.reset, world.state_dict, lambda: act(world, 0, 0, 0, 0, 0)):
        with pytest.raises(WorldError) as again:
            call()
        assert str(again.value) == str(caught.value)


def test_a_worker_killed_between_two_steps() -> None:
    world = troubled()
    world.reset()
    os.kill(pids(world)[0], signal.SIGKILL)
    with pytest.raises(WorldError, match=r"worker 0 \(pid \d+, environments 0 to 1\) was killed by signal 9"):
        act(world, 0, 0, 0, 0, 0)


def test_a_worker_that_exits() -> None:
    world = troubled()
    world.reset()
    with pytest.raises(WorldError, match=r"worker 0 \(pid \d+, environments 0 to 1\) ended with exit code 3"):
        act(world, 5, 0, 0, 0, 0)


def test_a_worker_that_hangs() -> None:
    world = troubled()
    world.reset()
    world._team.timeout = 1.0
    began = time.monotonic()
    with pytest.raises(
        WorldError, match=r"worker 0 \(pid \d+, environments 0 to 1\) did not answer within 1 s"
    ):
        act(world, 3, 0, 0, 0, 0)
    assert time.monotonic() - began < 6.0
    assert all(gone(pid) for pid in pids(world))


def test_close_does_not_wait_for_a_worker_that_hangs() -> None:
    world = troubled()
    world.reset()
    world._give(torch.tensor([3, 0, 0, 0, 0]))
    world._board.call[0] = STEP
    world._team._go[0].release()
    began = time.monotonic()
    world.close()
    world.close()
    assert time.monotonic() - began < 6.0
    assert all(gone(pid) for pid in pids(world))
    with pytest.raises(WorldError, match="Troubled: the world is closed"):
        world.reset()


def test_an_interrupt_in_the_middle_of_a_step() -> None:
    """No answer of the interrupted step can be taken for one of the next."""
    world = troubled()
    world.reset()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        act(world, 3, 0, 0, 0, 0)
    timer.join()
    with pytest.raises(WorldError, match="interrupted in the middle of a step"):
        act(world, 0, 0, 0, 0, 0)
    assert all(gone(pid) for pid in pids(world))


def test_a_world_that_is_forgotten_ends_its_workers() -> None:
    world = troubled()
    left = pids(world)
    del world
    assert all(gone(pid) for pid in left)


def test_environments_that_cannot_be_made() -> None:
    def factory() -> Any:
        raise OSError("no such level")

    with pytest.raises(WorldError, match="factory cannot be made: OSError: no such level"):
        make(factory, n_envs=2, workers=2)
    with pytest.raises(UsageError, match=r"CartPole-v1 cannot be made: TypeError: .*'foo'"):
        make("CartPole-v1", n_envs=2, workers=2, kwargs={"foo": 1})
    lock = threading.Lock()
    with pytest.raises(
        UsageError, match="factory cannot be sent to worker processes, use workers=0: TypeError"
    ):
        make(_holding(lock), n_envs=2, workers=2)


def _holding(lock: Any) -> Any:
    def factory() -> Any:
        return lock

    return factory


def test_pictures() -> None:
    world = make("CartPole-v1", n_envs=2, workers=2, render=True)
    world.reset()
    assert world.render().shape == (400, 600, 3)
    world.close()


def _run(tmp_path: Path, script: str, **arguments: Any) -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **arguments,
    )


UNGUARDED = """
    import gymnasium, numpy as np, torch
    from pgrad.worlds import make

    print("started", flush=True)

    class Mine(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}
        def step(self, action):
            return np.zeros(1, np.float32), 2.0, False, False, {}

    gymnasium.register("Mine-v0", Mine)
    torch.randn(500, 500) @ torch.randn(500, 500)  # its threads are running now
    for name in ("Mine-v0", Mine, lambda: Mine()):
        world = make(name, n_envs=2, workers=2)
        world.reset()
        print(world.step(torch.zeros(2, dtype=torch.int64)).reward.tolist(), flush=True)
"""


def test_a_script_needs_no_guard_and_may_forget_to_close(tmp_path: Path) -> None:
    """Its classes and environments reach the workers, which do not run it again; nothing is printed."""
    process = _run(tmp_path, UNGUARDED)
    out, err = process.communicate(timeout=60)
    assert (out.split("\n"), err, process.returncode) == (["started", *["[2.0, 2.0]"] * 3, ""], "", 0)


LIGHT = """
    import sys
    import gymnasium, numpy as np
    from pgrad.worlds import make

    class Looking(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.array(["torch" in sys.modules], np.float32), {}

    for workers in (0, 2):
        print(make(Looking, n_envs=2, workers=workers).reset().tolist(), flush=True)
"""


def test_workers_do_without_pytorch(tmp_path: Path) -> None:
    """It would be most of their memory, and of the time until they answer."""
    process = _run(tmp_path, LIGHT)
    out, err = process.communicate(timeout=60)
    assert (out.split("\n"), err) == (["[[1.0], [1.0]]", "[[0.0], [0.0]]", ""], "")


WAITING = """
    import time, torch
    from pgrad.worlds import make
    world = make("CartPole-v1", n_envs=2, workers=2)
    world.reset()
    try:
        print(*(process.pid for process in world._team.processes), flush=True)
        while True:
            world.step(torch.zeros(2, dtype=torch.int64))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_is_only_for_the_parent(tmp_path: Path) -> None:
    """Sent to the whole group, as a terminal does: no traceback from a worker, and none is left."""
    process = _run(tmp_path, WAITING, start_new_session=True)
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)
    assert all(gone(pid) for pid in workers)


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    process = _run(tmp_path, WAITING)
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.communicate(timeout=30)
    assert all(gone(pid) for pid in workers)


def test_actions_may_change_their_kind() -> None:
    """A step is the same for int32 as for int64, for bfloat16, for those that need gradients."""
    for name, forms in (
        ("CartPole-v1", [torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1], dtype=torch.int32)] * 2),
        (
            "Pendulum-v1",
            [x := torch.tensor([[0.5], [-1.0], [9.0]]), x.double(), x.bfloat16()],
        ),
        ("Pendulum-v1", [x.clone().requires_grad_(), x]),
    ):
        here, there = (make(name, n_envs=3, workers=workers) for workers in (0, 2))
        assert same(here.reset(), there.reset())
        for action in forms:
            assert same(advance(here, action.detach())[1:], advance(there, action)[1:])
        there.close()


def test_environments_left_alone() -> None:
    here, there = (make("CartPole-v1", n_envs=5, seed=3, workers=workers) for workers in (0, 2))
    assert same(here.reset(), there.reset())
    actions, generator = sampler(here, 0), np.random.default_rng(0)
    for t in range(80):
        active = None if t % 3 == 0 else torch.from_numpy(generator.integers(0, 2, 5).astype(bool))
        action = actions()
        assert same(advance(here, action, active), advance(there, action, active))
    assert same_state(here.state_dict(), there.state_dict())
    there.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_shared_memory_is_given_back() -> None:
    """It has no name, semaphores lose theirs, and what was shown outlives the world that showed it."""

    def mapped() -> int:
        gc.collect()
        return Path("/proc/self/maps").read_text().count("memfd:pgrad")

    before = mapped()
    world: Any = make("CartPole-v1", n_envs=2, workers=2)
    obs = world.reset()
    world.step(torch.zeros(2, dtype=torch.int64))
    shown, semaphores = obs.clone(), [x._semlock.name for x in (*world._team._go, *world._team._done)]
    assert (mapped(), len(semaphores)) == (before + 2, 4)  # one for the actions, one for what is shown
    world.close()
    del world
    assert mapped() == before + 1
    assert torch.equal(obs, shown)
    del obs
    assert mapped() == before
    assert not any(Path(f"/dev/shm/sem.{name.removeprefix('/')}").exists() for name in semaphores)
