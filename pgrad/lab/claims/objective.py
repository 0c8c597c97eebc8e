"""Claims about the objective, its gradient, and the forms in which the policy gradient theorem is written."""

from pgrad.lab.claim import Claim, Verdict
from pgrad.lab.claims import theorem
from pgrad.lab.claims.common import several
from pgrad.lab.problems import Case


def _discounted(case: Case) -> bool:
    return several(case) and case.gamma < 1


def _two_distinct(case: Case) -> bool:
    return case.problem.n_actions == 2 and case.problem.n_observations == case.problem.n_states


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-01",
        title="Trajectory probabilities and J",
        statement=(
            "The trajectory probabilities ρ₀·Π π·P sum to 1, and J counted out over trajectories is J by "
            "dynamic programming."
        ),
        verdict=Verdict.TRUE,
        measure=theorem.enumeration,
        equation="Σ_τ p(τ) = 1,   J = Σ_τ p(τ)·Σ_t γᵗ r_t = Σ_s ρ₀(s)·V₀(s)",
        source="000:9-35; 001:20-40, 288-351; 002:55-65; 003:47-49; 004:18-20",
        paper="Sutton & Barto 2018, §3.3 and §4.1",
        explanation=(
            "Enumeration and dynamic programming share no code, so their agreement is what everything else "
            "here stands on: a sum over the enumerated trajectories is an exact expectation."
        ),
        audit={
            "Σp − 1": "<1e-9",
            "J by dynamic programming": ".244715",
            "J by enumeration": ".244715",
            "J by enumeration, γ = 1": ".262684",
        },
        also=("M-02", "M-03"),
    ),
    Claim(
        id="L-02",
        title="The score has mean zero",
        statement="The mean of ∇log π(a|s) over the policy's own actions is zero in every state.",
        verdict=Verdict.TRUE,
        measure=theorem.zero_mean,
        equation="E_{a~π}[∇log π(a|s)] = Σ_a ∇π(a|s) = ∇1 = 0",
        source="001:426-484",
        paper="Williams 1992",
        explanation=(
            "Probabilities sum to 1 whatever θ is, so their derivatives sum to 0. Baselines, causality and "
            "the equivalence of Q and A in the gradient all rest on this one line."
        ),
        audit={"max |E score|": "<1e-9"},
    ),
    Claim(
        id="L-03",
        title="REINFORCE with the full return",
        statement="E[Σ_t ∇log π(a_t|s_t)·R(τ)] is the gradient of J.",
        verdict=Verdict.TRUE,
        measure=theorem.on_full_return,
        equation="∇J = E_τ[(Σ_t ∇log π(a_t|s_t))·Σ_t γᵗ r_t]",
        source="000:59-65; 001:46-50, 398-400; 003:39-42, 70-73; 004:22",
        paper="Williams 1992",
        explanation=(
            "∇p(τ) = p(τ)·∇log p(τ), and of log p(τ) only the terms log π depend on θ. No γᵗ is missing: "
            "R(τ) is discounted from the start of the episode."
        ),
        audit={"rel. error": "<1e-9", "variance": "5.7639"},
        also=("M-06",),
    ),
    Claim(
        id="L-04",
        title="Causality: earlier rewards",
        statement="A reward that came before a decision has no correlation with that decision's score.",
        verdict=Verdict.TRUE,
        measure=theorem.causality,
        equation="E[∇log π(a_t|s_t)·r_l] = 0 for l < t",
        source="001:402-426; 004:54",
        paper="Baxter & Bartlett 2001; Sutton et al. 2000",
        explanation=(
            "Given what happened before t, r_l is a constant and the score has mean zero. For l ≥ t the "
            "reward depends on a_t, and the correlation is the signal that learning lives on."
        ),
        audit={"earlier rewards": "<1e-9", "later rewards": ".2775"},
        fits=several,
        needs="more than one decision",
    ),
    Claim(
        id="E-03",
        title="Do earlier actions affect R_t?",
        statement="Earlier actions do not affect R_t, and therefore R(τ) may be replaced by R_t.",
        verdict=Verdict.FALSE,
        measure=theorem.influence,
        equation="E[R₁ | s₀, a₀] = E[V₁(s₁) | s₀, a₀]   against   E[∇log π(a_t|s_t)·r_l] = 0, l < t",
        source="000:79",
        paper="Baxter & Bartlett 2001; Sutton et al. 2000",
        explanation=(
            "Earlier actions decide which s_t is reached, and so how large R_t is. The replacement is right "
            "for another reason: what is left out, the rewards before t, is no business of a_t."
        ),
        correction=(
            "Earlier actions affect R_t through s_t; the replacement is right because a_t cannot affect the "
            "rewards before t, whose product with its score has mean zero."
        ),
        audit={"score · earlier r": "<1e-9", "score · later r": ".2775"},
        fits=several,
        needs="more than one decision",
    ),
    Claim(
        id="L-05",
        title="Reward-to-go with γᵗ",
        statement="E[Σ_t γᵗ·∇log π(a_t|s_t)·G_t] is the gradient of the discounted J.",
        verdict=Verdict.TRUE,
        measure=theorem.on_reward_to_go,
        equation="∇J = E[Σ_t γᵗ ∇log π(a_t|s_t)·G_t],   G_t = Σ_{l≥t} γˡ⁻ᵗ r_l",
        source="000:67-77; 004:29-32, 81",
        paper="Thomas 2014; Baxter & Bartlett 2001",
        explanation=(
            "The full return is what came before t plus γᵗ·G_t, and the first part has mean zero with the "
            "score. Leaving it out removes its noise: the variance falls from 5.76 to 2.81 on the reference."
        ),
        audit={"rel. error": "<1e-9", "variance": "2.8095", "variance of the full return": "5.7639"},
        also=("M-08",),
    ),
    Claim(
        id="L-06",
        title="Reward-to-go without γᵗ (option 1)",
        statement="E[Σ_t ∇log π(a_t|s_t)·G_t], without γᵗ, is the gradient of the discounted J.",
        verdict=Verdict.TRUE_IF,
        measure=theorem.without_discount,
        equation="E[Σ_t ∇log π(a_t|s_t)·G_t] = ∇ E[Σ_t γᵗ r_t] ?",
        source="000:73-77, 119-125; 001:121, 274, 404, 420, 496, 518, 529, 649; 004:80",
        paper="Thomas 2014; Nota & Thomas 2020, arXiv 1906.07073",
        explanation=(
            "Later decisions are weighed as if the objective did not discount them. On the reference "
            "problem the direction hardly differs (cosine .9997), and the length does (1.158 for .9996)."
        ),
        correction="Only if γ = 1; for γ < 1 the score at time t needs the weight γᵗ.",
        audit={
            "rel. error": ".161",
            "cosine": ".999687",
            "|E ĝ|": "1.158",
            "|∇J|": ".9996",
            "rel. error, γ = 1": "<1e-9",
        },
        also=("E-01",),
        fits=_discounted,
        needs="γ < 1 and more than one decision",
    ),
    Claim(
        id="L-07",
        title="Is option 1 some gradient?",
        statement="Reward-to-go without γᵗ (option 1) is the gradient of an objective, only not of J.",
        verdict=Verdict.FALSE,
        measure=theorem.not_a_gradient,
        equation="‖D − Dᵀ‖ / ‖D + Dᵀ‖ with D = ∂/∂θ E[Σ_t ∇log π(a_t|s_t)·G_t]; 0 for every gradient",
        source="004:79-82",
        paper="Nota & Thomas 2020, arXiv 1906.07073",
        explanation=(
            "The derivative of a gradient is a Hessian, which is symmetric; that of this field is not. It "
            "can be followed all the same, but no function of θ is being climbed."
        ),
        correction=(
            "For γ < 1 it is the gradient of no function at all; with γᵗ (option 2), or γ = 1, it is ∇J."
        ),
        audit={"asymmetry": "1.04e-2", "γ = ½": "5.17e-2", "γ = 1": "<1e-9", "with γᵗ": "<1e-9"},
        also=("E-23", "M-26"),
        fits=_discounted,
        needs="γ < 1 and more than one decision",
    ),
    Claim(
        id="L-08",
        title="The forms with Q and with A",
        statement="With Q(s_t, a_t) or A(s_t, a_t) in place of G_t, and γᵗ, the expectation is still ∇J.",
        verdict=Verdict.TRUE,
        measure=theorem.value_forms,
        equation="∇J = E[Σ_t γᵗ ∇log π·Q_t(s_t, a_t)] = E[Σ_t γᵗ ∇log π·A_t(s_t, a_t)]",
        source="000:101-111; 001:28-74, 498-531",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "Q is the mean of G given (s_t, a_t), and A differs from it by a function of the state, whose "
            "product with the score has mean zero. That A is the less noisy of the two is not always so."
        ),
        audit={
            "rel. error with Q": "<1e-9",
            "rel. error with A": "<1e-9",
            "variance with Q": "1.2775",
            "variance with A": "1.4883",
        },
        also=("M-10", "M-14"),
    ),
    Claim(
        id="L-09",
        title="The theorem without Σ_t",
        statement="∇J = E[R_t·∇log π(a_t|s_t)]: one term, without the sum over t.",
        verdict=Verdict.FALSE,
        measure=theorem.without_sum,
        equation="∇J = Σ_t E[γᵗ G_t·∇log π(a_t|s_t)] ≠ E[G₀·∇log π(a₀|s₀)],  (1/T)·Σ_t E[γᵗ G_t·∇log π]",
        source="002:12-36, 82-84, 108, 120",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "Every decision contributes a term. The first alone is another vector; a term at a random t has "
            "the right direction and 1/T of the length. R_t under the integral over τ should be R(τ)."
        ),
        correction="The sum over t is part of the theorem; only problems of one decision have a single term.",
        audit={
            "first term, rel. error": ".712",
            "first term, cosine": ".952",
            "average over t, rel. error": ".750",
        },
        also=("E-10", "E-11"),
        fits=several,
        needs="more than one decision",
    ),
    Claim(
        id="L-10",
        title="The form with dᵖⁱ",
        statement="∇J is the mean of ∇log π(a|s)·Q(s, a) over states drawn from dᵖⁱ(s) = Σ_t γᵗ P(s_t = s).",
        verdict=Verdict.TRUE_IF,
        measure=theorem.visitation,
        equation="∇J = Σ_t γᵗ Σ_s P(s_t = s) Σ_a π(a|s) ∇log π(a|s)·Q_t(s, a) = mass · (mean under dᵖⁱ/mass)",
        source="000:81-91, 111",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "dᵖⁱ is a measure and no distribution: its mass is 3.439 on the reference. Samples can only be "
            "drawn from the normalised one, whose mean is too short by that factor."
        ),
        correction=(
            "Only if E is read as a sum with the unnormalised measure, of mass (1 − γᵀ)/(1 − γ) where no "
            "episode ends earlier; a mean over samples is ∇J divided by the mass."
        ),
        audit={
            "mass of dᵖⁱ": "3.4390",
            "rel. error of the sum": "<1e-9",
            "rel. error of mass · mean": "<1e-9",
        },
        also=("E-02", "M-11"),
        fits=lambda case: several(case) and case.gamma > 0,
        needs="γ > 0 and more than one decision",
    ),
    Claim(
        id="L-11",
        title="E[R(τ) | s, a] and Q",
        statement="E[R(τ) | s_t, a_t] = Q(s_t, a_t).",
        verdict=Verdict.FALSE,
        measure=theorem.conditional_return,
        equation="E[R(τ) | s_t, a_t] = E[Σ_{l<t} γˡ r_l | s_t, a_t] + γᵗ·Q_t(s_t, a_t)",
        source="001:52-56",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "R(τ) contains the rewards before t, and those after it are discounted from the start. The step "
            "of the proof is saved by the score: the product of the past part with it has mean zero."
        ),
        correction=(
            "It is the mean of the rewards before t plus γᵗ·Q; the former vanishes only after multiplication "
            "by the score."
        ),
        audit={
            "max |E[R|s,a] − Q|": ".4418",
            "E[R | s=0, a=0] halfway": "1.3837",
            "Q(0, 0) halfway": "1.3176",
            "γᵗQ(0, 0) halfway": "1.0672",
        },
        also=("E-06",),
        fits=several,
        needs="more than one decision",
    ),
    Claim(
        id="E-13",
        title="Is the sample mean the gradient?",
        statement="∇J = (1/m) Σᵢ Σ_t ∇log π(a_t|s_t)·R(τᵢ): the mean over m trajectories is the gradient.",
        verdict=Verdict.FALSE,
        measure=theorem.sample_mean,
        equation="ĝ = (1/m) Σᵢ …,   E ĝ = ∇J,   √(E|ĝ − ∇J|²) = √(tr Var / m)",
        source="003:41, 72",
        paper="Williams 1992",
        explanation=(
            "The equation holds in expectation only. One trajectory is wrong by 2.4 times the length of the "
            "gradient, and it takes a hundred to bring that down to a quarter."
        ),
        correction="It is an unbiased estimate, with an error that falls as 1/√m.",
        audit={"rms error / |∇J|, m = 1": "2.40", "m = 100": ".240"},
    ),
    Claim(
        id="E-22",
        title="States of one's own rollouts",
        statement="Rollouts of π from ρ₀ have other states than π has: value data from them are shifted.",
        verdict=Verdict.FALSE,
        measure=theorem.rollouts,
        equation="Σ_{τ: s_t=s} p(τ) = P(s_t = s),   the recursion ρ₀, ρ₀P_π, ρ₀P_π², …",
        source="004:73",
        paper="Sutton & Barto 2018, §9.2",
        explanation=(
            "To roll π out from ρ₀ is to sample its state distribution. What is shifted are data that "
            "another policy left behind, such as those of earlier iterations."
        ),
        correction=(
            "They have exactly the state distribution of π; a shift comes with data of another policy."
        ),
        audit={"rollouts − policy's own": "<1e-9"},
        also=("M-34",),
    ),
    Claim(
        id="M-07",
        title="What a small step gains",
        statement="A step of length α along the exact gradient raises J by α|∇J|², to first order in α.",
        verdict=Verdict.TRUE,
        measure=theorem.small_step,
        equation="J(θ + α∇J) = J(θ) + α|∇J|² + O(α²)",
        source="000:126-128; 004:23",
        paper="Williams 1992",
        explanation=(
            "The derivative of J along its gradient is |∇J|². It is a promise for small steps only: how far "
            "it reaches depends on the curvature, and estimates in place of ∇J weaken it further."
        ),
    ),
    Claim(
        id="M-27",
        title="Good actions up, bad actions down",
        statement="A gradient step makes actions with A > 0 more likely and those with A < 0 less likely.",
        verdict=Verdict.TRUE_IF,
        measure=theorem.more_likely,
        equation="θ ← θ + α∇J:   sign Δπ(a|s) = sign Σ_t γᵗ P(s_t = s)·A_t(s, a) ?",
        source="001:276-280, 757; 004:14",
        paper="Agarwal, Kakade, Lee & Mahajan 2021 (the gradient of the tabular softmax)",
        explanation=(
            "Of three actions with π = (.6, .1, .3) and rewards (1, .8, 0) the second is better than average "
            "and yet loses: the first pulls more, and all share one sum. With two actions there is only one "
            "direction to go, and every step size goes there."
        ),
        correction=(
            "If there are two actions, every state has its own parameters, the gradient is exact, and A is "
            "averaged over the times at which the state is visited (weights γᵗ P(s_t = s)); then for every "
            "step size."
        ),
        always=False,
        fits=_two_distinct,
        needs="two actions, and no states that look alike",
    ),
)
