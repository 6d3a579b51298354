"""Reference numbers of independent implementations, all entries of sections 1 to 6 (section 7 is the audits').

They lie beside the checkout where the project is developed. A checker returns what keyfed gives under the entry's own
names; every number with a tolerance has to be there.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from dp_accounting import rdp
from scipy.optimize import brentq, minimize, minimize_scalar
from tensorflow_privacy.privacy.dp_query import tree_aggregation

from federated.accounting import account, compose, noise_multiplier_for
from federated.comparison import compare_mechanisms
from federated.factorisation import optimise_blt, optimise_toeplitz, prefix_loss
from federated.mechanisms.blt import BltSumQuery
from federated.mechanisms.toeplitz import BandedToeplitzSumQuery
from federated.mechanisms.tree import build_tree_query
from federated.sensitivity import tree_squared_sensitivity
from federated.strategies import BandedToeplitz, Blt, Gaussian, Strategy, Tree
from federated.zcdp import epsilon_from_rho, epsilon_grid_rdp, rho_from_epsilon
from tests.federated.participation import (
    brute_force_squared_sensitivity,
    list_patterns,
    toeplitz_matrix,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "golden_public.json"
ENTRIES = json.loads(GOLDEN.read_text())["entries"] if GOLDEN.exists() else []
SECTIONS = range(1, 7)
Figures = dict[str, Any]
CHECKERS: dict[str, Callable[[Figures, Figures], Figures]] = {}


def checks(kind: str) -> Callable:
    def register(checker: Callable) -> Callable:
        CHECKERS[kind] = checker
        return checker

    return register


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e["section"] in SECTIONS], ids=lambda entry: entry["id"]
)
def test_entry(entry: Figures) -> None:
    checker = CHECKERS[entry["id"].split("/")[0]]
    compare(checker(entry["inputs"], entry["expected"]), entry["expected"], entry["tolerance"])


@pytest.mark.skipif(not ENTRIES, reason="no golden numbers beside this checkout")
def test_no_entry_is_left_out() -> None:
    counts = [sum(entry["section"] == section for entry in ENTRIES) for section in range(1, 8)]
    assert counts == [16, 8, 47, 25, 10, 1, 24]
    assert {e["id"].split("/")[0] for e in ENTRIES if e["section"] in SECTIONS} == CHECKERS.keys()


def compare(actual: Figures, expected: Figures, tolerance: Figures) -> None:
    """Every expected number that has a tolerance, by name, within it."""
    names = expected.keys() if "all" in tolerance else tolerance.keys() & expected.keys()
    assert names
    for name in names:
        bound = tolerance.get(name, tolerance.get("all"))
        if isinstance(bound, str):
            continue  # a checker asserts what is said in words
        if isinstance(expected[name], dict):
            compare(actual[name], expected[name], {"all": bound})
        elif isinstance(expected[name], str):
            assert actual[name] == expected[name], name
        else:
            assert_within(name, actual[name], expected[name], bound)


def assert_within(name: str, actual: Any, expected: Any, bound: Figures) -> None:
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        for one, other in zip(actual, expected, strict=True):
            compare(one, other, {"all": bound})
        return
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, name
    if "abs_below" in bound:
        low, high = expected - bound["abs_below"], expected + bound["abs_above"]
        assert (low <= actual).all() and (actual <= high).all(), (name, actual, expected)
        return
    slack = bound.get("abs", 0) + bound.get("rel", 0) * np.abs(expected)
    assert (np.abs(actual - expected) <= slack).all(), (name, actual, expected)


# Section 1: epsilon of rho, and back.


def best_order_epsilon(rho: float, delta: float) -> float:
    """The conversion of Renyi orders (Canonne, Kamath & Steinke 2020, proposition 12) at the best real one."""

    def epsilon(log_order: float) -> float:
        order = 1 + math.exp(log_order)
        return rho * order + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)

    return minimize_scalar(epsilon, bounds=(-5, 12), method="bounded", options={"xatol": 1e-9}).fun


def classic_epsilon(rho: float, delta: float) -> float:
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


@checks("zcdp_to_eps")
@checks("published_anchor")
def check_epsilon(inputs: Figures, expected: Figures) -> Figures:
    rho, delta = inputs["rho"], inputs["delta"]
    accountant = rdp.RdpAccountant()
    accountant.compose(account(Gaussian(), (2 * rho) ** -0.5, 1, 1, 1, delta).event())
    figures: Figures = {
        "eps_exact_gaussian": epsilon_from_rho(rho, delta),
        "eps_improved_real_alpha": best_order_epsilon(rho, delta),
        "eps_improved_tfp_orders": epsilon_grid_rdp(rho, delta),
        "eps_improved_dpaccounting_orders": accountant.get_epsilon(delta),
        "eps_classic": classic_epsilon(rho, delta),
    }
    ordered = list(figures.values())
    assert ordered[0] < ordered[1] <= ordered[2] + 1e-9 < ordered[4]
    figures["published_eps"] = figures[expected.get("published_eps_is", "eps_exact_gaussian")]
    return figures


@checks("eps_to_rho")
def check_rho(inputs: Figures, expected: Figures) -> Figures:
    epsilon, delta = inputs["eps"], inputs["delta"]
    return {
        "rho_exact_gaussian": rho_from_epsilon(epsilon, delta),
        "noise_multiplier_exact_gaussian": noise_multiplier_for(epsilon, delta, 1),
        "rho_improved_real_alpha": brentq(
            lambda rho: best_order_epsilon(rho, delta) - epsilon, 1e-6, 10, xtol=1e-12
        ),
        "rho_classic": brentq(
            lambda rho: classic_epsilon(rho, delta) - epsilon, 1e-6, 10, xtol=1e-14
        ),
    }


@checks("delta_of_eps")
def check_delta(inputs: Figures, expected: Figures) -> Figures:
    def excess(log_delta: float) -> float:
        return epsilon_from_rho(inputs["rho"], math.exp(log_delta)) - inputs["eps"]

    return {"delta_exact_gaussian": math.exp(brentq(excess, -60, -1, xtol=1e-12))}


# Section 2: Poisson sampling.


@checks("dpfedavg_poisson")
def check_sampled(inputs: Figures, expected: Figures) -> Figures:
    strategy = Gaussian(sampling_rate=inputs["q"])
    guarantee = account(strategy, inputs["sigma"], inputs["T"], 1, None, inputs["delta"])
    integers = rdp.RdpAccountant(range(2, 257))
    integers.compose(guarantee.event())
    return {
        "eps_rdp_default_orders": guarantee.epsilon_rdp,
        "eps_rdp_integer_orders_2_256": integers.get_epsilon(inputs["delta"]),
        "eps_tight": guarantee.epsilon,
    }


# Section 3: trees.


@checks("tree_single")
def check_tree(inputs: Figures, expected: Figures) -> Figures:
    assert inputs["tfp_min_separation"] == inputs["b"] - 1
    run = (inputs["T"], inputs["b"], inputs["k"], inputs["delta"])
    guarantee = account(Tree(), inputs["sigma"], *run)
    return {
        "sens_sq": guarantee.squared_sensitivity,
        "rho": guarantee.rho,
        "eps_exact_gaussian": guarantee.epsilon,
        "eps_improved_tfp_orders": guarantee.epsilon_rdp,
    }


@checks("tree_restart_once_per_tree")
def check_once_per_tree(inputs: Figures, expected: Figures) -> Figures:
    parts = [
        account(Tree(), inputs["sigma"], steps, 1, 1, inputs["delta"])
        for steps in inputs["steps_list"]
    ]
    total = compose(parts)
    return {
        "sens_sq": sum(part.squared_sensitivity for part in parts),
        "rho": total.rho,
        "eps_exact_gaussian": total.epsilon,
        "eps_improved_tfp_orders": total.epsilon_rdp,
    }


@checks("tree_restart_bk")
def check_restarts(inputs: Figures, expected: Figures) -> Figures:
    segments, participation = inputs["segments"], (inputs["b"], inputs["k"])
    found = tree_squared_sensitivity(segments, *participation)
    strategy = Tree(restart_every=segments[0])
    assert strategy.squared_sensitivity(sum(segments), *participation) == found
    return {"sens_sq": found}


def naive_variances(rounds: int) -> np.ndarray:
    """Each node of the binary decomposition of t adds its own noise: a baseline that nothing here draws."""
    return np.array([float(t.bit_count()) for t in range(1, rounds + 1)])


@checks("tree_prefix_variance")
def check_tree_variances(inputs: Figures, expected: Figures) -> Figures:
    figures: Figures = {}
    variances = {
        "honaker": Tree().prefix_variances(inputs["n"]),
        "naive": naive_variances(inputs["n"]),
    }
    for name, variance in variances.items():
        figures[f"{name}_max_var"] = variance.max()
        figures[f"{name}_mean_var"] = variance.mean()
        figures[f"{name}_var_by_step"] = variance
    return figures


class Nodes(tree_aggregation.ValueGenerator):
    """Gives out the rows of a matrix as the noise of a tree's nodes."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = tf.constant(rows)

    def initialize(self):
        return tf.constant(0)

    def next(self, state):
        return self._rows[tf.minimum(state, len(self._rows) - 1)], state + 1


@checks("tree_noise_stream")
def check_tree_stream(inputs: Figures, expected: Figures) -> Figures:
    """The aggregator of our query, with each node's name in place of its noise, against Honaker's weights."""
    nodes = [tuple(node) for node in inputs["node_order_level_index"]]
    query: Any = build_tree_query([tf.TensorSpec([])], 1.0, 1.0, 0, Tree())
    aggregator = type(query._tree_aggregator)(Nodes(np.eye(len(nodes), dtype=np.float32)))
    state, honaker = aggregator.init_state(), np.zeros((inputs["n"], len(nodes)))
    naive = np.zeros_like(honaker)
    for t in range(1, inputs["n"] + 1):
        row, state = aggregator.get_cumsum_and_update(state)
        for d in (d for d in range(5) if t >> d & 1):
            root = (t >> d) - 1
            naive[t - 1, nodes.index((d, root))] = 1
            for level in range(d + 1):
                for index in range(root << d - level, (root + 1) << d - level):
                    honaker[t - 1, nodes.index((level, index))] = 2.0 ** (level - d) / (2 - 2.0**-d)
        np.testing.assert_allclose(
            row, honaker[t - 1], atol=1e-7
        )  # TensorFlow Privacy's are float32
    assert (honaker**2).sum(1) == pytest.approx(Tree().prefix_variances(inputs["n"]), abs=1e-12)
    return {
        "honaker_prefix_noise": honaker @ inputs["z"],
        "naive_prefix_noise": naive @ inputs["z"],
        "honaker_B": honaker,
    }


# Section 4: BLT and banded Toeplitz.


def sqrt_toeplitz(rounds: int) -> BandedToeplitz:
    """The root of the lower-triangular ones: 1, 1/2, 3/8, ..."""
    steps = np.arange(1, rounds)
    return BandedToeplitz((1.0, *np.cumprod(1 - 1 / (2 * steps))))


def evaluate(sensitivity: float, variances: np.ndarray) -> Figures:
    return {
        "sens_sq": sensitivity,
        "max_err_sq": variances.max(),
        "mean_err_sq": variances.mean(),
        "max_loss": math.sqrt(sensitivity * variances.max()),
        "mean_loss": math.sqrt(sensitivity * variances.mean()),
    }


def evaluate_baselines(n: int, b: int, k: int) -> dict[str, Figures]:
    def evaluated(strategy: Strategy) -> Figures:
        return evaluate(strategy.squared_sensitivity(n, b, k), strategy.prefix_variances(n))

    tree = Tree().squared_sensitivity(n, b, k)
    return {
        "independent": evaluated(Gaussian()),
        "tree_honaker": evaluated(Tree()),
        "tree_naive": evaluate(tree, naive_variances(n)),
        "sqrt_toeplitz": evaluated(sqrt_toeplitz(n)),
    }


@checks("mf_baselines")
def check_baselines(inputs: Figures, expected: Figures) -> Figures:
    return evaluate_baselines(inputs["n"], inputs["b"], inputs["k"])


def check_factorisation(
    inputs: Figures, expected: Figures, given: Strategy, optimised: Strategy
) -> Figures:
    """Figures of the given parameters; the optimised ones are within 1 % of the best known, and beat the tree."""
    run = inputs["n"], inputs["b"], inputs["k"]
    error = inputs["optimised_for"].split()[0]
    loss = prefix_loss(optimised, *run, error)
    assert 0.999 * expected["best_known_loss"] <= loss <= 1.01 * expected["best_known_loss"]
    figures = evaluate(given.squared_sensitivity(*run), given.prefix_variances(run[0]))
    baselines = evaluate_baselines(*run)
    assert loss < baselines["tree_honaker"][f"{error}_loss"]
    for name, baseline in baselines.items():
        ratio = figures[f"{error}_loss"] / baseline[f"{error}_loss"]
        figures[f"loss_ratio_vs_{name}"] = ratio
    return {"evaluate": figures}


@checks("blt")
def check_blt(inputs: Figures, expected: Figures) -> Figures:
    run = inputs["n"], inputs["b"], inputs["k"]
    error = inputs["optimised_for"].split()[0]
    given = Blt(inputs["theta_buf_decay"], inputs["omega_output_scale"])
    optimised = optimise_blt(*run, inputs["buffers"], error)
    figures = check_factorisation(inputs, expected, given, optimised)
    assert prefix_loss(given, *run, error) == pytest.approx(
        expected["loss_of_these_parameters"], rel=1e-9
    )
    own = expected["own_multistart"]
    assert prefix_loss(Blt(own["theta"], own["omega"]), *run, error) == pytest.approx(
        own["loss"], rel=1e-6
    )
    decays, scales = given.inverse()
    expected_decays = expected["evaluate"].pop("inv_theta")
    expected_scales = expected["evaluate"].pop("inv_omega")
    gaps = np.abs(np.diff(sorted(given.decays)))
    if len(gaps) and gaps.min() > 1e-3:  # the entry says to skip buffers that nearly coincide
        np.testing.assert_allclose(decays, expected_decays, atol=1e-5)
        np.testing.assert_allclose(scales, expected_scales, atol=1e-5)
    return figures


@checks("banded_toeplitz")
def check_banded_toeplitz(inputs: Figures, expected: Figures) -> Figures:
    run = inputs["n"], inputs["b"], inputs["k"]
    optimised = optimise_toeplitz(*run, inputs["bands"], "mean")
    return check_factorisation(inputs, expected, BandedToeplitz(inputs["coef"]), optimised)


def optimise_banded_matrix(n: int, bands: int) -> np.ndarray:
    """Lower-triangular C with that many bands and columns of norm 1, of least mean squared prefix error.

    Not a mechanism of keyfed: what a banded Toeplitz matrix gives away by being Toeplitz. Descent on the error
    tr(A^T A X^-1) / n of X = C^T C, through the normalisation.
    """
    ones = np.tril(np.ones((n, n)))
    gram = ones.T @ ones
    places = np.subtract.outer(np.arange(n), np.arange(n))
    mask = (places >= 0) & (places < bands)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        raw = np.zeros((n, n))
        raw[mask] = free
        norms = np.linalg.norm(raw, axis=0)
        unit = raw / norms
        inverse = np.linalg.inv(unit)
        weighted = inverse.T @ gram @ inverse
        gradient = -2 * weighted @ inverse.T / n
        gradient = (gradient - unit * (gradient * unit).sum(0)) / norms
        return float(np.trace(weighted) / n), gradient[mask]

    coefficients = optimise_toeplitz(n, n, 1, bands, "mean").coefficients
    start = toeplitz_matrix(np.array(coefficients), n)[mask]
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    matrix = np.zeros((n, n))
    matrix[mask] = found.x
    matrix /= np.linalg.norm(matrix, axis=0)
    return matrix * np.sign(np.diag(matrix))


@checks("banded_mf_optimal")
def check_banded_matrix(inputs: Figures, expected: Figures) -> Figures:
    n, bands = inputs["n"], inputs["bands"]
    matrix = optimise_banded_matrix(n, bands)
    errors = (np.tril(np.ones((n, n))) @ np.linalg.inv(matrix)) ** 2
    toeplitz = optimise_toeplitz(n, n, 1, bands, "mean")
    return {
        "mean_err_sq": errors.sum() / n,
        "max_err_sq_of_that_C": errors.sum(1).max(),
        "toeplitz_mean_err_sq": toeplitz.prefix_variances(n).mean(),
        "C": matrix,
    }


# Section 5: small matrices and streams.


def build_strategy(inputs: Figures) -> Strategy:
    if inputs["kind"] == "BLT":
        return Blt(inputs["theta"], inputs["omega"])
    return BandedToeplitz(inputs["coef"])


@checks("small_matrix")
def check_small_matrix(inputs: Figures, expected: Figures) -> Figures:
    n, strategy = inputs["n"], build_strategy(inputs)
    assert isinstance(strategy, Blt | BandedToeplitz)
    column = strategy.first_column(n)
    matrix = toeplitz_matrix(column, n)
    is_toeplitz = inputs["kind"] != "column-normalised banded"
    if not is_toeplitz:  # no strategy here: it checks the definitions that the tests measure by
        matrix = matrix / np.linalg.norm(matrix, axis=0)
    inverse = np.linalg.inv(matrix)
    prefix = np.tril(np.ones((n, n))) @ inverse
    errors = (prefix**2).sum(1)
    if is_toeplitz:
        assert strategy.prefix_variances(n) == pytest.approx(errors, abs=1e-9)
    sensitivities = []
    for case in expected["sensitivities"]:
        b, k = case["b"], case["k"]
        found = brute_force_squared_sensitivity(matrix, b, k)
        if is_toeplitz:
            found = check_sensitivity(strategy, n, b, k, found)
        sensitivities.append({"b": b, "k": k, "sens_sq": found})
        patterns = list_patterns(n, b, k)
        sensitivities[-1]["patterns"] = sum(len(pattern) for pattern in patterns)
    for case in expected[
        "sensitivities"
    ]:  # the other figures are of the shortcuts that would be wrong
        for name in case.keys() - {"b", "k", "sens_sq", "patterns"}:
            del case[name]
    figures: Figures = {
        "C": matrix,
        "C_inv": inverse,
        "B": prefix,
        "row_err_sq": errors,
        "max_err_sq": errors.max(),
        "mean_err_sq": errors.mean(),
        "single_part_sens": math.sqrt(brute_force_squared_sensitivity(matrix, n, 1)),
        "sensitivities": sensitivities,
    }
    if isinstance(strategy, Blt):
        decays, scales = strategy.inverse()
        figures |= {
            "toeplitz_coef": column,
            "inv_toeplitz_coef": [1, *(scales @ decays[:, None] ** np.arange(n - 1))],
            "inv_theta": decays,
            "inv_omega": scales,
            "pillutla_score": float(np.sum(np.array(strategy.scales) / strategy.decays)),
        }
    return figures


def check_sensitivity(strategy: Strategy, n: int, b: int, k: int, exact: float) -> float:
    """Ours, which is exact or refused; refused only where it has to be."""
    assert isinstance(strategy, Blt | BandedToeplitz)
    column = strategy.first_column(n)
    is_ordered = (column >= 0).all() and (np.diff(column) <= 0).all()
    if is_ordered or len(column) <= b or k == 1:
        return strategy.squared_sensitivity(n, b, k)
    with pytest.raises(ValueError, match="is not non-negative and non-increasing"):
        strategy.squared_sensitivity(n, b, k)
    return exact


@checks("noise_stream")
def check_stream(inputs: Figures, expected: Figures) -> Figures:
    """The queries' own recursion, in float64, and in float32 to the entry's tolerance for it."""
    strategy = build_strategy(inputs)
    streams = [stream(strategy, np.array(inputs["z"], dtype)) for dtype in (np.float64, np.float32)]
    np.testing.assert_allclose(streams[1], expected["correlated_noise"], atol=2e-5)
    return {"correlated_noise": streams[0], "prefix_sum_noise": np.cumsum(streams[0], 0)}


def stream(strategy: Strategy, drawn: np.ndarray) -> np.ndarray:
    specs = [tf.TensorSpec(drawn.shape[1:], tf.as_dtype(drawn.dtype))]
    query = (
        BltSumQuery(specs, 1.0, 1.0, 0, strategy)
        if isinstance(strategy, Blt)
        else BandedToeplitzSumQuery(specs, 1.0, 1.0, 0, strategy)
    )
    correlation, noise = query.initial_correlation(), []
    for z in drawn:
        (x,), correlation = query.correlate([tf.constant(z)], correlation)
        noise.append(x.numpy())
    return np.array(noise)


# Section 6: cost.


@checks("cost")
def check_cost(inputs: Figures, expected: Figures) -> Figures:
    """The state that the mechanisms keep, counted, and the table's column for it."""
    d, n = 30, 20
    specs = [tf.TensorSpec([5, 4]), tf.TensorSpec([10])]
    blt = BltSumQuery(specs, 1.0, 1.0, 0, Blt((0.9, 0.8, 0.5), (0.1, 0.1, 0.1)))
    banded = BandedToeplitzSumQuery(specs, 1.0, 1.0, 0, BandedToeplitz((1.0, 0.5, 0.25, 0.1)))
    formulas = expected["state_floats"]
    assert (formulas["blt"], formulas["banded_toeplitz"]) == ("m*d", "(h-1)*d")
    for query, kept in ((blt, 3 * d), (banded, 3 * d)):
        state = query.initial_global_state()
        for _ in range(n):
            _, state, _ = query.get_noised_result([tf.zeros(s.shape) for s in specs], state)
            assert sum(int(tf.size(part)) for part in tf.nest.flatten(state.correlation)) == kept

    assert formulas["tree_naive_or_honaker_max"] == "(floor(log2 n)+1)*d"
    tree: Any = build_tree_query(specs, 1.0, 1.0, 0, Tree())
    state, most = tree.initial_global_state(), 0
    for _ in range(n):
        _, state, _ = tree.get_noised_result([tf.zeros(s.shape) for s in specs], state)
        buffers = tf.nest.flatten(state.tree_state.level_buffer)
        most = max(most, sum(int(tf.size(part)) for part in buffers))
    assert 0 < most <= (math.floor(math.log2(n)) + 1) * d

    example = expected["example_MB_float32"]
    megabytes = 4 * example["d"] / 1e6
    for bands in (32, 342):
        rows = {row.mechanism: row for row in compare_mechanisms(2000, 342, 6, 0.5, bands)}
        kept_mb = rows["toeplitz"].models_kept * megabytes
        assert kept_mb == pytest.approx(example[f"banded_h{bands}"], rel=1e-3)
    assert rows["blt"].models_kept * megabytes == pytest.approx(example["blt_m4"], rel=1e-3)
    assert rows["tree"].models_kept * megabytes == pytest.approx(example["tree_n2000"], rel=1e-3)
    return expected
