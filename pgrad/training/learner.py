"""The learner: the only place where parameters move."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Algorithm, Loss, Metrics
from pgrad.data import Batch, Recent, Replay, Tokens
from pgrad.data.shared import at_once
from pgrad.data.shuffled import columns, minibatches
from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.models.recurrent import RecurrentNetwork
from pgrad.stopping import Stop, go_on
from pgrad.training.compiled import Call, CompiledStep, CompiledTogether, Derivatives, Machine
from pgrad.training.devices import put_generator_back
from pgrad.training.optimizers import EPS, clip, flatten_parameters
from pgrad.training.records import (
    Record,
    averaged,
    explained,
    noted,
    of_group,
    require_sound,
    together,
)
from pgrad.training.stages import Stages


class Learner:
    """Holds the agent's parameters as one flat tensor and walks it down the gradients of losses.

    one_shape: whether it learns from windows, for whose shapes there can be machine code.
    """

    def __init__(
        self, agent: Agent, algorithm: Algorithm, generator: Generator, one_shape: bool = True
    ) -> None:
        self.agent = agent
        self.generator = generator
        self.replay = Replay(getattr(algorithm, "buffer_size", 0))
        self.recent = Recent(getattr(algorithm, "reuse", 0))
        self.variables: dict[str, Tensor] = {}
        self.texts_at_once = 0  # that a backward pass holds; 0 for as many as `at_once` allows
        self.progress = 0.0
        self.n_updates = 0
        self.gap: float | None = None  # |log π − log μ| at most, before the first step of the last update
        self.stop: Stop = go_on  # called before every gradient, and between those of parts
        self._share = 1.0
        self._schedule = algorithm.learning_rate_schedule
        self._max_grad_norm = algorithm.max_grad_norm
        rate, critic_rate = algorithm.learning_rate, algorithm.critic_learning_rate
        if rate is None:
            raise UsageError(f"{type(algorithm).__name__}: learning_rate must be given here")
        rates = {
            "actor": rate,
            "critic": rate if critic_rate is None else critic_rate,
            "temperature": rate,
        }
        eps = getattr(algorithm, "optimizer_eps", EPS)
        self._flat = flatten_parameters(agent, rates, algorithm.optimizer, eps)
        self.noise = Generator(self._flat.values.device).manual_seed(generator.initial_seed() + 1)
        if critic_rate is not None and "critic" not in self._flat.groups:
            raise UsageError(
                "critic_learning_rate is set, but no parameter's name has a part that begins with critic"
            )
        self.machine = Machine(agent)
        self._remembers = getattr(agent, "has_memory", False)
        self._by_machine = one_shape and (not self._remembers or self._is_one_loop)
        self._steps: dict[str | None, CompiledStep] = {}
        self._derivatives: dict[str, Derivatives] = {}
        self._together: CompiledTogether | None = None
        self._records: list[Record] = []
        self.stages = Stages()  # where time is counted

    @property
    def _is_one_loop(self) -> bool:
        """Whether a graph of the agent's memory holds a loop over time; others' would be unrolled."""
        own = isinstance(getattr(self.agent, "network", None), RecurrentNetwork)
        return own and self._flat.values.device.type == "cpu"

    def begin(self, progress: float) -> None:
        """Start an update with this share of the budget used: sets the learning rates."""
        self.progress = progress
        self._share = 1.0 - progress if self._schedule == "linear" else 1.0
        self._records.clear()

    @property
    def learning_rates(self) -> dict[str, float]:
        """What each group steps with in this update."""
        return {name: group.learning_rate * self._share for name, group in self._flat.groups.items()}

    def descend(self, loss: Loss, batch: Batch, group: str | None = None) -> Metrics:
        """One step down the gradient of `loss` on `batch`, clipped to `max_grad_norm`; one group, or all.

        A gradient that is not finite counts as zero, so that parameters stay finite; `read` then raises.
        """
        self.stop()
        metrics = None
        if self.machine.compiles and self._by_machine:
            metrics = self._compiled_step(group)(Call(loss, batch), self._share)
        if metrics is None:
            metrics = self._step(loss, batch, group)
        metrics = of_group(metrics, group)
        self._records.append(noted(metrics))
        self.n_updates += 1
        return metrics

    def perform(self, function: Callable[..., None], *inputs: Any) -> None:
        """function(learner, *inputs): steps that belong together, one program where there is machine code.

        It may descend each group once, compute, and follow.
        """
        self.stop()
        found = None
        if self.machine.compiles and self._by_machine:
            if self._together is None:
                self._together = CompiledTogether(self.machine, self._flat, self._max_grad_norm)
            found = self._together(Call(function, *inputs), self._share)
        if found is None:
            function(self, *inputs)
            return
        self._records += map(noted, found)
        self.n_updates += len(found)

    def _step(self, loss: Loss, batch: Batch, group: str | None) -> Metrics:
        """The step as it is written: gradients gather in the flat tensor."""
        groups = [self._flat.groups[name] for name in self._stepped(group)]
        grads = self._flat.grads if group is None else groups[0].grads
        grads.zero_()
        inputs = [p for one in groups for p in one.parameters]
        parts = self._parts(batch) if isinstance(batch.obs, Tokens) else [batch]
        found = []
        for part in parts:
            self.stop()
            scalar, numbers = loss(self.agent, part)
            torch.autograd.backward(scalar, inputs=inputs)
            found.append(numbers)
        metrics = found[0] if len(found) == 1 else together(found, [part.mask.sum() for part in parts])
        with torch.no_grad():
            norm = clip(grads, self._max_grad_norm)
        for one in groups:
            one.optimizer.step(one.learning_rate * self._share)
        return {**metrics, "train/grad_norm": norm}

    def _compiled_step(self, group: str | None) -> CompiledStep:
        if group not in self._steps:
            stepped = self._stepped(group)
            self._steps[group] = CompiledStep(self.machine, self._flat, stepped, self._max_grad_norm)
        return self._steps[group]

    def _stepped(self, group: str | None) -> list[str]:
        """The names of the groups that a step of `group` moves."""
        return list(self._flat.groups) if group is None else [self._known(group)]

    def compute(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """function(agent, *inputs), of which no gradient is wanted: trees, and perhaps a generator."""
        with self.stages.within("credit"):
            if self._by_machine:
                return self.machine.run(function, *inputs)
            return function(self.agent, *inputs)

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """θ̄ ← (1 − τ)·θ̄ + τ·θ for the target networks."""
        self._flat.targets.lerp_(self._flat.groups["critic"].values, tau)

    def derivatives(self, group: str) -> Derivatives:
        """First and second derivatives in a group's parameters, in the order of its flat vector [P]."""
        self.stop()
        if group not in self._derivatives:
            parts = self.machine, self._flat, self._known(group), self._by_machine
            self._derivatives[group] = Derivatives(*parts)
        return self._derivatives[group]

    @torch.no_grad()
    def attempt(self, step: Tensor, group: str, accept: Callable[[], Tensor]) -> bool:
        """Move a group by `step` [P]; unless `accept()` is then true, move it back, bit for bit."""
        self.stop()
        values = self._flat.groups[self._known(group)].values
        before = values.clone()
        values += step
        accepted = bool(accept())
        if not accepted:
            values.copy_(before)
        self.n_updates += accepted
        return accepted

    def minibatches(self, batch: Batch, batch_size: int) -> Iterator[Batch]:
        """Every decision of a flattened batch once, shuffled, `batch_size` at a time; see `shuffled`."""
        return minibatches(batch, batch_size, self.generator)

    def columns(self, batch: Batch, n: int) -> Iterator[Batch]:
        """Every column of a batch that is not flattened once, shuffled, `n` at a time."""
        return columns(batch, n, self.generator)

    def _parts(self, batch: Batch) -> list[Batch]:
        """What of a batch of texts a backward pass holds."""
        tokens = at_once(self._flat.values.device)
        shares = getattr(getattr(self.agent, "network", None), "shares", None)
        width = None if shares is None else shares(len(batch.mask))
        n = self.texts_at_once or max(1, tokens // len(batch.mask))
        return batch.parts(n, width, strict=self.texts_at_once > 0)

    def _known(self, group: str) -> str:
        if group not in self._flat.groups:
            raise UsageError(
                f"the agent has no parameter with a part of its name beginning with {group!r}, which this "
                "algorithm steps alone"
            )
        return group

    def read(self, extra: Metrics) -> dict[str, float]:
        """The means over the update's steps, and `extra`, as numbers: an iteration's one synchronisation.

        Raises TrainingError where a gradient was not finite, or the policy that is trained did not agree with
        the policy that acted before the first step.
        """
        device = self._flat.values.device
        metrics, self.gap = averaged(self._records, extra, device)
        require_sound(metrics, self.gap, explained(self.agent, device), self.n_updates)
        metrics["train/learning_rate"] = self.learning_rates.get("actor", 0.0)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the next step, beside the agent's own tensors."""
        return {
            "optimizers": {name: group.optimizer.state_dict() for name, group in self._flat.groups.items()},
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "replay": self.replay.state_dict(),
            "recent": self.recent.state_dict(),
            "variables": dict(self.variables),
            "n_updates": self.n_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back, bit for bit."""
        for name, group in self._flat.groups.items():
            group.optimizer.load_state_dict(state["optimizers"][name])
        put_generator_back(self.generator, state["generator"])
        put_generator_back(self.noise, state["noise"])
        self.replay.load_state_dict(state["replay"])
        self.recent.load_state_dict(state["recent"])
        self.variables = dict(state["variables"])
        self.n_updates = state["n_updates"]
