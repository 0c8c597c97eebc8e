"""A language that can be written down: all completions of all prompts, as the trajectory that training makes.

A policy is a table over texts, as any language model is one in the end: what it does next depends on all that
was read and on nothing else, so prompts that begin alike share what it knows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor

from pgrad.data import Tokens, Trajectory, map_tree, unequal
from pgrad.errors import UsageError
from pgrad.lab.enumerate import every_group
from pgrad.lab.estimate import MAX_GROUPS, Estimates, estimator_of, of_batches
from pgrad.math.distributions import Categorical
from pgrad.models.language.generate import Completions
from pgrad.training.completions import as_trajectory

Text = tuple[int, ...]

MAX_TEXTS = 1_000_000
"""So many sequences of tokens may there be, texts or not."""


@dataclass(frozen=True)
class Language:
    """V tokens, the prompts, and when a completion ends: with an EOS, or cut off after `length` tokens."""

    prompts: tuple[Text, ...]
    n_tokens: int = 3
    eos: tuple[int, ...] = (2,)
    length: int = 2

    def __post_init__(self) -> None:
        longest = max(map(len, self.prompts)) + self.length
        if (self.n_tokens + 1) ** longest > MAX_TEXTS:
            raise UsageError(f"texts of {longest} out of {self.n_tokens} tokens are too many to enumerate")

    @cached_property
    def completions(self) -> tuple[Text, ...]:
        """All K of them, the shorter first."""
        going = [token for token in range(self.n_tokens) if token not in self.eos]
        found: list[Text] = []
        for n in range(1, self.length + 1):
            last = range(self.n_tokens) if n == self.length else self.eos
            found += [(*begun, token) for begun in product(going, repeat=n - 1) for token in last]
        return tuple(found)

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """Everything that can have been read at some row: how prompts and whole texts begin, S of them."""
        whole = [prompt + answer for prompt in self.prompts for answer in self.completions]
        return tuple(sorted({text[:n] for text in whole for n in range(1, len(text) + 1)}))

    @cached_property
    def number(self) -> Tensor:
        """Of every sequence of tokens, by its code: which text it is, S for none."""
        size = (self.n_tokens + 1) ** (max(map(len, self.prompts)) + self.length)
        table = torch.full((size,), len(self.texts))
        for i, text in enumerate(self.texts):
            code = 0
            for token in text:
                code = code * self.n_tokens + token + 1
            table[code] = i
        return table

    def text(self, obs: Tokens) -> Tensor:
        """Which text has been read at each row, [T, B]."""
        found, code = [], torch.zeros_like(obs.id[0])
        for token, place in zip(obs.id, obs.position, strict=True):
            code = torch.where(place == 0, 0, code) * self.n_tokens + token + 1
            found.append(code)
        return self.number[torch.stack(found)]


class TextAgent:
    """π(·|text) = softmax(theta[text]), V(text) = critic[text], and the reference softmax(anchor[text])."""

    def __init__(self, language: Language, theta: Tensor, critic: Tensor, anchor: Tensor) -> None:
        self.language = language
        self.theta, self.anchor = theta, anchor  # [S+1, V]
        self.critic = critic  # [S+1]

    def policy(self, obs: Tokens) -> Categorical:
        """π(·|text), at rows of the prompt and in the padding too."""
        return Categorical(self.theta[self.language.text(obs)])

    def reference(self, obs: Tokens) -> Categorical:
        """π_ref(·|text)."""
        return Categorical(self.anchor[self.language.text(obs)])

    def value(self, obs: Tokens) -> Tensor:
        """V(text)."""
        return self.critic[self.language.text(obs)]

    def policy_and_value(self, obs: Tokens) -> tuple[Categorical, Tensor]:
        """Both."""
        return self.policy(obs), self.value(obs)

    def parameters(self) -> Iterator[Tensor]:
        """Both tables that are trained."""
        yield self.theta
        yield self.critic


Estimator = Callable[[TextAgent, Trajectory], Tensor]
"""A scalar whose gradient in theta is the estimate, to be ascended."""


@dataclass(frozen=True, eq=False)
class LanguageCase:
    """A language, what completions earn, the policy whose gradient is asked for, and the one that wrote."""

    language: Language
    reward: Tensor  # [Q, K]  of each prompt's completions; NaN where nobody can judge
    theta: Tensor  # [S+1, V]
    anchor: Tensor  # [S+1, V]  the reference policy
    rho: Tensor  # [Q]  how often each prompt is asked
    behaviour: Tensor | None = None  # [S+1, V]  the policy that wrote; None: theta

    @cached_property
    def everything(self) -> Trajectory:
        """Every completion of every prompt, [T, Q·K], by prompt; mask is ρ(prompt)·p(completion)."""
        language, K = self.language, len(self.language.completions)
        answers = [answer for _ in language.prompts for answer in language.completions]
        tokens = torch.tensor([[*answer, *[0] * (language.length - len(answer))] for answer in answers])
        unknown = torch.zeros(tokens.shape, dtype=torch.float64)
        ended = torch.tensor([answer[-1] in language.eos for answer in answers])
        found = Completions(tokens, torch.tensor([*map(len, answers)]), unknown, unknown, ended)
        asked = [prompt for prompt in language.prompts for _ in range(K)]
        traj = as_trajectory(asked, found, self.reward.flatten())
        earned = torch.where(traj.done & (traj.mask > 0), self.reward.flatten(), 0.0)
        actor = self.theta if self.behaviour is None else self.behaviour
        logp = Categorical(actor[language.text(traj.decisions)]).log_prob(traj.action)
        logp = torch.where(traj.decisions.decides, logp, 0.0)
        p = logp.sum(0).exp() * self.rho.repeat_interleave(K)
        return replace(traj, logp=logp, reward=earned, mask=traj.mask * p)

    @property
    def probability(self) -> Tensor:
        """p(completion | prompt) under the policy that wrote, [Q, K]."""
        return self.everything.logp.sum(0).exp().reshape(self.reward.shape)

    def log_likelihood(self, theta: Tensor) -> Tensor:
        """log p(completion | prompt) of a policy, [Q, K], differentiable."""
        traj = self.everything
        logp = Categorical(theta[self.language.text(traj.decisions)]).log_prob(traj.action)
        return torch.where(traj.decisions.decides, logp, 0.0).sum(0).reshape(self.reward.shape)

    def objective(self, theta: Tensor) -> Tensor:
        """J = Σ ρ(prompt)·E[R | somebody judges]."""
        judged = ~self.reward.isnan()
        p = self.log_likelihood(theta).exp() * judged
        return (self.rho * (p * self.reward.nan_to_num()).sum(1) / p.sum(1)).sum()

    def divergence(self, theta: Tensor) -> Tensor:
        """KL(p_π‖p_ref) of completions, Σ over prompts with ρ."""
        logp, other = self.log_likelihood(theta), self.log_likelihood(self.anchor)
        return (self.rho.unsqueeze(1) * logp.exp() * (logp - other)).sum()

    @property
    def critic(self) -> Tensor:
        """E[R | text] where a token is to be chosen, [S+1]; 0 behind an end or a cut."""
        traj = self.everything
        weight = self.rho.unsqueeze(1) * self.log_likelihood(self.theta).exp().detach()
        text, decides = self.language.text(traj.decisions), traj.decisions.decides

        def over_texts(x: Tensor) -> Tensor:
            each = (x.flatten() * decides).flatten()
            return torch.zeros(len(self.theta), dtype=x.dtype).index_add(0, text.flatten(), each)

        mass = over_texts(weight)
        return torch.where(mass > 0, over_texts(weight * self.reward.nan_to_num()) / mass, 0.0)

    def agent(self, theta: Tensor | None = None, critic: Tensor | None = None) -> TextAgent:
        """The policy with a critic, by default the exact one."""
        theta, critic = self.theta if theta is None else theta, self.critic if critic is None else critic
        return TextAgent(self.language, theta, critic, self.anchor)


def language_case(language: Language, seed: int = 0, behind: bool = False) -> LanguageCase:
    """Random policies and rewards of 0, ½ or 1; `behind`: another policy, close by, wrote."""
    draw = Generator().manual_seed(seed)
    shape = (len(language.texts) + 1, language.n_tokens)
    theta, anchor, step = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(3))
    Q = len(language.prompts)
    reward = torch.randint(3, (Q, len(language.completions)), generator=draw).to(torch.float64) / 2
    rho = torch.arange(Q, 0, -1, dtype=torch.float64)
    return LanguageCase(
        language, reward, theta, anchor, rho / rho.sum(), theta + 0.3 * step if behind else None
    )


def rounds(case: LanguageCase, size: int, n: int = 1, only_unequal: bool = False) -> tuple[Tensor, Tensor]:
    """All batches of n groups of `size` completions, as columns [N, n·size], and their probabilities [N].

    A group's prompt is drawn from ρ and its completions from the policy that wrote; groups of one are
    completions of independent prompts. The order within a group and of groups is that of one of many alike.
    With `only_unequal` groups of equal rewards are replaced, as dynamic sampling does it, by the groups of
    other prompts: what is left over is what is drawn until there is one to keep.
    """
    Q, K = case.reward.shape
    members, orders = every_group(K, size, MAX_GROUPS)
    p = case.probability
    chance = torch.cat([orders * case.rho[q] * p[q][members].prod(1) for q in range(Q)])
    groups = torch.cat([members + q * K for q in range(Q)])
    if only_unequal:
        drawn = map_tree(lambda x: x[:, groups.flatten()], case.everything)
        kept = unequal(drawn, size)[::size]
        groups, chance = groups[kept], chance[kept] / chance[kept].sum()
    choice, orders = every_group(len(groups), n, MAX_GROUPS)
    return groups[choice].flatten(1), orders * chance[choice].prod(1)


def estimates(
    how: Any,
    case: LanguageCase,
    size: int,
    n: int = 1,
    only_unequal: bool = False,
    critic: Tensor | None = None,
) -> Estimates:
    """The estimate of an `Estimator` or algorithm from each of the batches of `rounds`."""
    estimate, values = _callable(how), case.critic if critic is None else critic

    def one(theta: Tensor, batch: Trajectory) -> Tensor:
        return estimate(case.agent(theta, values), batch)

    return of_batches(one, case.theta, case.everything, *rounds(case, size, n, only_unequal))


def expectation(how: Any, case: LanguageCase, critic: Tensor | None = None) -> Tensor:
    """The estimate on everything at once with mask = ρ·p, [(S+1)·V]: the limit of large batches."""
    leaf = case.theta.clone().requires_grad_()
    return torch.autograd.grad(_callable(how)(case.agent(leaf, critic), case.everything), leaf)[0].flatten()


def gradient(function: Callable[[Tensor], Tensor], case: LanguageCase) -> Tensor:
    """∇ of a function of theta, flat."""
    leaf = case.theta.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0].flatten()


def _callable(how: Any) -> Estimator:
    return estimator_of(how) if hasattr(how, "credit") else how  # type: ignore[return-value]
