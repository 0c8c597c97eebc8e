"""How long can a pole stand whose velocities nobody sees, for whoever remembers nothing?

    python examples/without_memory.py

The cross-entropy method (Rubinstein 1999; for cart-poles Szita & Lőrincz 2006) over small networks from what
is seen to the probability of pushing right: it needs no gradient and no critic, so that nothing of pgrad's
algorithms can be what stands in the way. With velocities the same search balances the pole for all 500 steps.
"""

import torch
from torch import Generator, Tensor

from pgrad.worlds.tensors.cartpole import CartPole

POLICIES, ELITE, EPISODES, HIDDEN = 128, 16, 16, 8


def returns(task: CartPole, weights: Tensor, generator: Generator) -> Tensor:
    """Mean returns [P] over 16 episodes of policies p(right) = σ(v·tanh(W·s + b) + c) with weights [P, ·]."""
    n = task.observation_space.shape[0]
    W, b, v, c = weights.split_with_sizes([HIDDEN * n, HIDDEN, HIDDEN, 1], 1)
    P, scale = len(weights), torch.tensor([1.0, 5.0]) if n == 2 else torch.tensor([1.0, 1.0, 5.0, 1.0])
    state = task.start(torch.rand(P * EPISODES, 4, dtype=torch.float64, generator=generator))
    alive, steps = torch.ones(len(state), dtype=torch.bool), torch.zeros(len(state))
    for _ in range(task.max_episode_steps):
        seen = (task.observe(state) * scale).view(P, EPISODES, n)
        hidden = torch.baddbmm(b.unsqueeze(1), seen, W.view(P, HIDDEN, n).mT).tanh()
        logit = torch.baddbmm(c.unsqueeze(1), hidden, v.unsqueeze(2)).view(-1)
        action = torch.rand(len(state), generator=generator) < logit.sigmoid()
        state, _, over = task.step(state, action, torch.empty(0))
        steps += alive
        alive &= ~over
        if not alive.any():
            break
    return steps.view(P, EPISODES).mean(1)


def search(task: CartPole, generations: int, seed: int = 0) -> float:
    """The mean return of the best policy found: that of the last mean, over 128 · 16 episodes."""
    generator = torch.Generator().manual_seed(seed)
    size = HIDDEN * (task.observation_space.shape[0] + 2) + 1
    mean, std = torch.zeros(size), torch.full((size,), 3.0)
    for generation in range(generations):
        weights = mean + std * torch.randn(POLICIES, size, generator=generator)
        elite = weights[returns(task, weights, generator).topk(ELITE).indices]
        mean, std = elite.mean(0), elite.std(0) + max(0.0, 0.5 * (1 - 2 * generation / generations))
    return float(returns(task, mean.expand(POLICIES, size), generator).mean())


def main() -> None:
    """Both, three times."""
    for seen, generations in ((False, 30), (True, 10)):
        what = "with velocities" if seen else "without velocities"
        found = [search(CartPole(velocities_seen=seen), generations, seed) for seed in range(3)]
        print(f"{what}: {', '.join(f'{x:.1f}' for x in found)} of 500 steps")


if __name__ == "__main__":
    main()
