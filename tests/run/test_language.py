"""Language runs: exact continuation, parts of a batch, beginning with an imitation, evaluation, rewards."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pgrad as pg
from pgrad.errors import CheckpointError, UsageError
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions, settled
from pgrad.training import completions
from pgrad.training.disk.checkpoint import latest_checkpoint
from pgrad.training.loop import Training
from tests.run.texts import GRPO, SETTING, TASK, TINY, pretrained, samples
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

LINEAR: dict[str, Any] = {"learning_rate_schedule": "linear"}
ALGORITHMS: dict[str, Any] = {
    "grpo": replace(GRPO, beta=0.1, dynamic_sampling=True, **LINEAR),
    "grpo, parts of an epoch": replace(GRPO, average="constant", rho_max=2.0, **LINEAR),
    "ppo": pg.PPO(n_steps=48, batch_size=32, n_epochs=2, **LINEAR),
    "a2c": pg.A2C(n_steps=32, **LINEAR),
    "actor-critic": pg.ActorCritic(n_steps=32, n_critic_updates=2, beta=0.1),
    "reinforce": pg.Reinforce(n_episodes=12, baseline="value", n_critic_updates=2, beta=0.1, **LINEAR),
    "reinforce, old data": pg.Reinforce(n_episodes=12, baseline="leave-one-out", reuse=2, learning_rate=1e-4),
    "imitate": pg.Imitate(batch_size=16, **LINEAR),
}


def stop_after(timesteps: int) -> Callable[[dict[str, float]], bool]:
    return lambda row: row["time/total_timesteps"] < timesteps


def whole_and_halves(tmp_path: Path, algorithm: Any, total: int = 400, **setting: Any) -> tuple[Any, Any]:
    """A run, and the same one stopped in its middle and continued, in the folders `whole` and `half`."""
    given = {**SETTING, "agent": TINY, "total_timesteps": total, **setting}
    whole = pg.train(algorithm, "copy", run_dir=tmp_path / "whole", **given)
    stop = stop_after(total // 2)
    half = pg.train(algorithm, "copy", run_dir=tmp_path / "half", callback=stop, **given)
    assert half.timesteps < whole.timesteps
    before = final_state(tmp_path / "half")
    rest = pg.resume(tmp_path / "half")
    assert differences(before, final_state(tmp_path / "half")) != [], "the comparison can fail"
    return whole, rest


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_that_stopped_ends_where_it_would_have(name: str, tmp_path: Path) -> None:
    """train(2N) = train(N) + resume: parameters, moments, the order of prompts, metrics, samples."""
    whole, rest = whole_and_halves(tmp_path, ALGORITHMS[name], 800)
    assert rest.timesteps == whole.timesteps
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "half")
    if name != "imitate":
        assert samples(tmp_path / "whole") == samples(tmp_path / "half")


def training(algorithm: Any, learning_rate: float, **options: Any) -> Training:
    asked = RunOptions(total_timesteps=4000, n_envs=2, seed=5, **options)
    fixed = settled(replace(algorithm, learning_rate=learning_rate), TINY)
    return make_training(RunConfig(fixed, "copy", TINY, asked, TASK["world_kwargs"], by_length))


@pytest.mark.parametrize("name", ["grpo", "ppo", "reinforce", "imitate"])
def test_texts_at_once_change_nothing(name: str) -> None:
    """The gradients of parts of a minibatch add up to its own."""
    found = []
    for n in (0, 1, 3):
        made = training(ALGORITHMS[name], 0.0, texts_at_once=n)
        made.iterate()
        found.append(torch.cat([p.grad.flatten() for p in made.agent.parameters() if p.grad is not None]))
    for other in found[1:]:
        assert (other - found[0]).norm() < 1e-5 * found[0].norm()
    assert found[0].norm() > 1e-3


@pytest.mark.parametrize("name", ["grpo", "ppo", "a2c", "reinforce"])
def test_the_policy_that_is_scored_is_the_one_that_wrote(name: str) -> None:
    """Before the first step the ratio is 1, in every iteration."""
    made = training(ALGORITHMS[name], 1e-3)
    gaps = [made.iterate()["sampling/sampling_logp_difference/max"] for _ in range(4)]
    assert max(gaps) < 1e-4
    assert max(gaps) > 0.0, "rounding is seen, so something was compared"


def test_grpo_begins_with_the_policy_of_an_imitation(tmp_path: Path) -> None:
    """And measures its divergence from that policy, after it was stopped too."""
    setting = {**SETTING, "agent": TINY}
    taught = pg.train(
        pg.Imitate(batch_size=16), "copy", total_timesteps=300, run_dir=tmp_path / "a", **setting
    )
    begun: list[Any] = []
    run = pg.train(
        replace(GRPO, beta=0.1, learning_rate=0.0),
        "copy",
        total_timesteps=60,
        init_from=tmp_path / "a",
        callback=lambda row: begun.append(row["kl"]) is None,
        run_dir=tmp_path / "b",
        **setting,
    )
    for name, tensor in taught.agent.network.model.state_dict().items():
        assert torch.equal(tensor, run.agent.network.model.state_dict()[name])
        assert torch.equal(tensor, run.agent.network.frozen.state_dict()[name])
    assert max(map(abs, begun)) < 1e-6
    other = pg.train(replace(GRPO, beta=0.1, learning_rate=0.0), "copy", total_timesteps=60, **setting)
    theirs = other.agent.network.model.state_dict()
    assert any(
        not torch.equal(x, theirs[name]) for name, x in taught.agent.network.model.state_dict().items()
    )
    again = pg.resume(tmp_path / "b", 120)
    for name, tensor in taught.agent.network.model.state_dict().items():
        assert torch.equal(tensor, again.agent.network.frozen.state_dict()[name])


def test_what_is_left_open_is_settled_and_written_down(tmp_path: Path) -> None:
    """As text has it, but for what is given; and a run goes on with what it began with."""
    given = {**SETTING, "agent": TINY, "total_timesteps": 200}
    run = pg.train(pg.PPO(gamma=0.99, n_epochs=2), "copy", run_dir=tmp_path / "a", **given)
    saved = json.loads((tmp_path / "a" / "config.json").read_text())["config"]["hyperparameters"]
    length = 8 + 1  # of the larger problems, and an end
    expected = {
        "learning_rate": 3e-4,
        "critic_learning_rate": 3e-3,
        "n_steps": 8 * length,
        "batch_size": None,
    }
    expected |= {"gamma": 0.99, "n_epochs": 2, "ent_coef": 0.0}
    assert {name: saved[name] for name in expected} == expected
    assert run.config.algorithm == pg.PPO(**saved)
    assert pg.resume(tmp_path / "a", 300).config.algorithm == pg.PPO(**saved)
    again = pg.resume(tmp_path / "a", 400, algorithm=pg.PPO(gamma=0.99, n_epochs=2))
    assert again.config.algorithm == pg.PPO(**saved)
    with pytest.raises(UsageError, match=r"hyperparameters.gamma +0.99 +1.0"):
        pg.resume(tmp_path / "a", 500, algorithm=pg.PPO(n_epochs=2))


def test_a_run_of_other_defaults_goes_on_with_them(tmp_path: Path) -> None:
    """A configuration that was written down is complete: nothing in it is settled anew."""
    given = {**SETTING, "agent": TINY, "total_timesteps": 100}
    pg.train(pg.PPO(n_steps=48), "copy", run_dir=tmp_path / "a", **given)
    path = tmp_path / "a" / "config.json"
    saved = json.loads(path.read_text())
    saved["config"]["hyperparameters"] |= {"critic_learning_rate": None, "gamma": 0.99}
    path.write_text(json.dumps(saved))
    algorithm: Any = pg.resume(tmp_path / "a", 200).config.algorithm
    assert algorithm.critic_learning_rate is None
    assert algorithm.gamma == 0.99


def test_beginning_with_a_model_of_another_size_is_refused(tmp_path: Path) -> None:
    small = LanguageSpec("scratch:small")
    setting = {**SETTING, "total_timesteps": 20}
    pg.train(pg.Imitate(batch_size=16), "copy", run_dir=tmp_path / "a", agent=TINY, **setting)
    with pytest.raises(UsageError, match=r"made with model='scratch:tiny' \(here 'scratch:small'\)"):
        pg.train(GRPO, "copy", init_from=tmp_path / "a", agent=small, **setting)


def test_evaluation_is_repeatable_and_changes_nothing(tmp_path: Path) -> None:
    run = pg.train(GRPO, "copy", total_timesteps=300, agent=TINY, run_dir=tmp_path / "a", **SETTING)
    before = {name: x.clone() for name, x in run.agent.state_dict().items()}
    loaded = pg.load(tmp_path / "a")
    for deterministic, how in ((True, "greedy"), (False, "sampled")):
        result = run.evaluate(20, deterministic)
        assert result == run.evaluate(20, deterministic) == loaded.evaluate(20, deterministic)
        assert f"over 20 prompts, {how} (95% interval" in str(result)
    assert run.evaluate(20, False) != run.evaluate(20, False, seed=1)
    for name, x in run.agent.state_dict().items():
        assert torch.equal(x, before[name])


def test_evaluations_are_written_in_parts_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many completions as SIDE_BY_SIDE at most; those of a prompt stay together."""
    made = training(ALGORITHMS["grpo"], 0.0)
    monkeypatch.setattr(completions, "generate", counted := Counted(completions.generate))

    def answered(at_most: int, group: int) -> Any:
        monkeypatch.setattr(completions, "SIDE_BY_SIDE", at_most)
        counted.sizes.clear()
        completer = completions.Completer(made.world, made.agent, 7, n_envs=1)
        return completer.answer(made.world.held_out(20), group)

    for group, at_most, sizes in ((1, 8, [8, 8, 4]), (3, 14, [12] * 5), (3, 2, [3] * 20)):
        whole = answered(1024, group)
        assert counted.sizes == [20 * group]
        parts = answered(at_most, group)
        assert counted.sizes == sizes
        assert (parts.texts, parts.lengths) == (whole.texts, whole.lengths)
        assert torch.equal(parts.reward, whole.reward)
        assert torch.equal(parts.traj.action, whole.traj.action)
        assert torch.equal(parts.traj.terminated, whole.traj.terminated)
        torch.testing.assert_close(parts.traj.logp, whole.traj.logp)


class Counted:
    """Of `generate`, how many completions each call wrote."""

    def __init__(self, function: Any) -> None:
        self.function, self.sizes = function, list[int]()

    def __call__(self, *args: Any, **given: Any) -> Any:
        found = self.function(*args, **given)
        self.sizes.append(len(found.length))
        return found


def by_length(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def half(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    return [None if "a" in text else 1.0 for text in completions]


PROMPTS = [{"prompt": text} for text in ("ab=", "ba=", "a=", "bb=")]


def test_rewards_of_the_users_own_are_given_again_those_with_a_name_are_not(tmp_path: Path) -> None:
    file = tmp_path / "r.py"
    file.write_text("def by_length(completions, **_):\n    return [float(len(x)) for x in completions]\n")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    setting = {"total_timesteps": 200, "agent": TINY, "seed": 3, "world_kwargs": {"max_completion_length": 3}}
    own, named = tmp_path / "own", tmp_path / "named"
    pg.train(GRPO, str(prompts), reward=by_length, run_dir=own, callback=stop_after(100), **setting)
    pg.train(
        GRPO, str(prompts), reward=f"{file}:by_length", run_dir=named, callback=stop_after(100), **setting
    )
    for attempt in (pg.resume, pg.load):
        with pytest.raises(
            UsageError, match=r"made with its own reward: give it again, in Python: .*reward=\.\.\."
        ):
            attempt(own)
    pg.resume(own, reward=by_length)
    pg.resume(named)
    assert differences(final_state(own), final_state(named)) == []


def test_answers_that_nobody_judged_are_left_out_of_an_evaluation() -> None:
    setting = {"total_timesteps": 30, "agent": TINY, "seed": 3}
    kwargs = {"max_completion_length": 3, "held_out": [{"prompt": "ab="}, {"prompt": "ba="}] * 8}
    run = pg.train(GRPO, PROMPTS, reward=half, world_kwargs=kwargs, **setting)
    result = run.evaluate(50, False)
    assert 0 < result.unjudged < 16
    assert len(result.returns) == 16 - result.unjudged
    assert result.mean == 1.0
    assert f"{result.unjudged} more could not be judged" in str(result)


class TestWhatIsNotWritten:
    """Weights that do not train and come from a folder are not in checkpoints."""

    def sizes(self, run: Path) -> tuple[int, int]:
        state = final_state(run)
        written = latest_checkpoint(run / "checkpoints") / "tensors.safetensors"
        return written.stat().st_size, sum(x.nbytes for x in state["agent"].values())

    @pytest.mark.parametrize("algorithm", [replace(GRPO, beta=0.1), ALGORITHMS["ppo"]])
    def test_a_run_of_adapters_is_small_and_goes_on_exactly(self, algorithm: Any, tmp_path: Path) -> None:
        folder = pretrained(tmp_path / "model")
        spec = LanguageSpec(str(folder), lora=2)
        whole_and_halves(tmp_path, replace(algorithm, learning_rate=1e-2), agent=spec)
        assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
        assert rows(tmp_path / "whole") == rows(tmp_path / "half")
        names = final_state(tmp_path / "half")["agent"].keys()
        assert {name for name in names if not name.startswith("network.critic")} == {
            "network.outside.model",
            *(name for name in names if name.startswith("network.model") and "lora_" in name),
        }
        base = (folder / "model.safetensors").stat().st_size
        assert self.sizes(tmp_path / "half")[0] < base
        assert pg.load(tmp_path / "half").evaluate(20) == pg.load(tmp_path / "whole").evaluate(20)

    def test_the_reference_of_a_whole_model_is_read_again(self, tmp_path: Path) -> None:
        folder = pretrained(tmp_path / "model")
        algorithm = replace(GRPO, beta=0.1, learning_rate=1e-3)
        _, rest = whole_and_halves(tmp_path, algorithm, agent=LanguageSpec(str(folder)))
        assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
        assert rows(tmp_path / "whole") == rows(tmp_path / "half")
        names = final_state(tmp_path / "half")["agent"].keys()
        assert not any(name.startswith("network.frozen") for name in names)
        assert "network.outside.frozen" in names
        theirs = rest.agent.network.model.state_dict()
        assert any(not torch.equal(x, theirs[n]) for n, x in rest.agent.network.frozen.state_dict().items())

    def test_a_reference_that_is_no_folders_is_written(self, tmp_path: Path) -> None:
        """Drawn from the seed, or the policy of another run."""
        folder = pretrained(tmp_path / "model")
        spec, given = LanguageSpec(str(folder)), {**SETTING, "total_timesteps": 60}
        pg.train(replace(GRPO, beta=0.1), "copy", agent=TINY, run_dir=tmp_path / "scratch", **given)
        pg.train(pg.Imitate(batch_size=16), "copy", agent=spec, run_dir=tmp_path / "taught", **given)
        start = {"agent": spec, "init_from": tmp_path / "taught", **given}
        pg.train(replace(GRPO, beta=0.1), "copy", run_dir=tmp_path / "after", **start)
        for name in ("scratch", "after"):
            assert "network.frozen.lm_head.weight" in final_state(tmp_path / name)["agent"]
        taught = final_state(tmp_path / "taught")["agent"]["network.model.lm_head.weight"]
        again = pg.resume(tmp_path / "after", 120)
        assert torch.equal(again.agent.network.frozen.lm_head.weight, taught)
        assert torch.equal(final_state(tmp_path / "after")["agent"]["network.frozen.lm_head.weight"], taught)

    @pytest.mark.parametrize(
        "algorithm", [GRPO, pg.PPO(n_steps=48, batch_size=32, n_epochs=2)], ids=["grpo", "ppo"]
    )
    def test_adapters_that_were_taught_are_the_reference(self, algorithm: Any, tmp_path: Path) -> None:
        """After an imitation π_ref is what it taught, not the bare model; stopped and continued exactly."""
        spec = LanguageSpec(str(pretrained(tmp_path / "model")), lora=2)
        given = {**SETTING, "agent": spec}
        taught = tmp_path / "taught"
        pg.train(
            pg.Imitate(batch_size=16, learning_rate=1e-2),
            "copy",
            total_timesteps=200,
            run_dir=taught,
            **given,
        )
        first: list[float] = []
        still = replace(algorithm, beta=0.1, learning_rate=0.0)
        pg.train(
            still,
            "copy",
            total_timesteps=60,
            init_from=taught,
            callback=lambda row: first.append(row["kl"]),
            **given,
        )
        assert max(map(abs, first)) < 1e-6
        moving = replace(algorithm, beta=0.1, learning_rate=1e-2)
        whole, rest = whole_and_halves(tmp_path, moving, agent=spec, init_from=taught)
        assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
        assert rows(tmp_path / "whole") == rows(tmp_path / "half")
        assert abs(whole.history[-1]["kl"]) > 1e-4
        theirs = final_state(taught)["agent"]
        kept = rest.agent.network.frozen_adapters.state_dict().values()
        named = sorted(name for name in theirs if name.startswith("network.model") and "lora_" in name)
        for name, x in zip(named, kept, strict=True):
            assert torch.equal(theirs[name], x)

    def test_adapters_belong_to_the_precision_below_them(self, tmp_path: Path) -> None:
        """What is frozen was rounded; whole models, and adapters of drawn ones, go from one to another."""
        folder, given = str(pretrained(tmp_path / "model")), {**SETTING, "total_timesteps": 60}
        for name, spec in {
            "adapters": LanguageSpec(folder, lora=2),
            "whole": LanguageSpec(folder),
            "scratch": replace(TINY, lora=2),
        }.items():
            pg.train(pg.Imitate(batch_size=16), "copy", agent=spec, run_dir=tmp_path / name, **given)
            start = {"agent": replace(spec, dtype="bfloat16"), "init_from": tmp_path / name, **given}
            if name == "adapters":
                words = r"made with dtype='float32' \(here 'bfloat16'\): give the same, or .* pgrad export"
                with pytest.raises(UsageError, match=words):
                    pg.train(GRPO, "copy", **start)
            else:
                assert pg.train(GRPO, "copy", **start).timesteps >= 60

    def test_a_folder_that_changed_is_told(self, tmp_path: Path) -> None:
        folder = pretrained(tmp_path / "model")
        spec, given = LanguageSpec(str(folder), lora=2), {**SETTING, "total_timesteps": 60}
        pg.train(GRPO, "copy", agent=spec, run_dir=tmp_path / "a", **given)
        pretrained(folder, seed=1)
        for attempt in (pg.resume, pg.load):
            with pytest.raises(CheckpointError, match="is not the one that this run began with"):
                attempt(tmp_path / "a")
        with pytest.raises(UsageError, match=r"adapters of .* are of another model than the one here"):
            pg.train(GRPO, "copy", agent=spec, init_from=tmp_path / "a", **given)


def test_a_length_that_is_left_open_is_the_worlds() -> None:
    constant = replace(GRPO, average="constant")
    run = pg.train(constant, "copy", total_timesteps=30, agent=TINY, **TASK)
    assert run.config.algorithm.max_length == 8 + 1  # of the larger problems, and an end
    kwargs = TASK["world_kwargs"] | {"max_completion_length": 4}
    run = pg.train(constant, "copy", total_timesteps=30, agent=TINY, world_kwargs=kwargs)
    assert run.config.algorithm.max_length == 4
    kept = replace(constant, max_length=77)
    assert pg.train(kept, "copy", total_timesteps=30, agent=TINY, **TASK).config.algorithm.max_length == 77


def test_half_precision_trains_and_goes_on(tmp_path: Path) -> None:
    """Sampling and scoring round differently; that is measured, and is no error."""
    whole, _ = whole_and_halves(tmp_path, GRPO, agent=replace(TINY, dtype="bfloat16"))
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    assert whole.history[-1]["sampling/sampling_logp_difference/max"] < 1.0


def test_samples_are_written_with_every_row(tmp_path: Path) -> None:
    pg.train(GRPO, "copy", total_timesteps=200, agent=TINY, run_dir=tmp_path / "a", **SETTING)
    lines = [json.loads(line) for line in samples(tmp_path / "a").splitlines()]
    steps = [int(float(row["time/total_timesteps"])) for row in rows(tmp_path / "a")]
    assert sorted({line["timesteps"] for line in lines}) == steps
    assert len(lines) == 4 * len(steps)
    for line in lines:
        assert line.keys() == {"timesteps", "prompt", "completion", "reward"}
        assert line["reward"] == float(line["completion"].strip() + "=" == line["prompt"])


def test_rewards_that_never_judge_end_the_run() -> None:
    """Nothing counted, so no step was ever taken: told after a few rounds."""

    def never(prompts: list[str], completions: list[str], **columns: Any) -> list[None]:
        return [None] * len(prompts)

    with pytest.raises(pg.WorldError, match="nothing to learn from in 5 rounds"):
        pg.train(
            pg.GRPO(n_prompts=2, num_generations=2),
            ["ab", "ba"],
            agent=pg.LanguageSpec("scratch:tiny"),
            reward=never,
            world_kwargs={"max_completion_length": 3},
            total_timesteps=100,
            progress=False,
        )
