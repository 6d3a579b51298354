"""Audit bounds against reference numbers, closed forms, brute force, and how often they are wrong."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import epsilon_from_rho
from federated.audit import (
    bound_at,
    bound_by_split,
    bound_over_thresholds,
    clopper_pearson,
    clopper_pearson_two_sided,
    clopper_pearson_upper,
    gaussian_dp,
    jeffreys_upper,
    largest_bound,
    one_run,
    one_run_gaussian,
    one_run_p_value,
)
from federated.one_shot import (
    epsilon_two_gaussians,
    estimate_from_cosines,
    published_lower_estimate,
)
from federated.roc import (
    Guesses,
    area_under_hull,
    area_under_roc,
    best_accuracy,
    estimate_from_counts,
    guess_at,
    hull_guesses,
    true_positive_rate,
)

BOUNDS = (clopper_pearson, clopper_pearson_two_sided, gaussian_dp, one_run, one_run_gaussian)
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "golden_public.json"
SECTION = (
    [entry for entry in json.loads(GOLDEN.read_text())["entries"] if entry["section"] == 7]
    if GOLDEN.exists()
    else []
)


def compute_scores(inputs: dict[str, Any]) -> dict[str, Any]:
    lists = inputs["in_scores"], inputs["out_scores"]
    significance, delta = inputs["significance"], inputs["delta"]
    at = guess_at(*lists, inputs["threshold"])

    def over(bound) -> float:
        return bound_over_thresholds(bound, *lists, significance, delta)

    computed: dict[str, Any] = {
        "attack_auroc": area_under_hull(*lists),
        "tpr_at_fpr_0.05": true_positive_rate(*lists, 0.05),
        "tpr_at_fpr_0.1": true_positive_rate(*lists, 0.1),
        "max_accuracy": best_accuracy(*lists),
        "cp_explicit_delta0": clopper_pearson(at, significance, 0.0),
        "cp_explicit_delta": clopper_pearson(at, significance, delta),
        "cp_bonferroni_delta": over(clopper_pearson),
        "cp_bonferroni_two_sided_delta": over(clopper_pearson_two_sided),
        "raw_counts_min5_delta0": estimate_from_counts(*lists, 5),
        "one_run_explicit": one_run(at, significance, delta),
        "one_run_bonferroni": over(one_run),
        "one_run_fdp_explicit": one_run_gaussian(at, significance, delta),
        "one_run_fdp_bonferroni": over(one_run_gaussian),
        "n_thresholds_after_pareto": len(hull_guesses(*lists)[1]),
        "gdp_delta": over(gaussian_dp),
        "auroc_mann_whitney": area_under_roc(*lists),
    }
    claim = inputs["claimed_eps_at_delta"]
    bounds = {"cp": "cp_bonferroni_delta", "gdp": "gdp_delta"}
    bounds |= {name: f"{name}_bonferroni" for name in ("one_run", "one_run_fdp")}
    return computed | {
        "verdict_bonferroni_bounds_exceed_claim": {
            name: computed[key] > claim for name, key in bounds.items()
        }
    }


def compute_one_run(inputs: dict[str, Any]) -> dict[str, Any]:
    m, made, correct = inputs["m"], inputs["guesses"], inputs["correct"]
    wrong = made - correct
    # the bound depends on the canaries' number, not on how many of them were in
    guesses = Guesses(correct, wrong, max(correct, m - max(wrong, 1)), max(wrong, 1))
    significance, delta = inputs["significance"], inputs["delta"]
    return {
        "eps_lower": one_run(guesses, significance, delta),
        "p_value_at_eps1": one_run_p_value(m, made, correct, 1.0, delta),
        "eps_lower_fdp": one_run_gaussian(guesses, significance, delta or 1e-12),
    }


def compute_interval(inputs: dict[str, Any]) -> dict[str, Any]:
    arguments = inputs["k"], inputs["n"], inputs["significance"]
    return {
        "cp_upper": clopper_pearson_upper(*arguments),
        "jeffreys_upper": jeffreys_upper(*arguments),
    }


def compute_two_gaussians(inputs: dict[str, Any]) -> dict[str, Any]:
    names = ("mu1", "std1", "mu2", "std2", "delta")
    return {"eps": epsilon_two_gaussians(*(inputs[name] for name in names))}


def compute_cosines(inputs: dict[str, Any]) -> dict[str, Any]:
    cosines, dimensions, delta = inputs["cosines"], inputs["dim"], inputs["delta"]
    return {
        "mean": np.mean(cosines),
        "std_ddof0": np.std(cosines),
        "eps_gaussian_alt": estimate_from_cosines(cosines, dimensions, delta),
        "eps_lower_bound_closed_form_null": published_lower_estimate(
            cosines, dimensions, inputs["alpha"], delta
        ),
    }


def compute_power(inputs: dict[str, Any]) -> dict[str, Any]:
    taken, left = inputs["canaries_in"], inputs["canaries_out"]
    arguments = taken, left, inputs["significance"], inputs["delta"]
    return {
        "cp_fixed_threshold_max": largest_bound(clopper_pearson, *arguments),
        "one_run_max": largest_bound(one_run, *arguments),
    }


def compute_canaries_needed(inputs: dict[str, Any]) -> dict[str, Any]:
    """Smallest number on each side with which a perfect attack shows more than the claim."""

    def needed(claim: float) -> int:
        low, high = 1, 10**6
        while low < high:
            middle = (low + high) // 2
            shown = largest_bound(clopper_pearson, middle, middle, inputs["significance"], 0.0)
            low, high = (low, middle) if shown > claim else (middle + 1, high)
        return low

    claims = ("1.0", "4.377", "8.9")
    return {"min_canaries_each_side_to_falsify": {c: needed(float(c)) for c in claims}}


def compute_coverage(inputs: dict[str, Any]) -> dict[str, Any]:
    """The fractions that the reference allows, where ours keep them; means as they are."""
    rows = []
    for mu, canaries, threshold in ((1.0, 200, 1.3), (0.5, 500, 1.05), (2.0, 200, 1.8)):
        random = np.random.default_rng(5)
        true = epsilon_from_rho(mu**2 / 2, 1e-5)
        bounds: dict[str, list[float]] = {"cp": [], "one_run": []}
        for _ in range(100):
            at = guess_at(random.normal(mu, 1, canaries), random.normal(0, 1, canaries), threshold)
            bounds["cp"].append(clopper_pearson(at, 0.05, 1e-5))
            bounds["one_run"].append(one_run(at, 0.05, 1e-5))
        assert all(np.mean(np.array(values) > true) <= 0.05 for values in bounds.values())
        rows.append({"mu": mu, "true_eps_at_delta": true})
        rows[-1] |= {f"{name}_mean": np.mean(values) for name, values in bounds.items()}
    return {"rows": rows}


def compute_gaussian_trap(inputs: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for mu, canaries, trials in (
        (0.0, 100, 60),
        (0.0, 1000, 30),
        (1.0, 100, 60),
        (1.0, 1000, 30),
        (2.0, 200, 40),
    ):
        random = np.random.default_rng(3)
        true = epsilon_from_rho(mu**2 / 2, 1e-5) if mu else 0.0
        bounds = [
            bound_over_thresholds(
                gaussian_dp,
                random.normal(mu, 1, canaries),
                random.normal(0, 1, canaries),
                0.05,
                1e-5,
            )
            for _ in range(trials)
        ]
        rows.append(
            {
                "mu": mu,
                "true_eps": true,
                "without_abs_mean": np.mean(bounds),
                "without_abs_frac_above_true": np.mean(np.array(bounds) > true),
            }
        )
    return {"rows": rows}


def matches(computed: Any, expected: Any, tolerance: dict[str, float]) -> bool:
    if isinstance(expected, dict):
        return all(matches(computed[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, bool):
        return computed is expected
    return computed == pytest.approx(
        expected, abs=tolerance.get("abs", 0), rel=tolerance.get("rel", 0)
    )


def check_by_tolerance(entry: dict[str, Any], computed: dict[str, Any]) -> None:
    tolerances = entry["tolerance"]
    for name, expected in entry["expected"].items():
        kind = "counts" if isinstance(expected, int) and "counts" in tolerances else name
        tolerance = tolerances.get(kind, tolerances.get("all"))
        assert matches(computed[name], expected, tolerance), (name, computed[name], expected)


def check_coverage(entry: dict[str, Any], computed: dict[str, Any]) -> None:
    """Monte Carlo: means within 0.05; the fractions above the truth are checked as they are computed."""
    for ours, theirs in zip(computed["rows"], entry["expected"]["rows"], strict=True):
        assert ours["true_eps_at_delta"] == pytest.approx(theirs["true_eps_at_delta"], rel=1e-9)
        for name in ("cp_mean", "one_run_mean"):
            assert ours[name] == pytest.approx(theirs[name], abs=0.05), (ours["mu"], name)


def check_gaussian_trap(entry: dict[str, Any], computed: dict[str, Any]) -> None:
    """The violation rate is at most 0.05; means of other draws are near."""
    for ours, theirs in zip(computed["rows"], entry["expected"]["rows"], strict=True):
        assert ours["true_eps"] == pytest.approx(theirs["true_eps"], rel=1e-9)
        assert ours["without_abs_frac_above_true"] <= 0.05
        assert ours["without_abs_mean"] == pytest.approx(theirs["without_abs_mean"], abs=0.5)


COMPUTE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "audit_scores": compute_scores,
    "audit_formula/one_run": compute_one_run,
    "audit_formula/clopper_pearson": compute_interval,
    "audit_one_shot/two_gaussians": compute_two_gaussians,
    "audit_one_shot/cosines": compute_cosines,
    "audit_expectation/gaussian_coverage": compute_coverage,
    "audit_expectation/gdp_bug": compute_gaussian_trap,
    "audit_power/max_bound": compute_power,
    "audit_power/canaries_needed": compute_canaries_needed,
}
CHECK = {
    "audit_expectation/gaussian_coverage": check_coverage,
    "audit_expectation/gdp_bug": check_gaussian_trap,
}


def kind_of(entry: dict[str, Any]) -> str:
    return next(kind for kind in COMPUTE if entry["id"].startswith(kind))


@pytest.mark.parametrize("entry", SECTION, ids=lambda entry: entry["id"])
def test_reference_numbers(entry) -> None:
    kind = kind_of(entry)
    computed = COMPUTE[kind](entry["inputs"])
    if kind in CHECK:
        CHECK[kind](entry, computed)
    else:
        assert computed.keys() == entry["expected"].keys()
        check_by_tolerance(entry, computed)


def test_no_reference_is_skipped() -> None:
    if not SECTION:
        pytest.skip("no reference numbers beside this checkout")
    header = json.loads(GOLDEN.read_text())
    assert header["n_entries"] == len(header["entries"])
    assert len(SECTION) == 24 and {kind_of(entry) for entry in SECTION} == set(COMPUTE)


@pytest.mark.parametrize("canaries", [12, 300])
def test_a_perfect_attack_shows_what_the_closed_forms_say(canaries) -> None:
    """No error among m: the rates' ends are 1 - (a/2)^(1/m), and one run rejects up to logit(a^(1/m))."""
    right = 0.025 ** (1 / canaries)
    shown = largest_bound(clopper_pearson, canaries, canaries, 0.05, 0.0)
    assert shown == pytest.approx(math.log(right / (1 - right)), rel=1e-9)
    right = 0.05 ** (1 / canaries)
    shown = largest_bound(one_run, canaries, canaries, 0.05, 0.0)
    assert shown == pytest.approx(math.log(right / (1 - right)), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
)
def test_the_hull_and_the_areas_by_brute_force(taken, left) -> None:
    """No mixture of two thresholds is above the hull, and each corner is a threshold's own point."""
    thresholds, corners = hull_guesses(taken, left)
    assert [guess_at(taken, left, t) for t in thresholds] == corners
    points = [
        (at.false_positives / at.left, at.true_positives / at.taken)
        for t in [*set(taken + left), math.inf]
        for at in [guess_at(taken, left, t)]
    ]
    for rate in (0.0, 0.13, 0.5, 0.77, 1.0):
        best = max(
            y0 + (y1 - y0) * ((rate - x0) / (x1 - x0) if x1 > x0 else 1)
            for (x0, y0), (x1, y1) in itertools.product(points, points)
            if x0 <= rate <= x1
        )
        assert true_positive_rate(taken, left, rate) == pytest.approx(best)
    wins = np.mean([(a > b) + (a == b) / 2 for a, b in itertools.product(taken, left)])
    assert area_under_roc(taken, left) == pytest.approx(wins)
    assert area_under_hull(taken, left) >= area_under_roc(taken, left) - 1e-12


@pytest.mark.parametrize(("m", "guesses", "correct", "delta"), [(9, 6, 5, 0.0), (9, 6, 5, 0.01)])
def test_the_p_value_by_enumeration(m, guesses, correct, delta) -> None:
    """Theorem 5.2 with the binomial's probabilities summed one by one."""
    right = 1 / (1 + math.exp(-0.7))

    def probability(k: int) -> float:
        return math.comb(guesses, k) * right**k * (1 - right) ** (guesses - k)

    beta = sum(probability(k) for k in range(correct, guesses + 1))
    alpha = max(
        sum(probability(k) for k in range(max(0, correct - i), correct)) / i
        for i in range(1, correct + 1)
    )
    expected = beta + alpha * delta * 2 * m
    assert one_run_p_value(m, guesses, correct, 0.7, delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.__name__)
@pytest.mark.parametrize("choose", ["split", "over"])
def test_what_never_took_part_shows_nothing(bound, choose) -> None:
    """In and out scores of one distribution: a bound above zero is wrong, at most one time in twenty."""
    random = np.random.default_rng(8)
    wrong = 0
    for seed in range(60):
        scores = random.normal(0, 1, 60), random.normal(0, 1, 60)
        if choose == "split":
            wrong += bound_by_split(bound, *scores, 0.05, 1e-5, seed) > 0
        else:
            wrong += bound_over_thresholds(bound, *scores, 0.05, 1e-5) > 0
    assert wrong <= 6  # 3 expected at the most; more than 6 has a chance of 3 %


def test_a_split_chooses_on_one_half_and_judges_on_the_other() -> None:
    """The canaries that judge are worth what a fixed threshold is worth on half as many."""
    random = np.random.default_rng(2)
    taken, left = random.normal(6, 1, 200), random.normal(0, 1, 200)
    split = bound_by_split(clopper_pearson, taken, left, 0.05, 0.0, 1)
    assert split <= largest_bound(clopper_pearson, 100, 100, 0.05, 0.0)
    assert split > bound_at(clopper_pearson, taken[:20], left[:20], 3.0, 0.05, 0.0)


@pytest.mark.parametrize("delta", [1e-10, 1e-5])
@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
def test_equal_gaussians_have_the_accountants_epsilon(mu, delta) -> None:
    expected = epsilon_from_rho(mu**2 / 2, delta)
    assert epsilon_two_gaussians(0, 2, 2 * mu, 2, delta) == pytest.approx(expected, rel=1e-9)


def test_unequal_gaussians_by_integration() -> None:
    """delta(epsilon) is the integral of the positive part of p - e^epsilon q, for the worse direction."""
    epsilon = epsilon_two_gaussians(0.0, 1.0, 0.5, 1.3, 1e-3)
    y = np.linspace(-30, 30, 600_001)

    def density(mean, stddev):
        return np.exp(-(((y - mean) / stddev) ** 2) / 2) / (stddev * math.sqrt(2 * math.pi))

    p, q = density(0.0, 1.0), density(0.5, 1.3)
    step = y[1] - y[0]
    deltas = [np.maximum(a - math.exp(epsilon) * b, 0).sum() * step for a, b in ((p, q), (q, p))]
    assert max(deltas) == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Guesses(3, 0, 2, 1), "true_positives is 3, must be in .0, taken., taken is 2"),
        (lambda: Guesses(0, 0, 0, 1), "taken is 0, must be at least 1"),
        (lambda: guess_at([], [1.0], 0), "in_scores: give a list"),
        (lambda: guess_at([1.0], [math.nan], 0), "out_scores: give a list"),
        (lambda: one_run(Guesses(1, 1, 2, 2), 0.6, 0), "significance is 0.6"),
        (lambda: one_run(Guesses(1, 1, 2, 2), 0.05, 1.0), "delta is 1.0"),
        (lambda: gaussian_dp(Guesses(1, 1, 2, 2), 0.05, 0.0), r"delta is 0.0, must be in \(0, 1\)"),
        (lambda: true_positive_rate([1], [0], 1.5), "false_positive_rate is 1.5"),
        (lambda: estimate_from_cosines([0.1], 2000, 1e-6), "1 cosines: give at least two"),
        (lambda: estimate_from_cosines([0.1, 0.2], 20, 1e-6), "dimensions is 20"),
        (lambda: epsilon_two_gaussians(0, 0, 1, 1, 1e-6), "standard deviations are 0, 1"),
        (lambda: epsilon_two_gaussians(0, 1, 1, 1, 0.0), "delta is 0.0"),
        (lambda: bound_by_split(one_run, [1.0], [0.0], 0.05, 0, 1), "at least two of each"),
    ],
)
def test_bad_arguments_are_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
