"""Features are counted as defined, the same everywhere, and no histogram without noise exists."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from device_runtime.features import DpHistogram, FeatureSpace
from device_runtime.words import split_words

TEXTS = ["See you at 10:30, ok?", "", "ok ok ok", "I don't know... 😂", "!!", "see YOU"]


def build_space(words: int = 50, pairs: int = 70, topics: int = 3) -> FeatureSpace:
    random = np.random.default_rng(4)
    return FeatureSpace(words, pairs, random.normal(size=(topics, words)).astype(np.float32))


def bucket(text: str, buckets: int) -> int:
    return int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16) % buckets


def test_features_are_words_pairs_and_a_topic() -> None:
    space = build_space()
    features = space.extract(TEXTS)
    assert len(features) == len(TEXTS)
    without_topic = 0
    for message, text in enumerate(TEXTS):
        words = split_words(text)
        expected = Counter(bucket(word, 50) for word in words)
        expected += Counter(
            50 + bucket(f"{before} {word}", 70)
            for before, word in zip(["", *words[:-1]], words, strict=False)
        )
        scores = [sum(float(row[bucket(word, 50)]) for word in words) for row in space.topics]
        if max(scores) > 0:
            expected[120 + int(np.argmax(scores))] += 1
        else:
            without_topic += 1
        ids = features.ids[features.offsets[message] : features.offsets[message + 1]]
        assert Counter(ids.tolist()) == expected
    assert 1 <= without_topic < len(TEXTS) - 1  # the empty message, and not all


def test_segments_cover_all_buckets() -> None:
    space = build_space()
    assert space.buckets == 123
    assert [*np.r_[tuple(space.segments.values())]] == list(range(123))
    ids = build_space(pairs=0, topics=0).extract(TEXTS).ids
    assert ids.max() < 50 and len(ids) == sum(len(split_words(text)) for text in TEXTS)


def test_sums_by_message_equal_a_plain_loop() -> None:
    features = build_space().extract(TEXTS)
    values = np.random.default_rng(1).normal(size=123)
    expected = [
        sum(values[i] for i in features.ids[start:end])
        for start, end in zip(features.offsets, features.offsets[1:], strict=False)
    ]
    np.testing.assert_allclose(features.sum_by_message(values), expected, atol=1e-12)


def test_another_process_counts_the_same() -> None:
    """Python salts its own hash in every process; ours must not depend on that."""
    code = (
        "import numpy, sys, json\n"
        "from device_runtime.features import FeatureSpace\n"
        "space = FeatureSpace(50, 70, numpy.zeros((0, 50), numpy.float32))\n"
        "print(space.version, *space.extract(json.loads(sys.argv[1])).ids, sep=';')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    space = build_space(topics=0)
    assert done.stdout.strip() == ";".join(map(str, [space.version, *space.extract(TEXTS).ids]))


def test_a_space_survives_its_file(tmp_path: Path) -> None:
    space = build_space()
    space.save(tmp_path / "features.npz")
    read = FeatureSpace.load(tmp_path / "features.npz")
    assert read.version == space.version
    assert np.array_equal(read.extract(TEXTS).ids, space.extract(TEXTS).ids)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]


def test_versions_tell_spaces_apart() -> None:
    spaces = [build_space(), build_space(51), build_space(pairs=71), build_space(topics=2)]
    other = FeatureSpace(50, 70, build_space().topics + 1)
    assert len({space.version for space in [*spaces, other]}) == 5
    assert build_space().version == spaces[0].version


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, np.zeros((0, 0))), "0 word and 1 pair buckets"),
        ((5, -1, np.zeros((0, 5))), "5 word and -1 pair buckets"),
        ((5, 5, np.zeros((2, 4))), r"topics have shape \(2, 4\), must have \(K, 5\)"),
    ],
)
def test_space_names_what_is_wrong(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSpace(*arguments)


FACTS = {"clip_norm": 1.0, "noise_multiplier": 2.0, "devices": 3, "rho": 0.125, "features": "v"}


def test_a_histogram_survives_its_file(tmp_path: Path) -> None:
    histogram = DpHistogram(np.array([-1.5, 0.25]), **FACTS)
    histogram.save(tmp_path / "histogram.npz")
    read = DpHistogram.load(tmp_path / "histogram.npz")
    assert np.array_equal(read.counts, histogram.counts)
    assert {name: getattr(read, name) for name in FACTS} == FACTS
    assert read.noise_stddev == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["histogram.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": 0.0, "rho": float("inf")}, "noise_multiplier is 0.0"),
        ({"noise_multiplier": -2.0}, "noise_multiplier is -2.0"),
        ({"rho": float("inf")}, "rho is inf"),
        ({"rho": 0.05}, "rho is 0.05, and noise_multiplier 2.0 gives 0.125"),
        ({"clip_norm": float("nan")}, "clip_norm is nan"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"devices": 0}, "devices is 0"),
        ({"counts": np.array([[1.0]])}, "one row of finite numbers"),
        ({"counts": np.array([np.nan])}, "one row of finite numbers"),
    ],
)
def test_no_histogram_without_noise_or_with_a_forged_price(
    change, message: str, tmp_path: Path
) -> None:
    """Neither as a value nor, past the class, as a file."""
    fields = {"counts": np.array([1.0]), **FACTS} | change
    with pytest.raises(ValueError, match=message):
        DpHistogram(**fields)
    path = tmp_path / "forged.npz"
    facts = {"schema": "keyfed-dp-histogram/1", **fields}
    counts = facts.pop("counts")
    np.savez(path, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), counts=counts)
    with pytest.raises(ValueError, match=f"forged.npz: no histogram .*{message}"):
        DpHistogram.load(path)


def test_what_is_no_file_of_ours_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing.npz: cannot be read \(No such file"):
        DpHistogram.load(tmp_path / "missing.npz")
    (tmp_path / "noise.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"noise.npz: not readable"):
        DpHistogram.load(tmp_path / "noise.npz")
    build_space().save(tmp_path / "space.npz")
    with pytest.raises(ValueError, match=r"space.npz: not readable"):
        DpHistogram.load(tmp_path / "space.npz")
    DpHistogram(np.array([1.0]), **FACTS).save(tmp_path / "histogram.npz")
    whole = (tmp_path / "histogram.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.npz: not readable"):
        DpHistogram.load(tmp_path / "cut.npz")
    facts = np.frombuffer(b'{"schema": "other/1"}', np.uint8)
    np.savez(tmp_path / "other.npz", facts=facts, counts=np.zeros(1))
    with pytest.raises(ValueError, match=r"other.npz: not of schema 'keyfed-dp-histogram/1'"):
        DpHistogram.load(tmp_path / "other.npz")
