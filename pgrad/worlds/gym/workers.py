"""Gymnasium environments shared among worker processes."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Any, NoReturn

import cloudpickle
import torch
from torch import Tensor

from pgrad.data.masked import Masked, choices
from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.errors import UsageError, WorldError
from pgrad.worlds.gym.create import Recipe, error_line
from pgrad.worlds.gym.replay import merge, split
from pgrad.worlds.gym.serve import ERRORS, THREADS, serve, to_numpy, to_tensors
from pgrad.worlds.protocol import Step
from pgrad.worlds.spaces import on_device, zeros

TIMEOUT = 120.0
"""Seconds a worker may take to answer."""


class WorkerWorld:
    """B environments in worker processes: a `World`, to the last bit a `GymnasiumWorld` with the same seeds.

    The processes are never forked from this one, where threads of torch may be running. WorldError tells of a
    worker that died or did not answer within `timeout` seconds; the world is closed then.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[int],
        workers: int,
        *,
        device: torch.device | str = "cpu",
        timeout: float = TIMEOUT,
    ) -> None:
        """One environment for each seed, in slices of nearly the same size."""
        self.name = recipe.name
        self.n_envs = len(seeds)
        self.device = torch.device(device)
        self._timeout = timeout
        try:
            source = cloudpickle.dumps(recipe)
        except Exception as error:
            raise UsageError(
                f"{recipe.name} cannot be sent to worker processes, use workers=0: {error_line(error)}"
            ) from error
        ends = [(self.n_envs * (k + 1)) // workers for k in range(workers)]
        self._slices = [slice(start, end) for start, end in zip((0, *ends), ends, strict=False)]
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        self._closed = ""  # why the world cannot be used any more
        self._stop = Finalize(self, _stop, (self._connections, self._processes), exitpriority=10)
        try:
            self._start(source, seeds)
            self.name, self.observation_space, self.action_space = self._receive()[0]
        except BaseException:
            self.close()
            raise
        self._allocate(zeros(self.observation_space, self.n_envs))
        self.ended = self._ended.to(self.device, copy=True)

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        if any(part.start % group for part in self._slices):
            raise UsageError(
                f"groups of {group} environments must not be shared by workers: {self.n_envs} environments "
                f"have {self.n_envs // group} groups, choose as many workers or a divisor"
            )
        return self._shown(self._ask("reset", [(group,) for _ in self._slices])).obs

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step every environment once; see `World.step`."""
        actions = map_tree(lambda x: x.detach().cpu(), action)
        for part in leaves(actions):
            if not isinstance(part, Tensor) or len(part) != self.n_envs:
                raise WorldError(f"{self.name}: {self.n_envs} actions are needed, got {tuple(part.shape)}")
        chosen = None if active is None else active.cpu()
        parts = [
            (to_numpy(map_tree(lambda x, s=s: x[s], actions)), None if chosen is None else chosen[s].numpy())
            for s in self._slices
        ]
        return self._shown(self._ask("step", parts))

    def state_dict(self) -> dict[str, Any]:
        """The state of all environments, as a `GymnasiumWorld` of as many would give it."""
        return merge([to_tensors(part) for part in self._ask("state_dict", [() for _ in self._slices])])

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Put a state back, taken with any number of workers; see `GymnasiumWorld.load_state_dict`."""
        if state.get("name") != self.name or len(state.get("seed", ())) != self.n_envs:
            theirs = f"{len(state.get('seed', ()))} × {state.get('name')}"
            raise WorldError(f"the state is of {theirs}, this world is {self.n_envs} × {self.name}")
        parts = [(to_numpy(part),) for part in split(state, self._slices)]
        return self._shown(self._ask("load_state_dict", parts)).obs

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        self._send(0, ("render", ()))
        return self._receive([0])[0]

    def close(self) -> None:
        """End the worker processes, within seconds whatever they do."""
        self._closed = self._closed or "the world is closed"
        self._stop()

    def _start(self, source: bytes, seeds: Sequence[int]) -> None:
        context = _context()
        with _single_threaded(), _without_main():
            if context.get_start_method() == "forkserver":
                forkserver.ensure_running()
            for part in self._slices:
                mine, theirs = context.Pipe()
                arguments = (theirs, source, list(seeds[part]), part.start, dict(os.environ))
                process = context.Process(target=serve, args=arguments, daemon=False)
                process.start()
                theirs.close()
                self._connections.append(mine)
                self._processes.append(process)

    def _ask(self, command: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        for k, argument in enumerate(arguments):
            self._send(k, (command, argument))
        return self._receive()

    def _send(self, k: int, message: Any) -> None:
        if self._closed:
            raise WorldError(f"{self.name}: {self._closed}")
        try:
            self._connections[k].send(message)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            self._fail(k, self._death(k))

    def _receive(self, which: Sequence[int] | None = None) -> list[Any]:
        """One answer from each worker; all are read before the first error among them is raised."""
        answers = []
        deadline = time.monotonic() + self._timeout
        for k in range(len(self._slices)) if which is None else which:
            try:
                if not self._connections[k].poll(max(0.0, deadline - time.monotonic())):
                    self._fail(k, f"did not answer within {self._timeout:g} s")
                answers.append(self._connections[k].recv())
            except (EOFError, ConnectionResetError):
                self._fail(k, self._death(k))
            except BaseException:  # an interrupt: answers may still be under way
                self._closed = self._closed or "the world was interrupted in the middle of a step"
                self._stop()
                raise
        for kind, value in answers:
            if kind is not None:
                raise ERRORS[kind](value)
        return [value for _, value in answers]

    def _death(self, k: int) -> str:
        self._processes[k].join(5.0)
        code = self._processes[k].exitcode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        often = ", often out of memory" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({signal.Signals(-code).name}{often})"

    def _fail(self, k: int, what: str) -> NoReturn:
        part = self._slices[k]
        who = f"worker {k} (pid {self._processes[k].pid}, environments {part.start} to {part.stop - 1})"
        self._closed = f"{who} {what}"
        self._stop()
        raise WorldError(f"{self.name}: {self._closed}")

    def _allocate(self, obs: Tree) -> None:
        flags = torch.zeros(3, self.n_envs, dtype=torch.bool)
        self._view = Step(obs, torch.zeros(self.n_envs), flags[0], flags[1])
        self._ended = flags[2]
        self._buffers = [x.numpy() for x in (*leaves(obs), self._view.reward, *flags)]

    def _shown(self, answers: Sequence[list[Any]]) -> Step:
        if len(answers[0]) > len(self._buffers):  # environments that forbid actions show masks from now on
            width = sum(choices(self.action_space))
            self._allocate(Masked(self._view.obs, torch.ones(self.n_envs, width, dtype=torch.bool)))
        for part, answer in zip(self._slices, answers, strict=True):
            for buffer, values in zip(self._buffers, answer, strict=True):
                buffer[part] = values
        self.ended = self._ended.to(self.device, copy=True)
        return self._view if self.device.type == "cpu" else on_device(self._view, self.device)


def _stop(connections: list[Connection], processes: list[Any]) -> None:
    for connection in connections:
        connection.close()
    deadline = time.monotonic() + 2.0
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join(5.0)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([serve.__module__])  # torch is imported once, not in every worker
    return context


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started inside keep their linear algebra on one thread each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(THREADS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes started inside do not run the user's script again, guarded or not."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
