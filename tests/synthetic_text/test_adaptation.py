"""Adaptation moves the pool towards the devices, by the formulas, and reads nothing of them but the DP histogram."""

import ast
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from device_runtime.features import DpHistogram, FeatureSpace
from synthetic_text.adaptation import (
    LEAST_RATIO,
    POOL_SMOOTHING,
    RELATIVE_SPREAD,
    effective_sample_size,
    estimate_log_ratios,
    fit_topics,
    resample,
    score_weights,
    weigh_by_histogram,
)
from tests.sources import SECRET_WORD, find_package, write_population

ROOT = Path(__file__).parents[2]
SPACE = FeatureSpace(512, 512, np.zeros((0, 512), np.float32))


def build_histogram(
    texts: Sequence[str], noise: float, space: FeatureSpace = SPACE, seed: int = 1
) -> DpHistogram:
    """Counts of the texts with noise of that standard deviation, at clip norm 1."""
    counts = np.bincount(space.extract(texts).ids, minlength=space.buckets)
    noised = counts + np.random.default_rng(seed).normal(0, noise, space.buckets)
    return DpHistogram(noised, 1.0, noise, 100, 1 / (2 * noise**2), space.version)


def write_messages(words: Sequence[str], count: int, seed: int, length: int = 6) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, length)) for _ in range(count)]


HOME = ["mum", "dinner", "bus", "late", "home", "ok", "the", "to"]
WORK = ["report", "meeting", "budget", "client", "agenda", "ok", "the", "to"]
POOL = [*write_messages(HOME, 300, 1), *write_messages(WORK, 700, 2)]


def test_without_noise_the_weights_are_likelihood_ratios() -> None:
    """As noise vanishes: sum over features of log target share / pool share, each less the pool's mean of it."""
    target = write_messages(HOME, 4000, 3)
    weights = weigh_by_histogram(POOL, SPACE, build_histogram(target, 1e-6), limit=100)
    ids = [SPACE.extract([text]).ids.tolist() for text in [*POOL, *target]]
    expected = np.zeros(len(POOL))
    for segment in (range(512), range(512, 1024)):
        pool, counts = ({i: 0.0 for i in segment} for _ in range(2))
        for place, own in enumerate(ids):
            for i in own:
                if i in segment:
                    (pool if place < len(POOL) else counts)[i] += 1
        pool = {i: count + POOL_SMOOTHING for i, count in pool.items()}
        share = {i: count / sum(pool.values()) for i, count in pool.items()}
        least = LEAST_RATIO * sum(counts.values())
        estimate = {i: max(counts[i], least * share[i]) for i in segment}
        total = sum(estimate.values())
        ratio = {i: math.log(estimate[i] / total / share[i]) for i in segment}
        mean = sum(share[i] * ratio[i] for i in segment)
        for place, own in enumerate(ids[: len(POOL)]):
            expected[place] += sum(ratio[i] - mean for i in own if i in segment)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-2)
    assert np.median(weights[:300]) > weights[300:].max()


@pytest.mark.parametrize("noise", [1.0, 10.0, 40.0])
def test_a_noisy_bucket_is_shrunk_by_its_posterior(noise: float) -> None:
    """Against the posterior mean of a Gaussian prior and Gaussian noise, integrated numerically."""
    pool = np.array([500, 300, 150, 49])
    histogram = DpHistogram(
        np.array([300.0, 420.0, 100.0, 180.0]), 1.0, noise, 9, 1 / (2 * noise**2), "v"
    )
    ratios = estimate_log_ratios(histogram, pool, [slice(0, 4)])
    shares = (pool + POOL_SMOOTHING) / (pool + POOL_SMOOTHING).sum()
    grid = np.linspace(-3000, 4000, 700_001)
    estimate = []
    for count, share in zip(histogram.counts, shares, strict=True):
        mean = 1000 * share
        log_posterior = -((grid - mean) ** 2) / (2 * (RELATIVE_SPREAD * mean) ** 2)
        log_posterior -= (count - grid) ** 2 / (2 * noise**2)
        posterior = np.exp(log_posterior - log_posterior.max())
        estimate.append((posterior * grid).sum() / posterior.sum())
    expected = np.log(np.array(estimate) / sum(estimate) / shares)
    np.testing.assert_allclose(ratios, expected - expected @ shares, atol=1e-4)
    assert ratios @ shares == pytest.approx(0, abs=1e-12)


def test_adaptation_raises_the_share_of_what_devices_type_and_noise_flattens_it() -> None:
    texts = write_messages(HOME, 2000, 3)
    shares, sizes = [], []
    for noise in (1.0, 60.0, 100.0):
        histogram = build_histogram(texts, noise)
        chosen = resample(weigh_by_histogram(POOL, SPACE, histogram), 300, np.random.default_rng(1))
        shares.append((chosen < 300).mean())  # 0.3 in the pool
        sizes.append(
            effective_sample_size(weigh_by_histogram(POOL, SPACE, histogram, temperature=20))
        )
    assert 0.9 > shares[0] > 0.8 and min(shares) > 0.6
    assert sizes == sorted(sizes) and sizes[0] < 0.75 * sizes[-1]


def test_lost_in_noise_is_an_error_and_one_lost_segment_is_left_out() -> None:
    with pytest.raises(ValueError, match="100 devices are lost in noise of 1e"):
        weigh_by_histogram(POOL, SPACE, build_histogram(POOL, 1e5))
    histogram = build_histogram(write_messages(HOME, 500, 3), 1.0)
    histogram.counts[SPACE.segments["pairs"]] = -1.0  # their sum can be negative
    words = FeatureSpace(512, 0, SPACE.topics)
    alone = DpHistogram(histogram.counts[:512], 1.0, 1.0, 100, 0.5, words.version)
    np.testing.assert_allclose(
        weigh_by_histogram(POOL, SPACE, histogram), weigh_by_histogram(POOL, words, alone)
    )


def test_length_alone_earns_no_weight() -> None:
    """Messages of the pool's own words, long and short: their mean weights do not differ by length."""
    pool = [*write_messages(WORK, 2000, 5, length=2), *write_messages(WORK, 2000, 6, length=12)]
    words = FeatureSpace(512, 0, SPACE.topics)
    histogram = build_histogram(write_messages([*HOME, *WORK], 3000, 7), 1.0, words)
    weights = weigh_by_histogram(pool, words, histogram, limit=100)
    assert weights.std() > 0.5
    assert weights[:2000].mean() == pytest.approx(0, abs=5 * weights[:2000].std() / 2000**0.5)
    assert weights[2000:].mean() == pytest.approx(0, abs=5 * weights[2000:].std() / 2000**0.5)


def test_temperature_and_limit() -> None:
    histogram = build_histogram(write_messages(HOME, 500, 3), 1.0)
    full = weigh_by_histogram(POOL, SPACE, histogram, limit=1e6)
    assert np.abs(full).max() > 3
    np.testing.assert_allclose(
        weigh_by_histogram(POOL, SPACE, histogram, temperature=2.0, limit=1.0),
        np.clip(full / 2, -1, 1),
    )
    for arguments in ({"temperature": 0.0}, {"limit": math.nan}):
        with pytest.raises(ValueError, match=f"adaptation: {next(iter(arguments))} is"):
            weigh_by_histogram(POOL, SPACE, histogram, **arguments)


def test_a_histogram_of_other_features_is_refused() -> None:
    histogram = build_histogram(POOL, 1.0, FeatureSpace(512, 511, SPACE.topics))
    with pytest.raises(ValueError, match="counts features 'keyfed-features/1 512\\+511"):
        weigh_by_histogram(POOL, SPACE, histogram)


def test_topics_find_what_documents_are_about() -> None:
    """Documents of two vocabularies with common words: clusters of messages match the vocabularies."""
    pool = [*write_messages(HOME, 60, 1, 60), *write_messages(WORK, 60, 2, 60)]
    topics = fit_topics(pool, 512, 2, seed=1)
    assert topics.shape == (2, 512) and topics.dtype == np.float32
    assert np.array_equal(topics, fit_topics(pool, 512, 2, seed=1))
    space = FeatureSpace(512, 0, topics)
    home, work = (
        [ids[-1] for text in texts if (ids := space.extract([text]).ids).size and ids[-1] >= 512]
        for texts in (["mum is late home", "dinner ok"], ["the budget", "to the client meeting"])
    )
    assert len(home) == len(work) == 2
    assert len(set(home)) == len(set(work)) == 1 and home != work
    with pytest.raises(ValueError, match="topics: 3 from 2 documents"):
        fit_topics(["a", "b"], 512, 3, seed=1)


def test_topics_alone_tell_devices_from_the_pool() -> None:
    topics = fit_topics(
        [*write_messages(HOME, 60, 1, 60), *write_messages(WORK, 60, 2, 60)], 512, 2, 1
    )
    space = FeatureSpace(512, 512, topics)
    histogram = build_histogram(write_messages(HOME, 500, 3), 1.0, space)
    histogram.counts[:1024] = 0  # words and pairs say nothing
    weights = weigh_by_histogram(POOL, space, histogram)
    assert weights[:300].mean() > 0.5 > -0.1 > weights[300:].mean()


def test_gumbel_keys_draw_one_after_the_other_by_weight() -> None:
    """Frequencies of ordered-away pairs against the sum over both orders of sequential draws."""
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    rng = np.random.default_rng(1)
    draws = 20_000
    counts = dict.fromkeys(itertools.combinations(range(4), 2), 0)
    for _ in range(draws):
        first, second = resample(np.log(weights) + 7, 2, rng)
        counts[first, second] += 1
    for (a, b), count in counts.items():
        p = weights[a] * weights[b] * (1 / (1 - weights[a]) + 1 / (1 - weights[b]))
        assert count / draws == pytest.approx(p, abs=5 * (p * (1 - p) / draws) ** 0.5)


def test_resampling_keeps_order_and_bounds() -> None:
    weights = np.linspace(-1, 1, 50)
    rng = np.random.default_rng(1)
    assert resample(weights, 50, rng).tolist() == list(range(50))
    chosen = resample(weights, 20, rng)
    assert len(set(chosen.tolist())) == 20 and (np.diff(chosen) > 0).all()
    assert resample(weights, 0, rng).tolist() == []
    for n in (51, -1):
        with pytest.raises(ValueError, match=f"resample: {n} of 50 messages"):
            resample(weights, n, rng)


def test_effective_sample_size() -> None:
    assert effective_sample_size(np.full(7, -900.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([800.0, 0, 0])) == pytest.approx(1)
    weights = np.array([1.0, 2, 3, 4])
    assert effective_sample_size(np.log(weights)) == pytest.approx(100 / 30)


def test_weights_from_scores() -> None:
    federated, pretrained = np.array([-3.0, -2.0, -4.0, -3.0]), np.array([-4.0, -2.0, -4.0, -2.6])
    gain = np.array([1.0, 0, 0, -0.4])
    np.testing.assert_allclose(
        score_weights(federated, pretrained, temperature=0.5, limit=1.5),
        np.clip((gain - 0.15) / 0.5, -1.5, 1.5),
    )
    with pytest.raises(ValueError, match=r"scores: \(4,\) federated and \(3,\) pre-trained"):
        score_weights(federated, pretrained[:3])
    with pytest.raises(ValueError, match="not finite"):
        score_weights(federated * math.nan, pretrained)


PRIVATE = {"federated", "eval", "scripts", "tests", "chitchat_dataset"}
OWN = {path.parent.name for path in ROOT.glob("*/__init__.py")}


def list_imports(path: Path) -> set[str]:
    """Full names of every module a file imports anywhere, in functions too; `from a import b` may be module a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def list_closure(files: Sequence[Path]) -> tuple[set[Path], set[str]]:
    """The files and all of ours they import, directly or not; and every module name in them."""
    todo, seen, names = list(files), set[Path](), set[str]()
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        imported = list_imports(file)
        names |= imported
        for name in imported:
            if name.partition(".")[0] in OWN:
                place = ROOT.joinpath(*name.split("."))
                todo += [
                    p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()
                ]
    return seen, names


def test_nothing_private_is_in_reach_of_any_module_of_synthesis() -> None:
    """Over the source, so that no configuration and no branch can matter."""
    files, names = list_closure(sorted((ROOT / "synthetic_text").rglob("*.py")))
    assert ROOT / "device_runtime" / "words.py" in files  # the closure was followed
    assert {name.partition(".")[0] for name in names}.isdisjoint(PRIVATE)
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        strings = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        # Neither by a name in a string, for importlib, importlib.resources or a path below our own root ...
        roots = {text.partition(".")[0].partition("/")[0] for text in strings}
        assert roots.isdisjoint(PRIVATE - {"eval", "tests", "scripts"}), file
        # ... nor by code made at run time.
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert calls.isdisjoint({"eval", "exec", "__import__", "compile"}), file


def test_the_check_of_imports_sees_what_it_must_not() -> None:
    _, names = list_closure([ROOT / "scripts" / "pipeline.py"])
    assert {"federated", "eval"} <= {name.partition(".")[0] for name in names}
    _, names = list_closure([ROOT / "federated" / "population.py"])
    assert "federated" not in {name.partition(".")[0] for name in names}


# Runs in a process of its own, where nothing of the tests is imported: the private rooms and package cannot be found,
# and the hook sees every file that is opened and every way out of the process.
WATCHED = """
import importlib, json, pkgutil, sys
from pathlib import Path

PRIVATE = {"federated", "eval", "scripts", "tests", "chitchat_dataset"}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in PRIVATE:
            raise ModuleNotFoundError(f"{name} is private")

opened, escapes = [], []

def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir"):
        opened.append(str(arguments[0]))
    elif event in ("subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system", "socket.connect"):
        escapes.append(f"{event} {arguments[0] if arguments else ''}")

sys.meta_path.insert(0, Refusal())
sys.addaudithook(watch)

import synthetic_text

modules = [module.name for module in pkgutil.iter_modules(synthetic_text.__path__)]
for name in modules:
    importlib.import_module(f"synthetic_text.{name}")

import numpy as np
from device_runtime.features import DpHistogram, FeatureSpace
from synthetic_text.adaptation import resample, weigh_by_histogram

folder = Path(sys.argv[1])
space = FeatureSpace.load(folder / "features.npz")
histogram = DpHistogram.load(folder / "histogram.npz")
weights = weigh_by_histogram(json.loads(sys.argv[2]), space, histogram)
chosen = resample(weights, 500, np.random.default_rng(1))
facts = {
    "modules": modules,
    "opened": opened,
    "escapes": escapes,
    "imported": sorted(PRIVATE.intersection(name.partition(".")[0] for name in sys.modules)),
    "chosen": chosen.tolist(),
}
print(json.dumps(facts))
"""


def test_adaptation_runs_on_the_histogram_file_and_nothing_else_of_the_devices(
    tmp_path: Path,
) -> None:
    population = write_population(tmp_path / "population.jsonl", users=20, messages=40)
    devices: dict[str, list[str]] = {}
    for line in population.read_text("utf-8").splitlines():
        record = json.loads(line)
        devices.setdefault(record["user"], []).append(record["text"])
    space = FeatureSpace(256, 256, np.zeros((0, 256), np.float32))
    counts = [
        np.bincount(space.extract(messages).ids, minlength=512) for messages in devices.values()
    ]
    total = sum(count / np.linalg.norm(count) for count in counts)
    noise = np.random.default_rng(1).normal(0, 0.2, 512)
    space.save(tmp_path / "features.npz")
    DpHistogram(total + noise, 1.0, 0.2, 20, 12.5, space.version).save(tmp_path / "histogram.npz")
    for name in ("features.npz", "histogram.npz"):
        assert SECRET_WORD.encode() not in (tmp_path / name).read_bytes()

    command = [sys.executable, "-c", WATCHED, str(tmp_path), json.dumps(POOL)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    opened = {Path(name) for name in facts["opened"] if not name.isdigit()}
    assert {"arms", "adaptation", "generation", "conversion", "typist"} <= set(facts["modules"])
    # NumPy's test helpers, which SciPy imports, ask `lscpu` what processor this is.
    assert set(facts["escapes"]) <= {"subprocess.Popen lscpu"}
    assert facts["imported"] == []
    assert len(facts["chosen"]) == 500
    assert {path.name for path in opened if path.is_relative_to(tmp_path)} == {
        "features.npz",
        "histogram.npz",
    }
    chats = find_package("chitchat_dataset")
    assert not any(path.is_relative_to(chats) for path in opened)
    rooms = {
        path.relative_to(ROOT).parts[0]
        for path in opened
        if path.is_relative_to(ROOT) and path != ROOT and not path.is_relative_to(sys.prefix)
    }
    assert rooms <= {"synthetic_text", "device_runtime", "model", "pyproject.toml"}

    (tmp_path / "histogram.npz").unlink()
    without = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert without.returncode != 0 and "histogram.npz: cannot be read" in without.stderr
