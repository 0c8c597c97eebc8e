"""A run from the outside: train, resume, load, and what can be asked of the result."""

import dataclasses
import re
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from gymnasium.vector import VectorEnv
from torch import nn

from pgrad.algorithms import Algorithm
from pgrad.assemble import evaluate_fresh, exists, make_agent, make_training, make_world, torch_threads
from pgrad.conduct import Callback, conduct
from pgrad.config import RunConfig, RunOptions
from pgrad.errors import CheckpointError, UsageError
from pgrad.models import Agent, AgentSpec
from pgrad.report import video
from pgrad.report.evaluate import Evaluation
from pgrad.report.video import Recording
from pgrad.train.checkpoint import latest_checkpoint, load_checkpoint
from pgrad.train.difference import config_difference, difference_text
from pgrad.train.log import MetricsLog, Sink, TensorBoardLog, WandbLog
from pgrad.train.loop import Seeds, load_agent
from pgrad.train.rundir import RunDir
from pgrad.train.versions import versions


@dataclass(frozen=True)
class Run:
    """A trained agent and where it came from."""

    config: RunConfig
    agent: Agent
    timesteps: int
    path: Path | None = None
    history: list[dict[str, float]] = field(
        default_factory=list, repr=False
    )  # rows of metrics of this process

    def evaluate(
        self,
        episodes: int = 100,
        deterministic: bool = True,
        *,
        seed: int | None = None,
        world: Any = None,
        n_envs: int = 8,
    ) -> Evaluation:
        """Whole episodes in fresh worlds; nothing of the training is touched, and the same call gives the same numbers.

        The seed is not that of the evaluations during training, which chose the best checkpoint. `world` replaces the
        world of the run: needed where that was a vector environment. Raises UsageError, WorldError.
        """
        if world is None and exists(self.config.world):
            raise UsageError(
                "a world that was given ready-made cannot be made anew: evaluate(world=...) needs another"
            )
        config = self.config if world is None else dataclasses.replace(self.config, world=world)
        with torch_threads(config, self.agent.observation_space):
            return evaluate_fresh(
                config,
                self.agent,
                episodes=episodes,
                deterministic=deterministic,
                seed=self._evaluation_seed if seed is None else seed,
                n_envs=n_envs,
            )

    def record(
        self,
        path: str | Path | None = None,
        *,
        episodes: int = 1,
        deterministic: bool = True,
        seed: int | None = None,
        world: Any = None,
    ) -> Recording:
        """A video (.mp4) of the agent; its first episode is the first one that `evaluate` sees.

        path: None writes into the videos folder of the run, named by the steps of training. Raises UsageError
        where the world has no picture to show, WorldError.
        """
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
                world_kwargs=self.config.world_kwargs,
            )

    @property
    def _evaluation_seed(self) -> int:
        """Not that of the evaluations during training, which chose the best checkpoint."""
        return Seeds.spawn(self.config.options.seed).evaluation + 1


def train(
    algorithm: Algorithm,
    world: Any,
    *,
    total_timesteps: int,
    n_envs: int | None = None,
    seed: int = 0,
    agent: AgentSpec | nn.Module | None = None,
    device: str = "auto",
    run_dir: str | Path | None = None,
    world_kwargs: dict[str, Any] | None = None,
    workers: int = 0,
    threads: int = 0,
    eval_every: int = 0,
    eval_episodes: int = 10,
    save_every: int = 0,
    log_every: int = 0,
    keep: int = 3,
    overwrite: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    progress: bool | None = None,
    callback: Callback | None = None,
) -> Run:
    """Train `algorithm` in `world` and return the run.

    world: a Gymnasium id, the name of a tensor world, a factory of one `gymnasium.Env`, or a `gymnasium.vector` one
        (whose state cannot be saved: with run_dir or eval_every it is refused).
    n_envs: environments side by side; None for 8, or for what a vector environment brings.
    agent: how to build the networks, or a module with `policy(obs)` and `value(obs)`.
    run_dir: a new folder for configuration, metrics, checkpoints and plots; None writes nothing, "auto" makes
        runs/ALGORITHM/WORLD-seedSEED, with a number behind it where that exists.
    progress: show a live table; None does so on a terminal. wandb: the project to log to. The rest is as in
    `RunOptions`. Raises UsageError for what cannot be done, WorldError where the environment breaks its contract,
    TrainingError where training stops being sound.
    """
    own = _own_size(world, run_dir is not None, eval_every > 0) if exists(world) else RunOptions.n_envs
    n_envs = own if n_envs is None else n_envs
    options = RunOptions(
        total_timesteps=total_timesteps,
        n_envs=n_envs,
        seed=seed,
        workers=workers,
        device=device,
        threads=threads,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        save_every=save_every,
        log_every=log_every,
        keep=keep,
    )
    config = RunConfig(algorithm, world, AgentSpec() if agent is None else agent, options, world_kwargs or {})
    _require_installed(tensorboard, wandb)
    training = make_training(config)
    try:
        if run_dir is None:
            return _carry_out(config, training, None, tensorboard, wandb, progress, callback)
        record = config.to_json()
        with _new_directory(config, run_dir, overwrite) as directory:
            directory.write_config(record)
            return _carry_out(config, training, directory, tensorboard, wandb, progress, callback)
    finally:
        training.world.close()


def resume(
    run_dir: str | Path,
    total_timesteps: int | None = None,
    *,
    algorithm: Algorithm | None = None,
    world: Any = None,
    agent: nn.Module | None = None,
    tensorboard: bool = False,
    wandb: str | None = None,
    progress: bool | None = None,
    callback: Callback | None = None,
) -> Run:
    """Continue a run from its latest checkpoint, bit for bit, up to its own or a larger budget.

    What is custom in a run (algorithm, factory, module) must be given again. Raises UsageError with the differences
    where what is given is not what the run was started with, CheckpointError where a checkpoint is damaged.
    """
    _require_installed(tensorboard, wandb)
    directory = RunDir.open(Path(run_dir))
    with directory:
        saved = directory.config()
        config = RunConfig.from_json(saved, algorithm, world, agent)
        differences = config_difference(saved, config.to_json())
        if differences:
            raise UsageError(difference_text(directory.path, differences))
        if total_timesteps is not None:
            options = dataclasses.replace(config.options, total_timesteps=total_timesteps)
            config = dataclasses.replace(config, options=options)
        training = make_training(config)
        try:
            state, info = load_checkpoint(latest_checkpoint(directory.checkpoints))
            _require_same(config, info)
            if total_timesteps is not None and total_timesteps < state["timesteps"]:
                raise UsageError(
                    f"{directory.path} is at {state['timesteps']} timesteps already: total_timesteps must be at least "
                    f"that, got {total_timesteps}"
                )
            training.load_state_dict(state)
            directory.write_config(config.to_json())
            return _carry_out(config, training, directory, tensorboard, wandb, progress, callback)
        finally:
            training.world.close()


def load(
    run_dir: str | Path,
    checkpoint: Literal["latest", "best"] = "latest",
    *,
    algorithm: Algorithm | None = None,
    world: Any = None,
    agent: nn.Module | None = None,
) -> Run:
    """The agent of a run, to evaluate or to act with; the run directory is only read. Raises CheckpointError."""
    if checkpoint not in ("latest", "best"):
        raise UsageError(f"checkpoint must be 'latest' or 'best', got {checkpoint!r}")
    directory = RunDir.open(Path(run_dir), locked=False)
    config = RunConfig.from_json(directory.config(), algorithm, world, agent)
    state, info = load_checkpoint(
        latest_checkpoint(directory.best if checkpoint == "best" else directory.checkpoints)
    )
    _require_same(config, info)
    one = make_world(config, n_envs=1, seed=0)
    try:
        loaded = make_agent(config, one)
    finally:
        one.close()
    load_agent(loaded, state["agent"])
    return Run(config, loaded, state["timesteps"], directory.path)


def _own_size(world: Any, is_saved: bool, is_evaluated: bool) -> int:
    """How many environments a world brings that is there already. Raises UsageError for what it cannot do."""
    if is_evaluated:
        raise UsageError("eval_every needs worlds that can be made anew: give an id or a factory")
    if not isinstance(world, VectorEnv):
        return int(world.n_envs)
    if is_saved:
        raise UsageError(
            "the state of a vector environment cannot be saved: leave out run_dir, or give an id or a factory"
        )
    return world.num_envs


def _require_installed(tensorboard: bool, wandb: str | None) -> None:
    """Tell what is missing before a run directory is made."""
    for wanted, package in ((tensorboard, "tensorboard"), (wandb, "wandb")):
        if wanted and find_spec(package) is None:
            raise UsageError(f"{package} is not installed: pip install 'pgrad[{package}]'")


def _new_directory(config: RunConfig, run_dir: str | Path, overwrite: bool) -> RunDir:
    if run_dir != "auto":
        return RunDir.create(Path(run_dir), overwrite)
    base = Path("runs") / config.algorithm_name
    name = re.sub(r"[^\w.+=-]+", "-", f"{config.world_name}-seed{config.options.seed}")
    return RunDir.create(base / name, overwrite) if overwrite else RunDir.default(base, name)


def _carry_out(
    config: RunConfig,
    training: Any,
    directory: RunDir | None,
    tensorboard: bool,
    wandb: str | None,
    progress: bool | None,
    callback: Callback | None,
) -> Run:
    sinks: list[Sink] = []
    try:
        if directory is not None:
            directory.add_command(sys.argv)
            directory.write_versions(versions())
            log = MetricsLog(directory.metrics)
            log.truncate_after(training.timesteps)
            sinks.append(log)
        if tensorboard or wandb:
            if directory is None:
                raise UsageError("tensorboard and wandb write into a run directory: give run_dir")
            if tensorboard:
                sinks.append(TensorBoardLog(directory.tensorboard, purge_step=training.timesteps))
            if wandb:
                sinks.append(WandbLog(directory.path / "wandb", wandb, directory.path.name, config.to_json()))
        show = sys.stdout.isatty() if progress is None else progress
        rows = conduct(config, training, directory, sinks=sinks, progress=show, callback=callback)
    finally:
        for sink in sinks:
            sink.close()
    return Run(
        config, training.agent, training.timesteps, None if directory is None else directory.path, rows
    )


def _require_same(config: RunConfig, info: dict[str, Any]) -> None:
    if info["algorithm"] != config.algorithm_name:
        raise CheckpointError(f"the checkpoint is of {info['algorithm']}, the run of {config.algorithm_name}")
