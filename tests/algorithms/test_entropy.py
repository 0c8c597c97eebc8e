"""The entropy in the loss: always told, and worth a gradient only where it earns something."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import pgrad as pg
import pgrad.math.vocabulary
from pgrad.data import Batch, Tokens
from pgrad.math.tokens import TokenPolicy

V, H, T, B = 11, 5, 4, 3
ALGORITHMS: list[Any] = [
    pg.GRPO(average="token"),
    pg.Reinforce(),
    pg.ActorCritic(ent_coef=0.0),
    pg.A2C(ent_coef=0.0),
    pg.PPO(ent_coef=0.0),
]


class Writer(nn.Module):
    """Hidden states and a head, both trained, and a critic beside them."""

    def __init__(self) -> None:
        super().__init__()
        noise = Generator().manual_seed(0)
        self.hidden = nn.Parameter(torch.randn(T, B, H, generator=noise))
        self.weight = nn.Parameter(torch.randn(V, H, generator=noise))
        self.critic = nn.Parameter(torch.randn(T, B, generator=noise))

    def policy(self, obs: Tokens) -> TokenPolicy:
        return TokenPolicy(self.hidden, self.weight, None, obs.decides)

    def policy_and_value(self, obs: Tokens) -> tuple[TokenPolicy, Tensor]:
        return self.policy(obs), self.critic


def batch_of(agent: Writer) -> Batch:
    noise = Generator().manual_seed(1)
    place = torch.arange(T).unsqueeze(1).expand(T, B)
    obs = Tokens(torch.zeros(T, B, dtype=torch.int64), place, torch.ones(T, B, dtype=torch.bool))
    action = torch.randint(V, (T, B), generator=noise)
    logp = agent.policy(obs).log_prob(action).detach()
    zeros = torch.zeros(T, B)
    advantage = torch.randn(T, B, generator=noise)
    return Batch(obs, action, logp, torch.ones(T, B), advantage, zeros, zeros)


def slopes(agent: Writer, loss: Tensor) -> list[Tensor]:
    own = torch.autograd.grad(loss, [agent.hidden, agent.weight, agent.critic], allow_unused=True)
    return [x for x in own if x is not None]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda one: type(one).__name__)
def test_without_a_weight_it_costs_no_gradient(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products with the head score, three more are the gradient; it is the one with entropy times 0."""
    agent, made = Writer(), []
    batch, product = batch_of(agent), pgrad.math.vocabulary.product

    def counted(a: Tensor, b: Tensor) -> Tensor:
        made.append(a.shape)
        return product(a, b)

    monkeypatch.setattr(pgrad.math.vocabulary, "product", counted)
    loss, metrics = algorithm.loss(agent, batch)
    found = slopes(agent, loss)
    assert len(made) == 5
    entropy = agent.policy(batch.obs).entropy()
    assert torch.equal(metrics["train/entropy_loss"], -entropy.detach().mean())
    loss, _ = algorithm.loss(agent, batch)
    with_zeros = slopes(agent, loss + 0.0 * entropy.sum())
    assert all(torch.equal(x, y) for x, y in zip(found, with_zeros, strict=True))
    earned = slopes(agent, replace(algorithm, ent_coef=0.1).loss(agent, batch)[0])
    assert not torch.equal(earned[0], found[0])
