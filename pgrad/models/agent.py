"""The agent: a policy and, where the algorithm asks for one, a critic, with the normalisers that belong to
them.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.masked import Masked, bare
from pgrad.data.sequence import Sequence, without_memory
from pgrad.data.trajectory import Trajectory
from pgrad.data.tree import Tree, map_tree
from pgrad.errors import UsageError
from pgrad.math.masks import restrict
from pgrad.models.memory import Memory
from pgrad.models.normalizer import ObservationNormalizer, RewardScaler
from pgrad.models.single import read_mask, read_observation, write_action


class Agent(nn.Module):
    """What acts and what is trained: a network behind its normalisers.

    `network` is any module with `policy(obs) -> distribution` and, for algorithms with a critic, `value(obs)
    -> [...]`. Parameters with a part of their name that begins with `critic` form the critic's group; all
    others the actor's.

    A network with a memory has also `initial_state(n)`, `step(seen)` and `sequence_length`, as
    `RecurrentNetwork` does, and takes a `Sequence` for an observation, of T rows or of a single one.
    `policy_and_value(obs)`, where there is one, answers both at once.
    """

    def __init__(
        self,
        network: nn.Module,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        normalizer: ObservationNormalizer | None = None,
        reward_scaler: RewardScaler | None = None,
        sign_reward: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.observation_space, self.action_space = observation_space, action_space
        self.normalizer, self.reward_scaler = normalizer, reward_scaler
        self.sign_reward = sign_reward
        self.frozen: nn.Module | None = None
        self._masked = False  # no setting, so that machine code is not named by it

    @property
    def masked(self) -> bool:
        """Whether what was learned from said which actions are allowed; kept in checkpoints."""
        return self._masked

    @masked.setter
    def masked(self, masked: bool) -> None:
        self._masked = masked

    def policy(self, obs: Tree) -> Any:
        """π(·|s): a distribution with batch shape [...] for observations [..., *space].

        Where the observation is `Masked`, a distribution over the allowed actions only.
        """
        return _restrict(self.network.policy(self._normalize(obs)), obs)  # type: ignore[operator]

    def value(self, obs: Tree) -> Tensor:
        """V(s) [...] for observations [..., *space]."""
        return self.network.value(self._normalize(obs))  # type: ignore[operator]

    def policy_and_value(self, obs: Tree) -> tuple[Any, Tensor]:
        """Both of the same observations, in one pass where the network has one."""
        both = getattr(self.network, "policy_and_value", None)
        if both is None:
            return self.policy(obs), self.value(obs)
        policy, value = both(self._normalize(obs))
        return _restrict(policy, obs), value

    def reference(self, obs: Tree) -> Any:
        """π_ref(·|s): the policy as it was when `keep_reference` was called, without a gradient."""
        if self.frozen is None:
            return self.network.reference(obs)  # type: ignore[operator]
        with torch.no_grad():
            policy = self.frozen.policy(self._normalize(obs))  # type: ignore[operator]
            return _restrict(policy, obs)

    def keep_reference(self) -> None:
        """Let the present policy be the reference from now on: a frozen copy, saved with the agent."""
        if hasattr(self.network, "keep_reference"):
            self.network.keep_reference()  # type: ignore[operator]
        else:
            self.frozen = copy.deepcopy(self.network).requires_grad_(False)

    def q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """Q₁ and Q₂ of actions [2, N], or of every discrete action [2, N, A]."""
        return self.network.q(self._normalize(obs), action)  # type: ignore[operator]

    def target_q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """The same by the slow copies."""
        return self.network.target_q(self._normalize(obs), action)  # type: ignore[operator]

    def log_temperature(self) -> Tensor:
        """log α."""
        return self.network.log_temperature()  # type: ignore[operator]

    @property
    def has_memory(self) -> bool:
        """Whether the agent remembers earlier observations of an episode."""
        return hasattr(self.network, "initial_state")

    def memory(self, n: int = 1) -> Memory:
        """An empty memory for n episodes that begin now; of no effect for an agent that has none."""
        if not self.has_memory:
            return Memory({}, torch.empty(0), 0)
        start = torch.ones(n, dtype=torch.bool, device=next(self.parameters()).device)
        return Memory(self.network.initial_state(n), start, self.network.sequence_length)  # type: ignore

    def respond(self, seen: Tree) -> tuple[Any, dict[str, Tensor]]:
        """π(·|s) for the next observations of n episodes, as `memory.see` gives them; the memory after."""
        if not self.has_memory:
            return self.policy(seen), {}
        policy, state = self.network.step(self._normalize(seen))  # type: ignore[operator]
        return _restrict(policy, seen), state

    def step(self, seen: Tree, memory: Memory) -> Any:
        """π(·|s) for the next observations of n episodes, as `memory.see` gives them; the memory moves on."""
        policy, state = self.respond(seen)
        memory.advance(state)
        return policy

    def scale_rewards(self, traj: Trajectory) -> Tensor:
        """The rewards to learn from [T, B]: as they came, their signs, or scaled once the scaler saw them."""
        if self.sign_reward:
            return traj.reward.sign()
        if self.reward_scaler is None:
            return traj.reward
        self.reward_scaler.update(traj.reward, traj.done, traj.mask)
        scaled: Tensor = self.reward_scaler(traj.reward)
        return scaled

    def observe(self, traj: Trajectory) -> None:
        """Show fresh observations to the normaliser: once per trajectory, after it was learned from."""
        obs = without_memory(traj.obs)
        self._masked |= isinstance(obs, Masked)
        if self.normalizer is not None:
            self.normalizer.update(map_tree(lambda x: x[:-1], bare(obs)), traj.mask)

    @torch.no_grad()
    def act(
        self,
        obs: Any,
        *,
        memory: Memory | None = None,
        allowed: Any = None,
        deterministic: bool = True,
        generator: Generator | None = None,
    ) -> Any:
        """The action for one observation as Gymnasium gives it, ready for `env.step`.

        An agent with a memory needs one, `memory = agent.memory()`, made anew at the start of each episode
        and moved on by every call; one without a memory may be given it too. `allowed` is the action mask, as
        `info["action_mask"]` or `env.action_masks()` tells it; an agent that was trained with masks needs
        one, of ones to allow everything. `deterministic` takes the mode of the policy; otherwise it is
        sampled, from `generator`, or else from one with a seed that PyTorch's default generator draws.

        Raises UsageError for an observation or a mask that is none of the space, and for what is missing.
        """
        if not deterministic and generator is None:
            generator = Generator().manual_seed(int(torch.randint(2**62, ())))
        if self.masked and allowed is None:
            raise UsageError(
                "this agent was trained with action masks: give it that of every observation, "
                "act(obs, allowed=info['action_mask']) or allowed=env.action_masks() (ones allow everything)"
            )
        if memory is None:
            memory = self.memory()
            if self.has_memory:
                raise UsageError(
                    "this agent has a memory: make one at the start of each episode, "
                    "memory = agent.memory(), and give it to every act(obs, memory=memory)"
                )
        device = next(self.parameters()).device
        one = read_observation(self.observation_space, obs)
        if allowed is not None:
            one = Masked(one, read_mask(self.action_space, allowed))
        batch = map_tree(lambda x: x.unsqueeze(0).to(device), one)
        policy = self.step(memory.see(batch), memory)
        if generator is not None:
            policy = map_tree(lambda x: x.to(generator.device), policy)
        action = policy.mode if deterministic or generator is None else policy.sample(generator)
        return write_action(self.action_space, map_tree(lambda x: x[0], action))

    def _normalize(self, obs: Tree) -> Tree:
        if isinstance(obs, Sequence):
            plain = self._normalize(obs.obs)
            return obs if plain is obs.obs else replace(obs, obs=plain)
        return bare(obs) if self.normalizer is None else self.normalizer(bare(obs))


def _restrict(policy: Any, seen: Tree) -> Any:
    """Only the allowed actions, where the observation says which they are."""
    obs = without_memory(seen)
    return restrict(policy, obs.allowed) if isinstance(obs, Masked) else policy
