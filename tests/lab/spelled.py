"""An independent reading of a language: recursion over texts in plain Python, no tensors."""

import cmath
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

Text = tuple[int, ...]
Table = dict[Text, list[complex]]


class Answer(NamedTuple):
    """A completion of a prompt, its probability under the policy that wrote, and what it earned."""

    prompt: int
    text: Text
    p: float
    reward: float
    cut: bool

    @property
    def judged(self) -> bool:
        return self.reward == self.reward


class Spelled:
    """The numbers of a language case as dicts, and policies that may be complex (for complex steps)."""

    def __init__(self, case: Any) -> None:
        language = case.language
        self.prompts: tuple[Text, ...] = language.prompts
        self.V, self.eos, self.length = language.n_tokens, set(language.eos), language.length
        self.rho: list[float] = case.rho.tolist()
        self.order: list[Text] = list(language.texts)
        self.theta, self.anchor = self.table(case.theta), self.table(case.anchor)
        self.actor = self.theta if case.behaviour is None else self.table(case.behaviour)
        earned = {
            (q, text): float(case.reward[q, k])
            for q in range(len(self.prompts))
            for k, text in enumerate(language.completions)
        }
        self.answers = [
            [
                Answer(q, text, self.p(self.actor, q, text).real, earned[q, text], text[-1] not in self.eos)
                for text in self.completions(())
            ]
            for q in range(len(self.prompts))
        ]

    def table(self, x: Any) -> Table:
        return {text: [complex(z) for z in row] for text, row in zip(self.order, x.tolist(), strict=False)}

    def completions(self, begun: Text) -> Iterator[Text]:
        for token in range(self.V):
            now = (*begun, token)
            if token in self.eos or len(now) == self.length:
                yield now
            else:
                yield from self.completions(now)

    def pi(self, table: Table, text: Text) -> list[complex]:
        weights = [cmath.exp(z) for z in table[text]]
        return [w / sum(weights) for w in weights]

    def p(self, table: Table, q: int, answer: Text) -> complex:
        found, read = 1 + 0j, self.prompts[q]
        for token in answer:
            found *= self.pi(table, read)[token]
            read = (*read, token)
        return found

    def mean(self, table: Table, f: Callable[[Answer], float]) -> complex:
        """Σ ρ·p·f over all prompts and completions."""
        return sum(
            (self.rho[a.prompt] * self.p(table, a.prompt, a.text) * f(a) for a in self.every()), start=0j
        )

    def every(self) -> Iterator[Answer]:
        for row in self.answers:
            yield from row

    def objective(self, table: Table) -> complex:
        return self.mean(table, lambda a: a.reward)

    def divergence(self, table: Table) -> complex:
        """Σ ρ·p·(log p − log p_ref) of whole completions."""
        total = 0j
        for a in self.every():
            p, ref = self.p(table, a.prompt, a.text), self.p(self.anchor, a.prompt, a.text)
            total += self.rho[a.prompt] * p * (cmath.log(p) - cmath.log(ref))
        return total

    def token_divergence(self, table: Table, forward: bool) -> complex:
        """Σ over texts of how often the policy that wrote is there, KL(π‖π_ref) or KL(π_ref‖π)."""
        total = 0j
        for a in self.every():
            for n in range(len(a.text)):
                text = self.prompts[a.prompt] + a.text[:n]
                here, there = self.pi(table, text), self.pi(self.anchor, text)
                if forward:
                    here, there = there, here
                each = sum(x * (cmath.log(x) - cmath.log(y)) for x, y in zip(here, there, strict=True))
                total += self.rho[a.prompt] * a.p * each
        return total

    def slope(self, function: Callable[[Table], complex]) -> list[float]:
        """∇ at theta, flat: Im f(θ + ih·eᵢ)/h, exact to rounding for h = 1e-30; 0 for what is no text."""
        found = []
        for text in self.order:
            for token in range(self.V):
                row = list(self.theta[text])
                row[token] += 1e-30j
                found.append(function({**self.theta, text: row}).imag / 1e-30)
        return found + [0.0] * self.V

    def score(self, q: int, answer: Text) -> list[float]:
        """∇ log p(answer | prompt) at theta, flat: 1[token] − π at every text on the way."""
        found = {text: [0.0] * self.V for text in self.order}
        read = self.prompts[q]
        for token in answer:
            pi = self.pi(self.theta, read)
            found[read] = [float(k == token) - pi[k].real for k in range(self.V)]
            read = (*read, token)
        return [x for text in self.order for x in found[text]] + [0.0] * self.V

    def groups(self, size: int) -> Iterator[tuple[float, tuple[Answer, ...]]]:
        """Every ordered group of completions of one prompt, and how probable it is."""
        for q, row in enumerate(self.answers):
            for group in product(row, repeat=size):
                p = self.rho[q]
                for a in group:
                    p *= a.p
                yield p, group

    def expected(
        self, size: int, n: int, weigh: Callable[[Sequence[Sequence[Answer]]], list[float]]
    ) -> list[float]:
        """E Σᵢ weight(i)·∇log p(i) over all batches of n groups, `weigh` giving the weights of a batch."""
        pull: dict[tuple[int, Text], float] = {}
        for batch in product(list(self.groups(size)), repeat=n):
            p = 1.0
            for chance, _ in batch:
                p *= chance
            members = [group for _, group in batch]
            for a, w in zip((a for group in members for a in group), weigh(members), strict=True):
                pull[a.prompt, a.text] = pull.get((a.prompt, a.text), 0.0) + p * w
        found = [0.0] * (self.V * (len(self.order) + 1))
        for (q, text), w in pull.items():
            found = [x + w * s for x, s in zip(found, self.score(q, text), strict=True)]
        return found
