"""Train, resume, load."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pgrad.algorithms import Algorithm
from pgrad.errors import CheckpointError, UsageError
from pgrad.models import Agent, AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.assemble import make_agent, make_world
from pgrad.run.carry import Watching, as_folder, carry_out, carry_out_unwritten, made, new_directory
from pgrad.run.chosen import chosen_checkpoint
from pgrad.run.config import RunConfig, RunOptions, completed, default_spec, settled
from pgrad.run.files import FILES, located, require_files, whole_path, whole_reward
from pgrad.run.fresh import exists, own_size
from pgrad.run.language import with_length
from pgrad.run.language_agent import ALPHABET, agent_without_prompts
from pgrad.run.result import Run
from pgrad.run.telling import Callback
from pgrad.run.warm import begin_with, shaped_like
from pgrad.training.disk.checkpoint import load_checkpoint
from pgrad.training.disk.difference import config_difference, difference_text
from pgrad.training.disk.rundir import RunDir
from pgrad.training.restore import load_agent
from pgrad.worlds.language.kind import is_language


def train(
    algorithm: Algorithm,
    world: Any,
    *,
    total_timesteps: int,
    n_envs: int | None = None,
    seed: int = 0,
    agent: AgentSpec | LanguageSpec | nn.Module | None = None,
    device: str = "auto",
    run_dir: str | Path | None = None,
    world_kwargs: dict[str, Any] | None = None,
    workers: int = 0,
    compile: Literal["auto", "yes", "no"] = "auto",
    threads: int = 0,
    eval_every: int = 0,
    eval_episodes: int = 10,
    save_every: int = 0,
    log_every: int = 0,
    keep: int = 3,
    frame_stack: int = 0,
    init_from: str | Path | None = None,
    reward: Any = None,
    texts_at_once: int = 0,
    overwrite: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    progress: bool | None = None,
    callback: Callback | None = None,
) -> Run:
    """Train `algorithm` in `world` and return the run.

    world: prompts (a task such as "parity", a .jsonl, .json, .csv or .parquet file, a list, a Dataset; then
        `reward` is a function, "file.py:function", or a list of them, and `agent` a `LanguageSpec`), or
        a Gymnasium id, the name of a tensor world or its dynamics (such as a `Tabular`), a factory of one
        `gymnasium.Env`, or a `gymnasium.vector` one (whose state cannot be saved: such a run can be loaded,
        not resumed).
    n_envs: environments side by side; None for 8, or for what a vector environment brings.
    agent: how to build the networks, or a module with `policy(obs)` and `value(obs)`; None for what is usual
        with the algorithm, and for the networks of the run that `init_from` names.
    run_dir: a new folder for configuration, metrics, checkpoints and plots; None writes nothing, "auto" makes
        runs/ALGORITHM/WORLD-seedSEED, with a number behind it where that exists.
    progress: show a live table; None does so on a terminal. wandb: the project to log to.
    callback: called with each row of metrics; returning False ends the training after that update.
    The rest is as in `RunOptions`. Raises UsageError for what cannot be done, WorldError where the
    environment breaks its contract, TrainingError where training stops being sound.
    """
    if exists(world) and eval_every > 0:
        raise UsageError("eval_every needs worlds that can be made anew: give an id or a factory")
    if exists(world) and n_envs not in (None, own_size(world)):
        raise UsageError(f"the world brings its own {own_size(world)} environments: leave out n_envs")
    options = RunOptions(
        total_timesteps=total_timesteps,
        n_envs=own_size(world) if n_envs is None else n_envs,
        seed=seed,
        workers=workers,
        device=device,
        compile=compile,
        threads=threads,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        save_every=save_every,
        log_every=log_every,
        keep=keep,
        frame_stack=frame_stack,
        init_from=None if init_from is None else str(init_from),
        texts_at_once=texts_at_once,
    )
    config = configured(algorithm, world, agent, options, world_kwargs, reward)
    watching = Watching(tensorboard, wandb, progress, callback)
    with made(config) as training:
        if options.init_from is not None:
            begin_with(training.agent, config.agent, options.init_from)
        if run_dir is None:
            return carry_out_unwritten(config, training, watching)
        config.to_json()  # what cannot be written down is told before there is a folder
        with new_directory(config, run_dir, overwrite) as directory:
            return carry_out(config, training, directory, watching)


def resume(
    run_dir: str | Path,
    total_timesteps: int | None = None,
    *,
    checkpoint: str | Path = "latest",
    algorithm: Algorithm | None = None,
    world: Any = None,
    agent: nn.Module | None = None,
    reward: Any = None,
    workers: int | None = None,
    tensorboard: bool = False,
    wandb: str | None = None,
    progress: bool | None = None,
    callback: Callback | None = None,
) -> Run:
    """Continue a run from its latest checkpoint, bit for bit, up to its own or a larger budget.

    checkpoint: "latest", "best", or another one's name or path, such as an intact one after the latest was
        damaged; what came after it is dropped.
    workers: processes that step the environments from now on, which changes no number; None for as before.
    What is custom in a run (algorithm, factory, module) must be given again. Raises UsageError with the
    differences where what is given is not what the run was started with, CheckpointError where a checkpoint
    is damaged.
    """
    watching = Watching(tensorboard, wandb, progress, callback)
    with RunDir.open(as_folder(run_dir)) as directory:
        config = _same_config(directory, algorithm, world, agent, reward)
        state = _state(config, directory, checkpoint)
        if total_timesteps is not None:
            config = _longer(config, total_timesteps, directory.path, state["timesteps"])
        if workers is not None:
            config = config.with_options(workers=workers)
        with made(config) as training:
            training.load_state_dict(state)
            return carry_out(config, training, directory, watching)


def load(
    run_dir: str | Path,
    checkpoint: str | Path = "latest",
    *,
    device: str = "auto",
    algorithm: Algorithm | None = None,
    world: Any = None,
    agent: nn.Module | None = None,
    reward: Any = None,
) -> Run:
    """The agent of a run, to evaluate or to act with; the run directory is only read.

    checkpoint: "latest", "best" (by the return while it trained), or a checkpoint's name or path.
    device: where the agent is put, whatever it was trained on; a language model writes by pgrad's own loop,
    whatever wrote in training. Raises CheckpointError.
    """
    directory = RunDir.open(as_folder(run_dir), locked=False)
    saved = directory.config()
    call = f"pg.load({str(directory.path)!r}"
    config = RunConfig.from_json(saved, algorithm, world, agent, reward, call)
    config = config.with_options(device=device)
    if isinstance(config.agent, LanguageSpec):
        config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, engine="own"))
    state = _state(config, directory, checkpoint)
    loaded = _untrained(config, saved)
    load_agent(loaded, state["agent"])
    loaded.masked = state.get("masked", False)  # older checkpoints do not say
    return Run(config, loaded, state["timesteps"], directory.path)


def configured(
    algorithm: Algorithm,
    world: Any,
    agent: Any,
    options: RunOptions,
    world_kwargs: dict[str, Any] | None = None,
    reward: Any = None,
) -> RunConfig:
    """The configuration of a run, with everything settled that its parts leave to each other."""
    usual = LanguageSpec() if is_language(world) else default_spec(algorithm)
    built = shaped_like(options.init_from, usual) if agent is None else agent
    config = located(RunConfig(settled(algorithm, built), world, built, options, world_kwargs or {}, reward))
    return with_length(config)


def _same_config(directory: RunDir, algorithm: Any, world: Any, agent: Any, reward: Any) -> RunConfig:
    """The configuration of a run, with what is custom in it. Raises UsageError where that is another."""
    saved = directory.config()
    files = saved.pop(FILES, {})
    saved.pop(ALPHABET, None)
    given = whole_path(world), agent, whole_reward(reward)
    call = f"pg.resume({str(directory.path)!r}"
    config = with_length(RunConfig.from_json(saved, algorithm, *given, call))
    differences = config_difference(completed(saved), config.to_json())
    if differences:
        raise UsageError(difference_text(directory.path, differences))
    require_files(config, files)
    return config


def _state(config: RunConfig, directory: RunDir, checkpoint: str | Path) -> dict[str, Any]:
    """What a checkpoint of the run holds. Raises CheckpointError."""
    chosen = chosen_checkpoint(directory, checkpoint)
    try:
        state, info = load_checkpoint(chosen)
    except CheckpointError as error:
        how = " (choose one with checkpoint=PATH, --checkpoint PATH)" if checkpoint == "latest" else ""
        raise CheckpointError(f"{error}{how}") from error
    if info["algorithm"] != config.algorithm_name:
        raise CheckpointError(f"{chosen} is of {info['algorithm']}, the run of {config.algorithm_name}")
    return state


def _untrained(config: RunConfig, saved: dict[str, Any]) -> Agent:
    """The agent of a run with weights that are still to be filled."""
    if is_language(config.world) and (agent := agent_without_prompts(config, saved)) is not None:
        return agent
    one = make_world(config, n_envs=own_size(config.world) if exists(config.world) else 1, seed=0)
    try:
        return make_agent(config, one)
    finally:
        if not exists(config.world):
            one.close()


def _longer(config: RunConfig, total_timesteps: int, path: Path, done: int) -> RunConfig:
    """The same with another budget. Raises UsageError where more than that is done."""
    longer = config.with_options(total_timesteps=total_timesteps)
    if longer.options.total_timesteps < done:
        raise UsageError(
            f"{path} is at {done} timesteps already: total_timesteps must be at least that, got "
            f"{longer.options.total_timesteps}"
        )
    return longer
