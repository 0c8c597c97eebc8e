"""PPO from top to bottom on one page: the loop, the advantages and the loss written out, with nothing hidden.

It borrows worlds, networks and seeds from pgrad and gives the same numbers as `pg.PPO`, which a test holds.
"""

import torch
from torch import Tensor, nn

from pgrad.models import AgentSpec, build_agent
from pgrad.training.streams import Seeds, generator
from pgrad.worlds import make

WORLD, N_ENVS, N_STEPS, TOTAL_TIMESTEPS, SEED = "cartpole", 8, 256, 100_000, 0
GAMMA, GAE_LAMBDA, CLIP_RANGE, ENT_COEF, VF_COEF = 0.99, 0.95, 0.2, 0.01, 0.5
LEARNING_RATE, N_EPOCHS, BATCH_SIZE, MAX_GRAD_NORM = 3e-4, 10, 64, 0.5


def advantages(reward: Tensor, value: Tensor, terminated: Tensor, done: Tensor) -> Tensor:
    """GAE, backwards: the error looks at the end of the task, the trace at the end of the episode."""
    advantage = torch.zeros_like(reward)
    trace = torch.zeros(N_ENVS)
    for t in reversed(range(N_STEPS)):
        delta = reward[t] + GAMMA * value[t + 1] * ~terminated[t] - value[t]
        trace = delta + GAMMA * GAE_LAMBDA * trace * ~done[t]
        advantage[t] = trace
    return advantage


def average(x: Tensor, weight: Tensor) -> Tensor:
    """Rows that only reset an environment have weight 0."""
    return (x * weight).sum() / weight.sum()


def train(total_timesteps: int = TOTAL_TIMESTEPS, seed: int = SEED) -> nn.Module:
    """Collect, judge, learn, until the budget is used."""
    seeds = Seeds.spawn(seed)
    world = make(WORLD, n_envs=N_ENVS, seed=seeds.world)
    spaces = world.observation_space, world.action_space
    agent = build_agent(*spaces, AgentSpec(), gamma=GAMMA, critic="value", generator=generator(seeds.agent))
    acting, shuffling = generator(seeds.acting), generator(seeds.learning)
    optimizer = torch.optim.Adam(agent.parameters(), LEARNING_RATE, eps=1e-5)
    obs = world.reset().clone()
    timesteps = 0
    while timesteps < total_timesteps:
        rows = []
        with torch.no_grad():
            for _ in range(N_STEPS):
                policy = agent.policy(obs)
                action = policy.sample(acting)
                only_resets = world.ended.clone()
                after, reward, terminated, truncated = (x.clone() for x in world.step(action))
                done = terminated | truncated | only_resets
                rows.append((obs, action, policy.log_prob(action), reward, terminated, done, ~only_resets))
                obs = after
            columns = (torch.stack(x) for x in zip(*rows, strict=True))
            states, actions, logp_old, reward, terminated, done, real = columns
            value = agent.value(torch.cat([states, obs[None]]))
            advantage = advantages(reward, value, terminated, done)
            target = advantage + value[:-1]
        timesteps += int(real.sum())

        whole = [x.flatten(0, 1) for x in (states, actions, logp_old, advantage, target, real.float())]
        for _ in range(N_EPOCHS):
            for part in torch.randperm(len(whole[0]), generator=shuffling).split(BATCH_SIZE):
                s, a, old, adv, goal, weight = (x[part] for x in whole)
                policy = agent.policy(s)
                ratio = (policy.log_prob(a) - old).exp()
                centred = adv - average(adv, weight)
                adv = centred / (average(centred**2, weight).sqrt() + 1e-8)
                gain = torch.minimum(ratio * adv, ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE) * adv)
                error = (agent.value(s) - goal) ** 2
                loss = average(VF_COEF * error - gain - ENT_COEF * policy.entropy(), weight)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRAD_NORM)
                optimizer.step()
        print(f"{timesteps:>7,} steps  mean reward to go {float(average(target, real.float())):.1f}")
    return agent


if __name__ == "__main__":
    train()
