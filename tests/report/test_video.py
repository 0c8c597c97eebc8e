"""Videos: every step is a picture in them, and recording changes nothing else."""

import copy
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
import torch

import pgrad as pg
from pgrad.errors import UsageError, WorldError
from pgrad.models import Agent
from pgrad.report.video import record
from pgrad.run.assemble import make_agent, make_world
from pgrad.run.config import RunConfig, RunOptions
from pgrad.worlds import make


def agent_for(world: Any, **spec: Any) -> Agent:
    config = RunConfig(pg.PPO(), world, pg.AgentSpec(**spec), RunOptions())
    one = make_world(config, n_envs=1, seed=0)
    agent = make_agent(config, one)
    one.close()
    return agent


def watch(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What ffmpeg says of a video, and the pictures [N, H, W, 3] in it."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    told = subprocess.run([ffmpeg, "-i", path], capture_output=True, text=True, check=False).stderr
    found = re.search(r"Video: (\w+).*? (yuv\w+).*?, (\d+)x(\d+).*?, ([\d.]+) fps", told)
    assert found, told
    codec, pixels, width, height, fps = found.groups()
    command = [
        ffmpeg,
        "-v",
        "error",
        "-i",
        path,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-fps_mode",
        "passthrough",
        "-",
    ]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    pictures = np.frombuffer(shown, np.uint8).reshape(-1, int(height), int(width), 3)
    return {"codec": codec, "pix_fmt": pixels, "fps": float(fps)}, pictures


class Painted(gymnasium.Env):
    """Episodes of `length` steps; the picture at step t is grey 20·t, of odd size."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, length: int = 5) -> None:
        self.render_mode, self.length, self.t = render_mode, length, 0

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.t += 1
        return np.zeros(1, np.float32), 0.5, self.t >= self.length, False, {}

    def render(self) -> Any:
        return np.full((33, 51, 3), 20 * self.t, np.uint8)


def test_every_step_is_a_picture_at_the_speed_of_the_world(tmp_path: Path) -> None:
    recording = record(agent_for(Painted), Painted, tmp_path / "deep" / "x.mp4", episodes=2)
    assert recording.path == tmp_path / "deep" / "x.mp4"
    assert (recording.returns, recording.lengths, recording.complete) == ((2.5, 2.5), (5, 5), True)
    told, pictures = watch(recording.path)
    assert told["fps"] == 7
    assert told["codec"] == "h264"
    assert told["pix_fmt"] == "yuv420p"
    assert pictures.shape == (12, 34, 52, 3)  # odd sizes are rounded up
    expected = np.array([0, 20, 40, 60, 80, 100] * 2)
    assert np.abs(pictures.mean((1, 2, 3)) - expected).max() < 6
    assert [path.name for path in recording.path.parent.iterdir()] == ["x.mp4"]


def test_a_tensor_world_shows_what_the_agent_does_in_it(tmp_path: Path) -> None:
    agent = agent_for("cartpole")
    recording = record(agent, "cartpole", tmp_path / "x.mp4", seed=4)
    world = make("cartpole", n_envs=1, seed=4)
    obs, expected = world.reset(), [world.render()]
    while not world.ended.any():
        with torch.no_grad():
            obs = world.step(agent.policy(obs).mode).obs
        expected.append(world.render())
    told, pictures = watch(recording.path)
    assert told["fps"] == 30
    assert len(pictures) == len(expected) == recording.lengths[0] + 1
    assert recording.returns == (float(recording.lengths[0]),)
    error = np.abs(pictures.astype(float) - np.stack(expected)).mean((1, 2, 3))
    assert error.max() < 2
    assert np.abs(pictures[0].astype(float) - expected[-1]).mean() > 2 * error.max()


def test_a_gymnasium_id_runs_at_its_own_speed_and_its_arguments(tmp_path: Path) -> None:
    agent = agent_for("CartPole-v1")
    recording = record(agent, "CartPole-v1", tmp_path / "x.mp4", seed=3)
    told, pictures = watch(recording.path)
    assert told["fps"] == gymnasium.spec("CartPole-v1").make().metadata["render_fps"] == 50
    assert len(pictures) == recording.lengths[0] + 1
    again = record(agent, "CartPole-v1", tmp_path / "y.mp4", seed=3, fps=20)
    assert again.returns == recording.returns
    assert watch(again.path)[0]["fps"] == 20
    longer = record(agent_for(Painted), Painted, tmp_path / "z.mp4", world_kwargs={"length": 8})
    assert longer.lengths == (8,)


def test_sampled_actions_come_from_the_seed(tmp_path: Path) -> None:
    agent = agent_for("cartpole")
    runs = [
        record(agent, "cartpole", tmp_path / "x.mp4", episodes=3, deterministic=False, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_recording_leaves_the_agent_and_the_global_generator_as_they_were(tmp_path: Path) -> None:
    agent = agent_for("cartpole", normalize_obs=True)
    agent.train()
    before, random = copy.deepcopy(agent.state_dict()), torch.get_rng_state()
    record(agent, "cartpole", tmp_path / "x.mp4")
    assert agent.training
    assert all(torch.equal(value, before[key]) for key, value in agent.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_episode_without_end_is_cut(tmp_path: Path) -> None:
    endless = {"length": 10**9}
    recording = record(
        agent_for(Painted), Painted, tmp_path / "x.mp4", max_steps=9, episodes=3, world_kwargs=endless
    )
    assert (recording.returns, recording.lengths, recording.complete) == ((4.5,), (9,), False)
    assert len(watch(recording.path)[1]) == 10


def test_the_video_of_a_run_is_in_its_folder_or_where_it_is_told(tmp_path: Path) -> None:
    run = pg.train(pg.A2C(), "probe-both", total_timesteps=40, run_dir=tmp_path / "run", progress=False)
    recording = run.record()
    assert recording.path == tmp_path / "run" / "videos" / f"{run.timesteps:012}.mp4"
    assert recording.returns == run.evaluate(1, n_envs=1).returns
    nowhere = pg.train(pg.A2C(), "probe-both", total_timesteps=40, progress=False)
    with pytest.raises(UsageError, match="must be told where the video goes"):
        nowhere.record()
    assert nowhere.record(tmp_path / "x.mp4").path.exists()


class Blind(Painted):
    """Draws nothing."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


class Deaf(Painted):
    """Takes no render_mode."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()


gymnasium.register("PgradBlind-v0", entry_point=Blind)
gymnasium.register("PgradDeaf-v0", entry_point=Deaf)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ("PgradBlind-v0", r"^PgradBlind-v0 has no picture to record \(its render modes: ansi\)$"),
        ("PgradDeaf-v0", r"^PgradDeaf-v0 has no picture to record: it takes no render_mode$"),
        (
            Deaf,
            r"^Deaf has no picture to record \(its render modes: none\): its function must take render_mode",
        ),
        (lambda: Painted(), r"its function must take render_mode and hand it on$"),
        ("CartPol-v1", "unknown world 'CartPol-v1': did you mean CartPole-v1"),
        (gymnasium.vector.SyncVectorEnv([Painted]), "a video needs a world of one environment"),
    ],
)
def test_a_world_without_a_picture_is_told(world: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        record(agent_for(Painted), world, tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "x.avi"}, r"a video is an \.mp4 file, got x\.avi"),
        ({"episodes": 0}, "must be at least 1, got 0"),
        ({"max_steps": 0}, "must be at least 1, got .* 0"),
    ],
)
def test_bad_arguments_are_told(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        record(agent_for(Painted), Painted, **{"path": tmp_path / "x.mp4"} | options)


def test_a_video_that_cannot_be_finished_leaves_the_earlier_one(tmp_path: Path) -> None:
    class Breaking(Painted):
        def step(self, action):  # type: ignore[no-untyped-def]
            if self.t == 3:
                raise RuntimeError("the motor is on fire")
            return super().step(action)

    (tmp_path / "x.mp4").write_bytes(b"earlier")
    with pytest.raises(WorldError, match="the motor is on fire"):
        record(agent_for(Painted), Breaking, tmp_path / "x.mp4")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]
    with pytest.raises(UsageError, match=r"cannot write the video .*Not a directory|File exists"):
        record(agent_for(Painted), Painted, tmp_path / "x.mp4" / "y.mp4")


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Found out before ffmpeg, which would complain in its own words. Nobody writes over a folder."""
    (tmp_path / ".x.mp4").mkdir()
    told = r"cannot write the video .*x.mp4: Is a directory \(choose another place with path=..., --out"
    with pytest.raises(UsageError, match=told):
        record(agent_for(Painted), Painted, tmp_path / "x.mp4")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="MuJoCo is not installed")
def test_mujoco_is_drawn_without_a_display(tmp_path: Path) -> None:
    try:
        recording = record(
            agent_for("InvertedPendulum-v5"), "InvertedPendulum-v5", tmp_path / "x.mp4", max_steps=2
        )
    except UsageError as error:
        pytest.skip(f"no EGL here: {error}")
    told, pictures = watch(recording.path)
    assert told["fps"] == gymnasium.make("InvertedPendulum-v5").metadata["render_fps"]
    assert pictures.shape == (recording.lengths[0] + 1, 480, 480, 3)
    assert pictures.std() > 10  # something is in it
