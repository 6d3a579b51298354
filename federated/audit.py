"""Lower bounds, with confidence, on the epsilon of a run, from the scores of canaries that took part or did not.

A bound above the epsilon that a ledger states contradicts the ledger; a small bound is no evidence of a small epsilon,
since canaries are few and attacks are weak (`largest_bound` says what could be shown at the most).

`clopper_pearson` and `gaussian_dp` need canaries that are independent of each other, as of separate runs. `one_run` and
`one_run_gaussian` hold for many canaries in one run, each in or out by a fair coin of its own. The `*gaussian*` ones
bound mu of Gaussian differential privacy, which is what a ledger of Gaussian mechanisms claims, and so see more.

All of them hold for a threshold that was not chosen by the scores they are applied to. `bound_by_split` chooses it by
others. `bound_over_thresholds` corrects for the number of corners of the ROC curve's hull, as jax_privacy does; the
corners themselves are chosen by the scores, so that its confidence is not proven.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

from federated.accounting import epsilon_from_rho, rho_from_epsilon
from federated.roc import Guesses, Scores, guess_at, hull_guesses

Bound = Callable[[Guesses, float, float], float]
"""(guesses, significance, delta) -> lower bound on epsilon, wrong with probability <= significance."""

_TOLERANCE = 1e-9


def clopper_pearson_upper(successes: int, trials: int, significance: float) -> float:
    """Upper end of the exact one-sided interval of a probability (Clopper & Pearson 1934)."""
    if successes >= trials:
        return 1.0
    return float(stats.beta.ppf(1 - significance, successes + 1, trials - successes))


def jeffreys_upper(successes: int, trials: int, significance: float) -> float:
    """Upper end of Jeffreys' one-sided interval: shorter than Clopper and Pearson's, and not sure to cover."""
    return float(stats.beta.ppf(1 - significance, successes + 0.5, trials - successes + 0.5))


def clopper_pearson(guesses: Guesses, significance: float, delta: float) -> float:
    """epsilon >= log((TPR - delta) / FPR), both rates at the ends of their intervals.

    Nasr et al. 2021, arXiv:2101.04535.

    Args:
        guesses: of independent canaries.
        significance: in (0, 1/2), half of it for either rate.
        delta: in [0, 1).
    """
    _check(significance, delta)
    false_negatives = guesses.taken - guesses.true_positives
    half = significance / 2
    miss = clopper_pearson_upper(false_negatives, guesses.taken, half)
    false_alarm = clopper_pearson_upper(guesses.false_positives, guesses.left, half)
    if 1 - miss <= delta:
        return 0.0
    return max(0.0, math.log(1 - miss - delta) - math.log(false_alarm))


def clopper_pearson_two_sided(guesses: Guesses, significance: float, delta: float) -> float:
    """The better of guessing "in" and guessing "out"; one pair of intervals serves both, so nothing is corrected."""
    return max(
        clopper_pearson(guesses, significance, delta),
        clopper_pearson(guesses.mirrored(), significance, delta),
    )


def gaussian_dp(guesses: Guesses, significance: float, delta: float) -> float:
    """Epsilon of the least mu whose trade-off curve allows both rates: mu >= Phi^-1(1 - FPR) - Phi^-1(FNR).

    Dong, Roth & Su 2019 (arXiv:1905.02383), eq. 6. If that is not positive nothing is shown: its absolute value, which
    jax_privacy 2.0.0 takes, is no bound. Arguments as `clopper_pearson`, delta > 0.
    """
    _check(significance, delta, positive_delta=True)
    half = significance / 2
    miss = clopper_pearson_upper(guesses.taken - guesses.true_positives, guesses.taken, half)
    false_alarm = clopper_pearson_upper(guesses.false_positives, guesses.left, half)
    if max(miss, false_alarm) >= 1 - delta:
        return 0.0
    return _epsilon_of_mu(float(stats.norm.isf(false_alarm) - stats.norm.ppf(miss)), delta)


def one_run_p_value(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """Largest chance of so many right guesses in an (epsilon, delta)-DP run (Steinke et al. 2023, theorem 5.2)."""
    right = special.expit(epsilon)
    beta = float(stats.binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return beta
    steps = np.arange(1, correct + 1)
    gains = (stats.binom.sf(correct - steps - 1, guesses, right) - beta) / steps
    return min(1.0, beta + max(0.0, float(gains.max())) * delta * 2 * canaries)


def one_run(guesses: Guesses, significance: float, delta: float) -> float:
    """Largest epsilon that one run's guesses reject.

    Steinke et al. 2023, arXiv:2305.08846.

    Args:
        guesses: of canaries in one run.
        significance: in (0, 1/2).
        delta: in [0, 1).
    """
    _check(significance, delta)
    made = guesses.true_positives + guesses.false_positives
    canaries = guesses.taken + guesses.left

    def surplus(epsilon: float) -> float:
        value = one_run_p_value(canaries, made, guesses.true_positives, epsilon, delta)
        return significance - value

    return _largest_rejected(surplus)


def one_run_gaussian(guesses: Guesses, significance: float, delta: float) -> float:
    """Epsilon of the largest mu of Gaussian DP that one run's guesses reject.

    Mahloujifar et al. 2024, arXiv:2410.22235, algorithm 3. Arguments as `one_run`, delta > 0. It is searched for on the
    scale of epsilon.
    """
    _check(significance, delta, positive_delta=True)
    made, correct = guesses.true_positives + guesses.false_positives, guesses.true_positives
    canaries = guesses.taken + guesses.left

    def surplus(epsilon: float) -> float:
        mu = math.sqrt(2 * rho_from_epsilon(epsilon, delta)) if epsilon else 0.0
        right = significance * correct / canaries
        wrong = significance * guesses.false_positives / canaries
        for i in range(correct - 1, -1, -1):
            # special.ndtr and ndtri are the normal distribution's function and its inverse
            grown = max(wrong, float(special.ndtr(special.ndtri(min(right, 1.0)) - mu)))
            if grown == wrong:
                break
            right = min(right + i / (made - i) * (grown - wrong), 1.0)
            wrong = grown
        return right + wrong - made / canaries

    return _largest_rejected(surplus)


def bound_at(
    bound: Bound,
    in_scores: Scores,
    out_scores: Scores,
    threshold: float,
    significance: float,
    delta: float,
) -> float:
    """The bound at a threshold that was fixed before the scores were seen."""
    return bound(guess_at(in_scores, out_scores, threshold), significance, delta)


def bound_by_split(
    bound: Bound,
    in_scores: Scores,
    out_scores: Scores,
    significance: float,
    delta: float,
    seed: int,
) -> float:
    """The bound on one random half of the canaries, at the threshold that is best on the other half.

    Raises:
        ValueError: there are fewer than two canaries on a side.
    """
    if min(len(in_scores), len(out_scores)) < 2:
        raise ValueError(
            f"{len(in_scores)} canaries in and {len(out_scores)} out: give at least two of each to split"
        )
    random = np.random.default_rng(seed)
    taken, left = (random.permutation(np.asarray(s, np.float64)) for s in (in_scores, out_scores))
    half_taken, half_left = len(taken) // 2, len(left) // 2
    thresholds, corners = hull_guesses(taken[:half_taken], left[:half_left])
    best = max(range(len(corners)), key=lambda i: bound(corners[i], significance, delta))
    judged = guess_at(taken[half_taken:], left[half_left:], thresholds[best])
    return bound(judged, significance, delta)


def bound_over_thresholds(
    bound: Bound,
    in_scores: Scores,
    out_scores: Scores,
    significance: float,
    delta: float,
) -> float:
    """The best bound over the corners of the ROC curve's hull, each at its share of the significance (Bonferroni)."""
    _, corners = hull_guesses(in_scores, out_scores)
    return max(bound(guesses, significance / len(corners), delta) for guesses in corners)


def largest_bound(bound: Bound, taken: int, left: int, significance: float, delta: float) -> float:
    """What a perfect attack could show with that many canaries; a larger epsilon cannot be contradicted."""
    return bound(Guesses(taken, 0, taken, left), significance, delta)


def _epsilon_of_mu(mu: float, delta: float) -> float:
    return epsilon_from_rho(mu**2 / 2, delta) if mu > 0 else 0.0


def _largest_rejected(surplus: Callable[[float], float]) -> float:
    """Where a falling function of epsilon changes its sign; 0 if it is nowhere positive."""
    if surplus(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while surplus(high) > 0:
        low, high = high, 2 * high
    return float(optimize.brentq(surplus, low, high, xtol=_TOLERANCE))


def _check(significance: float, delta: float, positive_delta: bool = False) -> None:
    if not 0 < significance < 0.5:
        raise ValueError(f"significance is {significance!r}, must be in (0, 1/2)")
    if not 0 <= delta < 1 or (positive_delta and delta == 0):
        ends = "(0, 1)" if positive_delta else "[0, 1)"
        raise ValueError(f"delta is {delta!r}, must be in {ends}")
