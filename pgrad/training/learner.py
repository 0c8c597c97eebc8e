"""The learner: the only place where parameters move."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Algorithm, Loss, Metrics
from pgrad.algorithms.sampler import SAMPLING
from pgrad.data import Batch, Recent, Replay, Tokens
from pgrad.data.sequence import sequences_per_batch
from pgrad.data.shared import at_once
from pgrad.errors import TrainingError, UsageError
from pgrad.models import Agent
from pgrad.stopping import Stop, go_on
from pgrad.training.compiled import Call, CompiledStep, Machine
from pgrad.training.optimizers import clip, flatten_parameters
from pgrad.training.stages import Stages

RATIO_TOLERANCE = {"cpu": 1e-3, "cuda": 2e-2}
"""Largest |log π − log μ| on fresh data that rounding can explain: float32's, or TF32's in convolutions."""

HALF_TOLERANCE = 1.0
"""The same where matrices are multiplied in bfloat16: log-probabilities of rare tokens are −10 and less."""


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
        self.gap = 0.0  # |log π − log μ| at most, on fresh data before the first step of the last update
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
        self._flat = flatten_parameters(agent, rates, algorithm.optimizer)
        self.noise = Generator(self._flat.values.device).manual_seed(generator.initial_seed() + 1)
        if critic_rate is not None and "critic" not in self._flat.groups:
            raise UsageError(
                "critic_learning_rate is set, but no parameter's name has a part that begins with critic"
            )
        self.machine = Machine(agent)
        # A loop over time would be unrolled.
        self._by_machine = one_shape and not getattr(agent, "has_memory", False)
        self._steps: dict[str | None, CompiledStep] = {}
        self._records: list[Metrics] = []
        self.stages = Stages()  # where time is counted

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
        self._records.append(metrics)
        self.n_updates += 1
        return metrics

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

    def parameters(self, group: str) -> list[Tensor]:
        """The parameters of a group, in the order of its flat vectors."""
        return self._flat.groups[self._known(group)].parameters

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
        """Every decision of a flattened batch once, shuffled, `batch_size` at a time, in whole sequences.

        Texts are of different lengths: there it is about as many, in parts of as many texts.
        """
        if isinstance(batch.obs, Tokens):
            parts = max(1, round(float((batch.mask > 0).sum()) / batch_size))
            yield from self.columns(batch, -(-batch.mask.shape[1] // parts))
            return
        n = batch.mask.shape[batch.axis]
        order = torch.randperm(n, generator=self.generator, device=self.generator.device)
        order = order.to(batch.mask.device)
        if batch.axis:  # views of columns would be slower to work on
            for part in torch.split(order, sequences_per_batch(batch_size, len(batch.mask))):
                yield batch.select(part)
            return
        shuffled = batch.select(order)
        for start in range(0, n, batch_size):
            yield shuffled.rows(start, start + batch_size)

    def columns(self, batch: Batch, n: int) -> Iterator[Batch]:
        """Every column of a batch that is not flattened once, shuffled, `n` at a time."""
        size = batch.mask.shape[1]
        if n >= size:
            yield batch
            return
        order = torch.randperm(size, generator=self.generator, device=self.generator.device)
        for part in torch.split(order.to(batch.mask.device), n):
            yield batch.columns(part).trimmed()

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
        columns: dict[str, list[Tensor]] = {}
        for record in self._records:
            for key, value in record.items():
                columns.setdefault(key, []).append(value)
        columns = {key: x[:1] if key.startswith(SAMPLING) else x for key, x in columns.items()}
        columns |= {key: [value] for key, value in extra.items()}
        first = {key: values[0] for key, values in columns.items() if key == "train/max_log_ratio"}
        device = self._flat.values.device
        means = [_mean(values).to(device) for values in columns.values()]
        means += [value.to(torch.float32) for value in first.values()]
        numbers: list[float] = torch.stack(means).tolist() if means else []
        metrics = dict(zip(columns, numbers, strict=False))
        self.gap = numbers[len(columns)] if first else 0.0
        self._check(metrics, self.gap)
        metrics.pop("train/max_log_ratio", None)
        metrics["train/learning_rate"] = self.learning_rates.get("actor", 0.0)
        return metrics

    def _check(self, metrics: dict[str, float], first_log_ratio: float) -> None:
        watched = ("train/loss", "train/value_loss", "train/grad_norm", "train/policy_grad_norm")
        bad = [key for key in watched if key in metrics]
        bad = [key for key in bad if not math.isfinite(metrics[key])]
        if bad:
            raise TrainingError(
                f"{' and '.join(bad)} not finite after {self.n_updates} gradient steps; they moved "
                "nothing. Common causes: enormous rewards, too large a learning rate, a network that divides"
            )
        network = getattr(self.agent, "network", None)
        half = getattr(network, "dtype", None) == torch.bfloat16
        tolerance = RATIO_TOLERANCE.get(self._flat.values.device.type, 1e-3)
        if not first_log_ratio <= (HALF_TOLERANCE if half else tolerance):
            raise TrainingError(
                "the policy that is trained is not the policy that acted: on fresh data, before any step, "
                f"|log ratio| is {first_log_ratio:.2g} and must be 0. Common causes: dropout, batch "
                "normalisation, an observation normaliser that moved during collection"
            )

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
        self.generator.set_state(state["generator"].cpu())
        self.noise.set_state(state["noise"].cpu())
        self.replay.load_state_dict(state["replay"])
        self.recent.load_state_dict(state["recent"])
        self.variables = dict(state["variables"])
        self.n_updates = state["n_updates"]


def _mean(values: list[Tensor]) -> Tensor:
    if len(values) == 1:
        return values[0].to(torch.float32)
    return torch.stack(values).to(torch.float32).mean()


def together(parts: list[Metrics], weights: list[Tensor]) -> Metrics:
    """The metrics of a batch from those of its parts: sums of losses, extremes of extremes, else means."""
    share = torch.stack(weights) / torch.stack(weights).sum()
    columns = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def one(name: str, x: Tensor) -> Tensor:
        if name == "train/loss":
            return x.sum()
        if "max" in (kind := name.rpartition("/")[2].split("_")):
            return x.amax()
        return x.amin() if "min" in kind else (share * x).sum()

    return {name: one(name, x) for name, x in columns.items()}
