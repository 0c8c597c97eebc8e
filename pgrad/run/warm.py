"""Beginning with the policy of another run."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgrad.errors import CheckpointError, UsageError
from pgrad.models import Agent, AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.language_agent import ALPHABET, kept_alphabet
from pgrad.training.disk.checkpoint import MANIFEST, latest_checkpoint, load_checkpoint
from pgrad.training.disk.rundir import RunDir
from pgrad.training.restore import require_same_forms

OWN = ("critic", "target", "temperature", "reward_scaler", "frozen")
"""Parts of an agent that are not the policy's: their names begin so."""
BOUNDS = (".low", ".high")
"""Ends of the names of what a policy squashes its actions into: the world's, nothing that is learned."""
SEAL = ".outside."
"""In the name of what stands for the weights of a pretrained model below adapters."""
FREE = ("log_std_init", "learn_std", "normalize_reward", "sign_reward", "sequence_length", "dtype")
"""Settings of an agent that its policy does not depend on once it is trained."""

ENGINE = ("engine", "vllm_gpu_memory_utilization")
"""What writes for a language model, and with how much memory."""


def shaped_like(source: str | None, usual: Any) -> Any:
    """`usual`, an `AgentSpec` or `LanguageSpec`, with the networks of a run or of a checkpoint.

    What its trained policy does not depend on stays as it is, and everything where the agent there is of
    another kind, or nothing is known of it.
    """
    saved = {} if source is None else _config(_run_of(Path(source))).get("agent")
    if not isinstance(saved, dict) or ("model" in saved) != isinstance(usual, LanguageSpec):
        return usual
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in saved.items()}
    named = [field.name for field in dataclasses.fields(usual) if field.name in given]
    theirs = dataclasses.replace(usual, **{name: given[name] for name in named})
    free = _free(theirs) if isinstance(theirs, LanguageSpec) else FREE
    own = {name: getattr(usual, name) for name in free if name != "model"}
    return dataclasses.replace(theirs, **own)


def begin_with(agent: Agent, spec: Any, source: str) -> None:
    """Fill the policy of `agent`, and its observation normaliser, with those of a run or of a checkpoint.

    Critics and all else that is learned begin anew. Raises UsageError where the agents differ,
    CheckpointError where there is nothing to read.
    """
    path = Path(source)
    if (path / MANIFEST).exists():
        state, _ = load_checkpoint(path)
    else:
        state, _ = load_checkpoint(latest_checkpoint(RunDir.open(path, locked=False).checkpoints))
    _require_alike(_config(_run_of(path)), agent, spec, source)
    theirs, mine = _policy(state["agent"]), _policy(agent.state_dict())
    squashed = ", or for SAC an imitation without squashed"
    require_same_forms(f"init_from: the policy of {source}", theirs, mine, squashed)
    for name, seal in theirs.items():
        if SEAL in name and not torch.equal(seal, mine[name]):
            raise UsageError(
                f"init_from: the adapters of {source} are of another model than the one here, or of one in "
                "another dtype"
            )
    for name, bound in theirs.items():
        if name.endswith(BOUNDS) and not torch.equal(bound, mine[name].cpu()):
            raise UsageError(
                f"init_from: the actions of {source} are squashed into other bounds: {name.split('.')[-1]} "
                f"is {bound.tolist()} there, {mine[name].tolist()} here"
            )
    for name, tensor in theirs.items():
        mine[name].copy_(tensor)
    if agent.frozen is not None or getattr(agent.network, "keeps_reference", False):
        agent.keep_reference()


def _policy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: x for name, x in tensors.items() if not any(part.startswith(OWN) for part in name.split("."))
    }


def _run_of(path: Path) -> Path:
    """The folder of the run that a checkpoint is of, or of the run that `path` is itself."""
    return path.parent.parent if (path / MANIFEST).exists() else path


def _config(run: Path) -> dict[str, Any]:
    """The configuration of a run; nothing where a checkpoint was moved away from it."""
    try:
        return RunDir.open(run, locked=False).config()
    except CheckpointError:
        return {}


def _require_alike(config: dict[str, Any], agent: Agent, spec: Any, source: str) -> None:
    """Tell in the words of the options what differs, where both agents were built from options."""
    saved = config.get("agent")
    if not isinstance(spec, AgentSpec | LanguageSpec) or not isinstance(saved, dict):
        return
    here = {name: list(x) if isinstance(x, tuple) else x for name, x in dataclasses.asdict(spec).items()}
    free = FREE if isinstance(spec, AgentSpec) else _free(spec)
    other = [name for name in here if name in saved and name not in free and saved[name] != here[name]]
    if other:
        wanted = ", ".join(f"{name}={saved[name]!r} (here {here[name]!r})" for name in other)
        told = f"init_from: the agent of {source} was made with {wanted}: give the same"
        if {*other} <= {"lora", "dtype"} and isinstance(spec, LanguageSpec) and not spec.is_scratch:
            told += f", or take what it became: pgrad export {source} FOLDER, and that as the model"
        raise UsageError(told)
    known, own = config.get(ALPHABET), kept_alphabet(agent, spec).get(ALPHABET)
    if known and own and known != own:
        raise UsageError(
            f"init_from: the model of {source} reads the characters {known!r}, the prompts here {own!r}: "
            "its policy would read others than it learned"
        )


def _free(spec: LanguageSpec) -> tuple[str, ...]:
    """Settings of a language model that its trained weights do not depend on; whole models may be read from
    anywhere, those from nothing have a size, and adapters belong to what is below them, rounded as it is."""
    free = ("gradient_checkpointing", "temperature", "reference", *ENGINE)
    if spec.is_scratch:
        return (*free, "dtype")
    return (*free, "model") if spec.lora else (*free, "model", "dtype")
