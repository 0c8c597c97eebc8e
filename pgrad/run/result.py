"""A trained agent and what can be asked of it."""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgrad.errors import CheckpointError, UsageError
from pgrad.models import Agent
from pgrad.report import video
from pgrad.report.evaluate import Evaluation
from pgrad.run.config import RunConfig
from pgrad.run.export import export
from pgrad.run.files import FILES, warn_of_changes
from pgrad.run.fresh import episodes_of, evaluate_fresh, exists
from pgrad.run.language import language_spec
from pgrad.run.speak import answers, complete
from pgrad.run.threads import torch_threads
from pgrad.training.disk.demonstrations import Recording, save_demonstrations
from pgrad.training.disk.rundir import RunDir
from pgrad.training.streams import Seeds
from pgrad.worlds.language.kind import is_language
from pgrad.worlds.language.prompts import Content


@dataclass(frozen=True, repr=False)
class Run:
    """A trained agent and where it came from."""

    config: RunConfig
    agent: Agent
    timesteps: int
    path: Path | None = None
    history: list[dict[str, float]] = field(default_factory=list, repr=False)
    """the rows of metrics of this process"""

    def __repr__(self) -> str:
        where = "" if self.path is None else f", in {self.path}"
        return (
            f"Run({self.config.algorithm_name} on {self.config.world_name}, "
            f"seed {self.config.options.seed}, {self.timesteps:,} steps{where})"
        )

    def evaluate(
        self,
        episodes: int = 100,
        deterministic: bool = True,
        *,
        seed: int | None = None,
        world: Any = None,
        n_envs: int = 8,
        split: str = "held_out",
    ) -> Evaluation:
        """Whole episodes in fresh worlds; training is not touched. The same call gives the same numbers.

        split: of prompts those held out, those of "train", or of a task "larger" ones than were trained on.
        The seed is not that of the evaluations during training, which chose the best checkpoint. `world`
        replaces the world of the run: needed where that was a vector environment. Raises UsageError,
        WorldError.
        """
        if world is None and exists(self.config.world):
            raise UsageError(
                "a world that was given ready-made cannot be made anew: evaluate(world=...) needs another"
            )
        config = self.config
        if world is not None:
            config = dataclasses.replace(config, world=world, world_kwargs={})
        else:
            self._warn_of_changes()
        with torch_threads(config, self.agent.observation_space):
            return evaluate_fresh(
                config,
                self.agent,
                episodes=episodes,
                deterministic=deterministic,
                seed=self._evaluation_seed if seed is None else seed,
                n_envs=n_envs,
                split=split,
            )

    def record(
        self,
        path: str | Path | None = None,
        *,
        episodes: int = 1,
        deterministic: bool = True,
        seed: int | None = None,
        world: Any = None,
    ) -> video.Recording:
        """A video (.mp4) of the agent; its first episode is the first one that `evaluate` sees.

        path: None writes into the videos folder of the run, named by the steps of training. Raises UsageError
        where the world has no picture to show, WorldError.
        """
        if is_language(self.config.world):
            raise UsageError(f"{self.config.world_name} has no picture to show: run.answers() shows texts")
        if path is None:
            if self.path is None:
                raise UsageError("a run without a run directory must be told where the video goes: path=...")
            path = RunDir(self.path).videos / f"{self.timesteps:012}.mp4"
        with torch_threads(self.config, self.agent.observation_space):
            return video.record(
                self.agent,
                self.config.world if world is None else world,
                path,
                episodes=episodes,
                deterministic=deterministic,
                seed=self._evaluation_seed if seed is None else seed,
                world_kwargs=self.config.world_kwargs if world is None else {},
                frame_stack=self.config.options.frame_stack,
            )

    def demonstrate(
        self,
        path: str | Path,
        *,
        episodes: int = 20,
        deterministic: bool = True,
        seed: int | None = None,
        world: Any = None,
        n_envs: int = 8,
    ) -> Recording:
        """Record whole episodes of the agent in fresh worlds, for `Imitate`, as one file.

        Raises UsageError where the file exists or cannot be written, WorldError.
        """
        if is_language(self.config.world):
            raise UsageError(
                f"{self.config.world_name} is a world of texts, whose demonstrations are prompts "
                "with a column 'solution'"
            )
        target, seed = Path(path), self._evaluation_seed if seed is None else seed
        config = self.config
        if world is not None:
            config = dataclasses.replace(config, world=world, world_kwargs={})
        with torch_threads(config, self.agent.observation_space):
            traj = episodes_of(
                config, self.agent, episodes=episodes, deterministic=deterministic, seed=seed, n_envs=n_envs
            )
        info = {"world": config.world_name, "algorithm": config.algorithm_name, "timesteps": self.timesteps}
        return save_demonstrations(target, traj, {**info, "deterministic": deterministic, "seed": seed})

    def complete(
        self,
        prompts: str | Sequence[Content],
        n: int = 1,
        *,
        greedy: bool = False,
        temperature: float | None = None,
        max_completion_length: int = 0,
        seed: int = 0,
    ) -> list[list[str]]:
        """`n` completions of each prompt, a text or a conversation, by the language model of this run.

        temperature: None for that of training. max_completion_length: 0 for that of training. Raises
        UsageError for a prompt that cannot be read, and where the run has no language model.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        with torch_threads(self.config, self.agent.observation_space):
            return complete(
                self.config,
                self.agent,
                texts,
                n=n,
                greedy=greedy,
                temperature=temperature,
                max_completion_length=max_completion_length,
                seed=seed,
            )

    def answers(
        self, n: int = 8, deterministic: bool = True, *, seed: int | None = None
    ) -> list[dict[str, Any]]:
        """The first prompts that `evaluate` asks, each with the completion and its reward."""
        seed = self._evaluation_seed if seed is None else seed
        self._warn_of_changes()
        with torch_threads(self.config, self.agent.observation_space):
            return answers(self.config, self.agent, n=n, deterministic=deterministic, seed=seed)

    def export(self, folder: str | Path, *, adapter: bool = False) -> Path:
        """Write the language model as a folder that transformers' `from_pretrained` loads, tokenizer too.

        adapter: write the LoRA adapter alone, for peft; otherwise it is merged into the model. Raises
        UsageError where the folder holds something, or there is no such model.
        """
        return export(self.agent.network, language_spec(self.config), Path(folder), adapter=adapter)

    def _warn_of_changes(self) -> None:
        if self.path is not None and is_language(self.config.world):
            with suppress(CheckpointError):  # the folder was moved away since
                warn_of_changes(self.config, RunDir(self.path).config().get(FILES, {}))

    @property
    def _evaluation_seed(self) -> int:
        """Not that of the evaluations during training, which chose the best checkpoint."""
        return Seeds.spawn(self.config.options.seed).evaluation + 1
