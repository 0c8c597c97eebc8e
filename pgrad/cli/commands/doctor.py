"""`pgrad doctor`: what works here, by trying it."""

import os
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pgrad.cli.parse import parse
from pgrad.errors import PgradError, UsageError
from pgrad.training.versions import cores, devices, usual_threads, versions

TIMEOUT = 60  # seconds for one trial

ENVIRONMENT = "import gymnasium; e = gymnasium.make({!r}); e.reset(seed=0); e.step(e.action_space.sample())"
PICTURE = "import gymnasium; e = gymnasium.make({!r}, render_mode='rgb_array'); e.reset(); e.render()[0]"
VIDEO = """
import imageio_ffmpeg, tempfile, os
with tempfile.TemporaryDirectory() as d:
    w = imageio_ffmpeg.write_frames(d + '/x.mp4', (32, 32), macro_block_size=2)
    w.send(None); w.send(bytes(3072)); w.close(); assert os.path.getsize(d + '/x.mp4')
"""
PLOT = """
import io
from matplotlib.figure import Figure
f = Figure(); f.add_subplot().plot([0, 1]); f.savefig(io.BytesIO())
"""
TENSORBOARD = """
import tempfile
from torch.utils.tensorboard import SummaryWriter
with tempfile.TemporaryDirectory() as d:
    w = SummaryWriter(d); w.add_scalar('x', 1.0, 0); w.close()
"""
LANGUAGE = """
import tokenizers, torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
c = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
m = get_peft_model(LlamaForCausalLM(c), LoraConfig(target_modules=['q_proj']))
assert m(torch.zeros(1, 2, dtype=torch.long)).logits.isfinite().all()
"""
ANSWERS = "from math_verify import parse, verify; assert verify(parse('$1/2$'), parse('0.5'))"
ENVPOOL = "import envpool; envpool.make_gymnasium('CartPole-v1', num_envs=1).reset()"
QUESTIONS = "import reasoning_gym as r; r.create_dataset('gcd', size=1, seed=0)[0]['question']"

TRIALS = (
    ("classic control", ENVIRONMENT.format("CartPole-v1"), "gymnasium"),
    ("pictures", PICTURE.format("CartPole-v1"), "pygame-ce"),
    ("plots", PLOT, "matplotlib"),
    ("videos", VIDEO, "imageio-ffmpeg"),
    ("Box2D", ENVIRONMENT.format("LunarLander-v3"), "pgrad[box2d]"),
    ("MuJoCo", ENVIRONMENT.format("HalfCheetah-v5"), "pgrad[mujoco]"),
    ("MuJoCo pictures", PICTURE.format("HalfCheetah-v5"), "pgrad[mujoco]"),
    (
        "Atari",
        "import ale_py, gymnasium; gymnasium.register_envs(ale_py); " + ENVIRONMENT.format("ALE/Pong-v5"),
        "pgrad[atari]",
    ),
    ("EnvPool", ENVPOOL, "pgrad[envpool]"),
    ("Minari", "import h5py, minari; minari.load_dataset", "pgrad[minari]"),
    ("language models", LANGUAGE, "pgrad[language]"),
    ("Parquet files", "import pyarrow.parquet", "pgrad[language]"),
    ("math answers", ANSWERS, "pgrad[language]"),
    ("reasoning-gym", QUESTIONS, "pgrad[reasoning-gym]"),
    (
        "vLLM",
        "import os; os.environ['VLLM_LOGGING_LEVEL'] = 'ERROR'; from vllm import LLM; "
        "from vllm.platforms import current_platform as p; assert p.device_type, 'vLLM finds no GPU'",
        "pgrad[vllm]",
    ),
    ("TensorBoard", TENSORBOARD, "pgrad[tensorboard]"),
    ("Weights & Biases", "import wandb; wandb.init", "pgrad[wandb]"),
)
"""What is tried, the Python that tries it, and what installs it."""


@dataclass(frozen=True)
class Doctor:
    """Versions, devices, threads, and what works here: every extra is tried in a process of its own."""

    model: str | None = None
    """look at this language model instead: a folder, a hub id or scratch:tiny"""
    engine: Literal["own", "vllm"] = "own"
    """with --model: what writes; vllm is tried on a GPU and compared with what training computes"""


def run(args: list[str]) -> int:
    """Print the report; nothing that is broken stops it."""
    given: Doctor = parse(Doctor, "doctor", args)
    if given.model is not None:
        return _look_at(given.model, given.engine)
    if given.engine != "own":
        raise UsageError("--engine is tried with a language model: add --model, such as scratch:small")
    print("versions")
    for name, version in versions().items():
        print(f"  {name:<17} {version or '-'}")
    print("\ndevices")
    for name, text in _devices().items():
        print(f"  {name:<17} {text}")
    print("\nthreads")
    print(f"  {'cores':<17} {cores()}")
    print(f"  {'OMP_NUM_THREADS':<17} {os.environ.get('OMP_NUM_THREADS', 'not set')}")
    many = f"{usual_threads()} for images and wide language models"
    print(f"  {'pgrad uses':<17} 1 for small networks, {many} (--threads changes it)")
    print("\nwhat works (tried)", flush=True)
    with ThreadPoolExecutor(max_workers=max(cores() // 2, 1)) as pool:
        for (name, _, install), problem in zip(TRIALS, pool.map(_try, TRIALS), strict=True):
            print(f"  {name:<17} {_verdict(problem, install)}", flush=True)
    return 0


def _look_at(model: str, engine: Literal["own", "vllm"]) -> int:
    """What could cost a training of this language model; 1 where something would."""
    import torch

    from pgrad.models.language.checks import CHECKS
    from pgrad.models.language.network import build_network
    from pgrad.models.language.spec import LanguageSpec
    from pgrad.run.config import resolve_device
    from pgrad.worlds.language.tokenizer import character_tokenizer

    spec = LanguageSpec(model, engine=engine)
    tokenizer = character_tokenizer(string.printable) if spec.is_scratch else None
    network = build_network(spec, tokenizer, critic=False, generator=torch.Generator().manual_seed(0))
    network.to(resolve_device("auto", engine == "vllm" or not spec.is_scratch))  # where it would be trained
    print(f"{model}: {type(network.model).__name__}")
    all_well = True
    for name, check in CHECKS.items():
        try:
            well, text = check(network)
        except PgradError as error:  # such as vLLM missing: the others are made all the same
            well, text = False, str(error)
        print(f"  {name:<17} {'' if well else 'PROBLEM: '}{text}", flush=True)
        all_well = all_well and well
    return 0 if all_well else 1


def _devices() -> dict[str, str]:
    """Every device, with what happened where it cannot multiply."""
    import torch

    try:
        found = devices()
    except Exception as error:
        return {"cpu": f"cannot be looked at: {_line(str(error))}"}
    for name in found:
        try:
            ones = torch.ones(2, 2, device=name)
            assert float((ones @ ones).sum()) == 8.0
        except Exception as error:
            found[name] += f"; does not compute: {_line(str(error))}"
    return found


def _try(trial: tuple[str, str, str]) -> str:
    """Run a trial in a process of its own, which may crash; returns its last words, or "" if all is well."""
    environment = dict(os.environ)
    if sys.platform == "linux" and not environment.get("DISPLAY"):
        environment.setdefault("MUJOCO_GL", "egl")
        environment.setdefault("SDL_VIDEODRIVER", "dummy")
    command = [sys.executable, "-W", "ignore", "-c", trial[1]]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {TIMEOUT} seconds"
    except OSError as error:
        return f"cannot be tried: {error}"
    if done.returncode == 0:
        return ""
    words = [
        line for line in done.stderr.splitlines() if line.strip() and not line.startswith("Exception ignored")
    ]
    return _line(words[-1]) if words else f"ended with code {done.returncode}"


def _verdict(problem: str, install: str) -> str:
    if not problem:
        return "works"
    if any(sign in problem for sign in ("ModuleNotFoundError", "DependencyNotInstalled", "No module named")):
        return f"not installed: pip install '{install}'"
    return f"FAILS: {problem}"


def _line(text: str) -> str:
    return " ".join(text.split())
