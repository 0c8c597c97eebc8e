"""Right estimators are sound; a wrong one of each kind is caught, on exactly the problems it must be."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.lab import Case, Tabular, exact, grade, random_case, reference, standard_cases
from pgrad.lab.grade import Grade, Report, TwoEpisodes, default_credit, right_critic, shortened, wrong_critic
from pgrad.lab.kl_grade import grade_kl, standard_kl_cases
from pgrad.math import kl, reduce
from pgrad.math.baselines import leave_one_out_mean
from pgrad.math.credit import discount_weight, full_return, gae, group_relative, reward_to_go, td_error
from pgrad.math.importance import per_decision_return, trajectory_ratio
from pgrad.math.objectives import clipped, importance_weighted, score_function

ALL = tuple(case.name for case in standard_cases())
EARLY = {"episodes of different length", "two episodes in a column"}
ROOT = Path(__file__).parents[2]


def biased(report: Report) -> set[str]:
    return {one.problem for one in report.grades if not one.unbiased}


def discounted(x: Tensor, traj: Any, gamma: float) -> Tensor:
    return x * discount_weight(traj.done, gamma, x.dtype)


def monte_carlo(agent: Any, traj: Any, gamma: float) -> Tensor:
    return discounted(reward_to_go(traj.reward, traj.done, gamma), traj, gamma)


def traced(lam: float = 0.95, *, ends: bool = True, cut: bool = True) -> Any:
    """γᵗ·GAE(λ); without `ends` it looks behind the end of the task, without `cut` into the next episode."""

    def credit(agent: Any, traj: Any, gamma: float) -> Tensor:
        never = torch.zeros_like(traj.done)
        flags = (traj.terminated if ends else never, traj.done if cut else never)
        return discounted(gae(traj.reward, agent.value(traj.obs), *flags, gamma, lam), traj, gamma)

    return credit


def without_gamma(lam: float) -> Any:
    """The trace λˡ in place of (γλ)ˡ."""

    def credit(agent: Any, traj: Any, gamma: float) -> Tensor:
        delta = td_error(traj.reward, agent.value(traj.obs), traj.terminated, gamma)
        return discounted(reward_to_go(delta, traj.done, lam), traj, gamma)

    return credit


def ratio_of(agent: Any, traj: Any, sign: float) -> Tensor:
    logp = agent.policy(traj.decisions).log_prob(traj.action).detach()
    return trajectory_ratio(sign * logp, sign * traj.logp, traj.done)


class TestRight:
    def test_the_default_is_sound_on_every_problem(self) -> None:
        report = grade(credit=default_credit)
        assert report.sound
        assert report.unbiased
        assert report.keeps_direction
        assert tuple(one.problem for one in report.grades) == ALL

    @pytest.mark.parametrize(
        "objective",
        [
            importance_weighted,
            lambda new, old, a: score_function(new, a),
            lambda new, old, a: clipped(new, old, a, 0.2, 0.2),
            lambda new, old, a: new * a,
            lambda new, old, a: torch.exp(new - old) * a,
            lambda new, old, a: torch.minimum((new - old).exp() * a, (new - old).exp().clamp(0.8, 1.2) * a),
        ],
    )
    def test_objectives_are_sound_however_they_are_written(self, objective: Any) -> None:
        """The advantage they are given is a constant."""
        assert grade(objective=objective).sound

    def test_monte_carlo_needs_whole_episodes(self) -> None:
        assert biased(grade(credit=monte_carlo)) == {"truncated windows"}

    @pytest.mark.parametrize("name", ["none", "value"])
    def test_reinforce_as_it_trains(self, name: Any) -> None:
        algorithm = pg.Reinforce(gamma=0.8, baseline=name, discount_decisions=True)
        wrong = {"truncated windows"} if name == "none" else set()
        assert biased(grade(algorithm)) == wrong

    def test_an_algorithm_is_graded_with_its_own_discount(self) -> None:
        names = {one.problem for one in grade(pg.A2C(gamma=1.0, ent_coef=0.0)).grades}
        assert names == set(ALL) - {"truncated windows"}
        names = {one.problem for one in grade(pg.A2C(gamma=0.9)).grades}
        assert names == set(ALL) - {"no discount"}
        own = [random_case(8, gamma=0.5)]
        assert grade(pg.Reinforce(gamma=0.8, discount_decisions=True), cases=own).sound

    def test_a_mean_over_decisions_keeps_the_direction(self) -> None:
        report = grade(pg.A2C(gamma=1.0, ent_coef=0.0))
        assert report.keeps_direction
        assert biased(report) == {one.problem for one in report.grades}

    def test_off_policy_per_decision_weights_are_sound(self) -> None:
        def credit(agent: Any, traj: Any, gamma: float) -> Tensor:
            logp = agent.policy(traj.decisions).log_prob(traj.action).detach()
            ret = per_decision_return(traj.reward, logp, traj.logp, traj.done, gamma)
            return discounted(ret, traj, gamma)

        assert grade(credit=credit, off_policy=0.7).sound

    def test_the_batch_mean_shrinks_and_leaving_out_does_not(self) -> None:
        small = [random_case(3, n_states=2, n_actions=2, horizon=2)]

        def left_out(agent: Any, traj: Any, gamma: float) -> Tensor:
            ret = full_return(traj.reward, traj.done, gamma)
            return ret - leave_one_out_mean(ret)

        def mean(agent: Any, traj: Any, gamma: float) -> Tensor:
            ret = full_return(traj.reward, traj.done, gamma)
            return ret - ret.mean(1, keepdim=True)

        assert grade(credit=left_out, cases=small, episodes=2).sound
        shrunk = grade(credit=mean, cases=small, episodes=2)
        assert shrunk.keeps_direction
        assert shrunk.grades[0].scale == pytest.approx(0.5, abs=1e-12)

    def test_groups_can_be_graded_in_batches(self) -> None:
        def credit(agent: Any, traj: Any, gamma: float) -> Tensor:
            ret = full_return(traj.reward, traj.done, gamma)
            return group_relative(ret[0], 2, scale=False).expand_as(ret)

        small = [random_case(3, n_states=2, n_actions=2, horizon=2)]
        report = grade(credit=credit, cases=small, episodes=2)
        assert report.keeps_direction
        assert report.grades[0].growth == 0.0

    def test_a_wrong_critic_is_no_bias_at_lambda_1_and_one_below(self) -> None:
        def credit(lam: float) -> Any:
            def how(agent: Any, traj: Any, gamma: float) -> Tensor:
                a = gae(traj.reward, agent.value(traj.obs), traj.terminated, traj.done, gamma, lam)
                return discounted(a, traj, gamma)

            return how

        def wrong(case: Case) -> Tensor:
            V = exact.values(case.problem, case.actor, case.gamma, case.steps).V
            return V + torch.linspace(-1, 1, V.numel(), dtype=V.dtype).reshape(V.shape)

        whole = [case for case in standard_cases() if case.problem.horizon is not None]
        assert grade(credit=credit(1.0), critic=wrong, cases=whole).sound
        assert biased(grade(credit=credit(0.0), critic=wrong, cases=whole)) == {case.name for case in whole}


class TestWrong:
    """Each with the right twin beside it."""

    def test_discount_dropped(self) -> None:
        def dropped(agent: Any, traj: Any, gamma: float) -> Tensor:
            value = agent.value(traj.obs)
            return gae(traj.reward, value, traj.terminated, traj.done, gamma, 0.95)

        report = grade(credit=dropped)
        assert biased(report) == set(ALL) - {"no discount"}
        assert grade(credit=default_credit).sound

    def test_baseline_that_looks_at_the_action(self) -> None:
        def with_baseline(of_action: bool) -> Any:
            def credit(agent: Any, traj: Any, gamma: float) -> Tensor:
                base = agent.value(traj.obs)[:-1] + (0.3 * traj.action if of_action else 0.3)
                return default_credit(agent, traj, gamma) - discounted(base, traj, gamma)

            return credit

        assert grade(credit=with_baseline(False)).sound
        assert biased(grade(credit=with_baseline(True))) == set(ALL)

    def test_ratio_inverted(self) -> None:
        def weighted(sign: float) -> Any:
            def credit(agent: Any, traj: Any, gamma: float) -> Tensor:
                return ratio_of(agent, traj, sign) * monte_carlo(agent, traj, gamma)

            return credit

        whole = [case for case in standard_cases() if case.problem.horizon is not None]
        away = [case.at(0.5) for case in whole]
        assert grade(credit=weighted(1.0), cases=away).sound
        assert biased(grade(credit=weighted(-1.0), cases=away)) == {case.name for case in away}
        assert grade(credit=weighted(-1.0), cases=whole).sound  # on-policy the ratio is 1 either way

    def test_ratio_inverted_in_the_objective_climbs_down(self) -> None:
        report = grade(objective=lambda new, old, a: torch.exp(old - new) * a.detach())
        assert [one.cosine for one in report.grades] == pytest.approx([-1.0] * len(ALL), abs=1e-9)

    def test_done_for_terminated(self) -> None:
        def confused(agent: Any, traj: Any, gamma: float) -> Tensor:
            a = gae(traj.reward, agent.value(traj.obs), traj.done, traj.done, gamma, 0.95)
            return discounted(a, traj, gamma)

        assert biased(grade(credit=confused)) == {"truncated windows"}

    def test_the_end_of_the_task_overlooked(self) -> None:
        """It shows where a critic has an opinion of states that are the end."""

        def credit(overlooked: bool) -> Any:
            def how(agent: Any, traj: Any, gamma: float) -> Tensor:
                ends = traj.terminated & (not overlooked)
                return discounted(
                    gae(traj.reward, agent.value(traj.obs), ends, traj.done, gamma, 0.95), traj, gamma
                )

            return how

        def opinion(case: Case) -> Tensor:
            V = exact.values(case.problem, case.actor, case.gamma, case.steps).V
            return V + case.problem.terminal.to(V.dtype)

        assert grade(credit=credit(False), critic=opinion).sound
        assert biased(grade(credit=credit(True), critic=opinion)) == EARLY

    def test_advantage_attached_to_the_critic(self) -> None:
        attached = grade(credit=traced(), objective=lambda new, old, a: new * a)
        assert attached.unbiased
        assert not attached.sound
        assert all(one.leak > 0.01 for one in attached.grades)
        assert "attached" in str(attached)

    def test_advantage_attached_to_the_policy(self) -> None:
        def credit(detach: bool) -> Any:
            def how(agent: Any, traj: Any, gamma: float) -> Tensor:
                logp = agent.policy(traj.decisions).log_prob(traj.action)
                logp = logp.detach() if detach else logp
                ret = per_decision_return(traj.reward, logp, traj.logp, traj.done, gamma)
                return discounted(ret, traj, gamma)

            return how

        whole = [case for case in standard_cases() if case.problem.horizon is not None]
        loose = {"objective": lambda new, old, a: new * a, "cases": whole}
        assert grade(credit=credit(True), **loose).sound
        assert biased(grade(credit=credit(False), **loose)) == {case.name for case in whole}

    def test_mean_over_decisions_for_their_sum(self) -> None:
        report = grade(credit=default_credit, reduce=reduce.mean)
        assert biased(report) == set(ALL)
        assert report.keeps_direction
        assert report.grades[0].scale == pytest.approx(1 / 4, abs=1e-12)
        assert "right direction" in report.verdict

    def test_mean_within_each_episode_turns_the_direction_where_lengths_differ(self) -> None:
        report = grade(credit=default_credit, reduce=reduce.per_sequence)
        turned = {one.problem for one in report.grades if not one.keeps_direction}
        assert turned == EARLY

    def test_sum_over_episodes_for_their_mean(self) -> None:
        report = grade(credit=default_credit, reduce=lambda x, mask: reduce.constant(x, mask, 1))
        assert biased(report) == {"two episodes in a column"}
        assert report.keeps_direction
        assert "grows with the batch" in report.verdict
        assert [one.growth for one in report.grades] == pytest.approx([1.0] * len(ALL), abs=1e-12)
        small = [random_case(3, n_states=2, n_actions=2, horizon=2)]
        twice = grade(
            credit=default_credit, reduce=lambda x, m: reduce.constant(x, m, 1), cases=small, episodes=2
        )
        assert twice.grades[0].scale == pytest.approx(2.0, abs=1e-12)
        assert twice.grades[0].growth == pytest.approx(1.0, abs=1e-12)

    def test_nan_is_not_sound(self) -> None:
        report = grade(objective=lambda logp, old, adv: logp * torch.nan, cases=[reference()])
        assert not report.sound
        assert "nan" in str(report)
        assert report.verdict == "not a number on every problem"

    def test_a_credit_that_is_not_a_number_is_told_at_once(self) -> None:
        """Where a row has no weight too: 0·Â would be its part of the gradient."""
        many = reference().trajectory.mask.numel()
        with pytest.raises(UsageError) as error:
            grade(credit=lambda agent, traj, gamma: traj.reward * torch.nan)
        assert str(error.value) == f"credit is nan in {many} of {many} rows of the reference problem"
        with pytest.raises(UsageError, match=r"inf in \d+ of \d+ rows of .* length, all of weight 0"):
            grade(credit=lambda agent, traj, gamma: 1 / traj.mask.ceil())

    @pytest.mark.parametrize("algorithm", [pg.PPO, "ppo"])
    def test_algorithms_that_are_none(self, algorithm: Any) -> None:
        with pytest.raises(UsageError) as error:
            grade(algorithm)
        assert str(error.value) == f"algorithm must be an instance such as PPO(), got {algorithm!r}"


class TestBatches:
    """What is right for large batches only is not sound."""

    @pytest.mark.parametrize("baseline", ["mean", "optimal"])
    def test_baselines_of_the_batch_itself(self, baseline: Any) -> None:
        report = grade(pg.Reinforce(gamma=1.0, baseline=baseline), cases=[random_case(3, horizon=2)])
        assert report.unbiased
        assert not report.sound
        assert report.verdict.startswith(
            "unbiased in the limit of large batches; with 2 episodes the gradient"
        )

    def test_the_batch_mean_halves_it(self) -> None:
        report = grade(pg.Reinforce(gamma=1.0, baseline="mean"))
        assert report.pair is not None
        assert "two episodes in a column" not in {one.problem for one in report.grades}
        assert report.pair.scale == pytest.approx(0.5, abs=1e-12)
        assert report.pair.keeps_direction
        assert report.verdict.endswith("with 2 episodes the gradient is 0.50 of ∇J")

    def test_an_advantage_of_ones_own_centred_over_the_batch(self) -> None:
        def centred(agent: Any, traj: Any, gamma: float) -> Tensor:
            x = default_credit(agent, traj, gamma)
            return x - reduce.mean(x, traj.mask)

        report = grade(credit=centred)
        assert report.unbiased
        assert not report.sound
        assert "with 2 episodes" in report.verdict

    @pytest.mark.parametrize("baseline", ["none", "value"])
    def test_sums_over_episodes_are_the_same_at_every_size(self, baseline: Any) -> None:
        report = grade(pg.Reinforce(gamma=1.0, baseline=baseline))
        assert report.sound
        assert report.pair is not None
        assert report.pair.unbiased
        assert report.verdict == "sound: unbiased on every problem, whatever the critic says"

    def test_a_mean_over_decisions_turns_in_small_batches_of_different_length(self) -> None:
        report = grade(pg.A2C(gamma=1.0, ent_coef=0.0))
        assert report.keeps_direction
        assert report.pair is not None
        assert report.many is not None
        assert not report.pair.keeps_direction
        assert f"with 2 episodes the gradient is {report.pair.scale:.2f} of ∇J (cosine 0.99" in report.verdict
        assert report.verdict.endswith(f"with many {report.many.scale:.2f}")

    def test_leaving_one_out_is_told_how_to_be_graded(self) -> None:
        report = grade(pg.Reinforce(gamma=1.0, baseline="leave-one-out"))
        assert report.pair is not None
        assert report.pair.unbiased
        assert report.verdict.endswith("it compares episodes, so grade it with episodes=2")
        small = shortened(reference())
        assert small is not None
        assert grade(pg.Reinforce(gamma=1.0, baseline="leave-one-out"), cases=[small], episodes=2).sound

    def test_of_cases_of_ones_own_a_short_one_is_looked_at(self) -> None:
        mean = pg.Reinforce(gamma=0.8, baseline="mean", discount_decisions=True)
        assert not grade(mean, cases=[reference()]).sound
        whole = pg.Reinforce(gamma=0.8, baseline="none", discount_decisions=True)
        assert grade(whole, cases=[reference()]).sound

    def test_cases_without_a_gradient_in_two_decisions_are_not_held_against_it(self) -> None:
        P = torch.eye(4, dtype=torch.float64)[[1, 2, 3, 3]].unsqueeze(1).expand(4, 2, 4)
        r = torch.zeros(4, 2, dtype=torch.float64)
        r[2, 1] = 1.0
        late = Tabular(P, r, torch.eye(4, dtype=torch.float64)[0], horizon=3, name="late")
        table = torch.zeros(4, 2, dtype=torch.float64)
        report = grade(credit=default_credit, cases=[Case(late, table, table + 1.0)])
        assert report.pair is None
        assert report.verdict == "sound: unbiased on every problem"


class TestCritic:
    """What the critic says behind an end, in the next episode, and in error."""

    def test_nonsense_where_nothing_is_to_come(self) -> None:
        case = random_case(2, n_states=3, n_terminal=1, horizon=3)
        V, critic = exact.values(case.problem, case.theta, case.gamma, 3).V, right_critic(case)
        assert torch.equal(critic[:-1, :2], V[:-1, :2])
        assert bool((critic[-1] == 7.7).all())
        assert bool((critic[:, 2] == 7.7).all())
        endless = random_case(5, endless=True)
        assert torch.equal(
            right_critic(endless)[-1], exact.values(endless.problem, endless.theta, endless.gamma, 3).V[-1]
        )

    @pytest.mark.parametrize("wrong", [{"ends": False}, {"cut": False}, {"cut": False, "lam": 1.0}])
    def test_looking_behind_an_end(self, wrong: dict[str, Any]) -> None:
        assert grade(credit=traced()).sound
        report = grade(credit=traced(**wrong))
        assert biased(report) == EARLY
        assert report.verdict.startswith("biased on: episodes of different length, two episodes in a column")

    def test_returns_that_run_on_into_the_next_episode(self) -> None:
        def uncut(agent: Any, traj: Any, gamma: float) -> Tensor:
            return discounted(reward_to_go(traj.reward, torch.zeros_like(traj.done), gamma), traj, gamma)

        assert biased(grade(credit=uncut)) == {"two episodes in a column", "truncated windows"}

    def test_a_clock_that_does_not_start_again(self) -> None:
        def clock(agent: Any, traj: Any, gamma: float) -> Tensor:
            never = torch.zeros_like(traj.done)
            value = agent.value(traj.obs)
            advantage = gae(traj.reward, value, traj.terminated, traj.done, gamma, 0.95)
            return advantage * discount_weight(never, gamma, advantage.dtype)

        assert biased(grade(credit=clock)) == {"two episodes in a column"}

    @pytest.mark.parametrize("lam", [0.0, 0.95])
    def test_gae_below_lambda_1_is_sound_with_an_exact_critic_only(self, lam: float) -> None:
        report = grade(credit=traced(lam))
        assert report.sound
        assert report.wrong is not None
        assert not report.wrong.unbiased
        assert report.verdict == "sound: unbiased on every problem, with an exact critic only"

    def test_lambda_1_needs_no_exact_critic_until_gamma_is_dropped_from_the_trace(self) -> None:
        assert grade(credit=traced(1.0)).verdict.endswith("whatever the critic says")
        assert grade(credit=without_gamma(1.0)).verdict.endswith("with an exact critic only")
        assert grade(credit=without_gamma(0.9)).verdict.endswith("with an exact critic only")

    def test_the_errors_are_there_where_values_do_not_vary(self) -> None:
        case = random_case(0, n_states=2, horizon=1)
        flat = replace(case, problem=replace(case.problem, r=torch.ones_like(case.problem.r)))
        V = exact.values(flat.problem, flat.theta, flat.gamma, 1).V
        assert (wrong_critic(flat) - V).abs().max() > 0.1

    def test_a_critic_of_ones_own_is_taken_as_it_is(self) -> None:
        report = grade(credit=traced(1.0), critic=wrong_critic, cases=[reference()])
        assert report.wrong is None
        assert report.verdict == "sound: unbiased on every problem"


class TestTwoEpisodes:
    """Columns as worlds deliver them."""

    CASE = random_case(6, n_states=3, n_actions=2, n_terminal=1, horizon=2)

    def test_rows(self) -> None:
        single, double = self.CASE.trajectory, TwoEpisodes(**vars(replace(self.CASE))).trajectory
        T, K = single.mask.shape
        assert double.mask.shape == (2 * T + 1, K * K)
        assert double.obs.shape == (2 * T + 2, K * K)
        length = (single.mask > 0).sum(0)
        assert set(length.tolist()) == {1, 2}
        for i in range(K):
            for j in range(K):
                column, n, m = i * K + j, int(length[i]), int(length[j])
                real = [True] * n + [False] + [True] * m + [False] * (2 * T - n - m)
                assert (double.mask[:, column] > 0).tolist() == real
                assert float(double.mask[0, column]) == pytest.approx(
                    float(single.mask[0, i] * single.mask[0, j])
                )
                for start, one, steps in ((0, i, n), (n + 1, j, m)):
                    rows = slice(start, start + steps)
                    for name in ("action", "logp", "reward", "terminated", "done"):
                        ours, theirs = getattr(double, name)[rows, column], getattr(single, name)[:steps, one]
                        assert torch.equal(ours, theirs), name
                    seen = double.obs[start : start + steps + 1, column]
                    assert torch.equal(seen, single.obs[: steps + 1, one])
                rest = ~torch.tensor(real)
                assert bool(double.done[rest, column].all())
                assert not bool(double.terminated[rest, column].any())
                assert not bool(double.reward[rest, column].any())

    def test_it_is_of_probability_1_and_stays_one_when_changed(self) -> None:
        case = TwoEpisodes(**vars(replace(self.CASE)))
        assert float(case.trajectory.mask[0].sum()) == pytest.approx(1.0, abs=1e-12)
        assert isinstance(case.at(0.3), TwoEpisodes)
        assert grade(credit=default_credit, cases=[case]).sound


class TestReport:
    def test_where(self) -> None:
        good = {"bias": 0.0, "cosine": 1.0, "scale": 1.0, "variance": 1.0, "leak": 0.0, "growth": 0.0}
        bad = good | {"bias": 0.3, "cosine": 0.5}

        def verdict(*biases: bool) -> str:
            named = zip("abcd", biases, strict=False)
            return Report(tuple(Grade(name, **(bad if is_bad else good)) for name, is_bad in named)).verdict

        assert verdict(True, True) == "biased on every problem"
        assert verdict(True, False, True) == "biased on every problem but: b"
        assert verdict(False, True, False, True) == "biased on: b, d"
        assert grade(credit=monte_carlo).verdict == "biased on: truncated windows"
        short = Report((Grade("a", **good),), many=Grade("b", **bad), pair=Grade("b", **bad))
        assert not short.sound
        assert short.verdict == "biased where episodes are cut short, to two decisions or one"

    def test_sound(self) -> None:
        text = str(grade(credit=default_credit))
        assert text.splitlines()[0].split() == [
            "problem",
            "bias",
            "cosine",
            "scale",
            "variance",
            "leak",
            "growth",
        ]
        assert len({len(line) for line in text.splitlines()[:-1]}) == 1
        assert text.endswith("\nsound: unbiased on every problem, with an exact critic only")

    def test_faults_are_named_together(self) -> None:
        good = {"bias": 0.0, "cosine": 1.0, "scale": 1.0, "variance": 1.0, "leak": 0.0, "growth": 0.0}
        assert Report((Grade("x", **good),)).sound
        report = Report((Grade("x", **good | {"bias": 0.2, "cosine": 0.9, "leak": 1.0, "growth": 1.0}),))
        assert report.verdict.startswith("biased on every problem; the objective reaches the critic")
        assert report.verdict.endswith("a sum where a mean should be")

    @pytest.mark.parametrize("given", [{}, {"algorithm": pg.PPO(), "credit": default_credit}])
    def test_neither_or_both_are_refused(self, given: Any) -> None:
        with pytest.raises(UsageError, match="an algorithm, or a credit"):
            grade(**given)

    @pytest.mark.parametrize("algorithm", [pg.SAC(), pg.DiscreteSAC(), pg.Imitate()])
    def test_what_estimates_no_policy_gradient_is_refused(self, algorithm: Any) -> None:
        with pytest.raises(UsageError, match="does not estimate the gradient of the return"):
            grade(algorithm)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"credit": lambda agent, traj: traj.reward}, r"called as credit\(agent, traj, gamma\)"),
            ({"credit": 3}, "not a callable"),
            (
                {"credit": lambda agent, traj, gamma: traj.reward[0]},
                r"credit must give .* got a tensor \[1\]",
            ),
            ({"credit": lambda agent, traj, gamma: 1.0}, "credit must give .* got float"),
            ({"objective": lambda new, a: new * a}, r"called as objective\(logp, logp_old, advantage\)"),
            (
                {"objective": lambda new, old, a: (new * a).sum()},
                "objective must give one number per decision",
            ),
            ({"credit": default_credit, "reduce": lambda x: x.sum()}, r"called as reduce\(x, mask\)"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, given: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            grade(**given)

    def test_too_many_batches_are_refused(self) -> None:
        with pytest.raises(UsageError, match="groups of 3"):
            grade(credit=default_credit, cases=[reference()], episodes=3)

    def test_the_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        runpy.run_path(str(ROOT / "examples" / "grade_your_idea.py"), run_name="__main__")
        idea, plain = capsys.readouterr().out.split("and without the cut:")
        assert idea.strip().splitlines()[-1].startswith("biased on ")
        assert plain.strip().endswith("sound: unbiased on every problem, with an exact critic only")


class TestKL:
    """The value and the gradient are two things: an estimator may have one right and not the other."""

    @pytest.mark.parametrize(
        ("estimator", "unbiased", "gradient_of"),
        [(kl.k1, True, "nothing"), (kl.k2, False, "reverse"), (kl.k3, True, "forward")],
    )
    def test_what_ships(self, estimator: Any, unbiased: bool, gradient_of: str) -> None:
        report = grade_kl(estimator)
        assert (report.unbiased, report.gradient_of) == (unbiased, gradient_of)
        assert len(report.grades) == len(standard_kl_cases())

    def test_k3_with_the_ratio_is_right_in_both(self) -> None:
        report = grade_kl(kl.k3_corrected, off_policy=True)
        assert (report.unbiased, report.gradient_of) == (True, "reverse")

    def test_k3_off_policy_without_the_ratio_is_right_in_neither(self) -> None:
        report = grade_kl(lambda logp, ref, old: kl.k3(logp, ref), off_policy=True)
        assert (report.unbiased, report.gradient_of) == (False, "neither")

    def test_approx_kl_is_of_the_other_direction(self) -> None:
        cases = [replace(case, behaviour=case.reference) for case in standard_kl_cases()]
        report = grade_kl(lambda logp, ref, old: kl.approx_kl(logp, old), off_policy=True, cases=cases)
        assert report.gradient_of == "forward"
        assert [one.forward_bias for one in report.grades] == pytest.approx([0.0] * len(cases), abs=1e-9)

    def test_k3_with_the_wrong_sign_of_the_logarithm(self) -> None:
        """(r − 1) + log r is −KL in value; its gradient does not show it, for E[∇log π] = 0."""

        def wrong(logp: Tensor, ref: Tensor) -> Tensor:
            return torch.expm1(ref - logp) + (ref - logp)

        report = grade_kl(wrong)
        assert [one.bias for one in report.grades] == pytest.approx([-2.0] * 6, abs=1e-9)
        assert (report.unbiased, report.gradient_of) == (False, "forward")

    def test_k3_turned_round(self) -> None:
        report = grade_kl(lambda logp, ref: -kl.k3(logp, ref))
        assert not report.unbiased
        assert report.gradient_of == "neither"
        assert [one.forward for one in report.grades] == pytest.approx([-1.0] * 6, abs=1e-9)

    def test_k3_with_its_arguments_swapped(self) -> None:
        report = grade_kl(lambda logp, ref: kl.k3(ref, logp))
        assert (report.unbiased, report.gradient_of) == (False, "nothing")  # kl detaches its reference

    def test_a_detached_one_has_no_gradient(self) -> None:
        report = grade_kl(lambda logp, ref: kl.k3(logp.detach(), ref) + 0.0 * logp)
        assert (report.unbiased, report.gradient_of) == (True, "nothing")

    def test_printing(self) -> None:
        text = str(grade_kl(kl.k3))
        assert len(text.splitlines()) == 8
        assert text.endswith("value unbiased; gradient of KL(π_ref‖π), the forward one")
        assert str(grade_kl(kl.k1)).endswith("gradient of nothing: it is zero")
