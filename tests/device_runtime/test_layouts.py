import json
from math import erf, hypot, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.layouts import KEYBOARDS, load_layout
from synthetic_text.slips import FINGER_SIGMA_MM, SPEED_SIGMA_MM

LAYOUTS = sorted(path.stem for path in KEYBOARDS.glob("*.json"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_hold_the_latin_alphabet_at_their_places(name):
    layout = load_layout(name)
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(layout.keys)
    assert {layout.keys[layout.key_index(c)] for c in "éÀñç"} <= set("eanc")
    table = json.loads((KEYBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    assert table["name"] == name
    assert "".join(row["keys"] for row in table["rows"]) == layout.keys


def test_layouts_differ_where_people_expect_it():
    neighbours = {
        name: {
            c for c in layout.keys if layout.adjacent[layout.key_index("a"), layout.key_index(c)]
        }
        for name in LAYOUTS
        for layout in [load_layout(name)]
    }
    assert neighbours["qwerty"] == set("qwsz")
    assert neighbours["azerty"] == set("zqs")
    assert neighbours["dvorak"] == set("oq")
    assert "y" not in neighbours["qwerty"]
    assert load_layout("qwertz").key_index("ü") != load_layout("qwertz").key_index("u")


def test_unknown_layouts_are_refused_by_name():
    with pytest.raises(
        ValueError, match="'colemak' is unknown; known are azerty, dvorak, qwerty, qwertz"
    ):
        load_layout("colemak")
    with pytest.raises(ValueError, match="unknown"):
        load_layout("../keyboards/qwerty")


@given(st.lists(st.tuples(st.floats(-20, 90), st.floats(-20, 40)), min_size=1, max_size=20))
def test_nearest_key_is_found_by_brute_force(points):
    layout = load_layout("qwerty")
    for point, found in zip(points, layout.nearest_key(np.array(points)), strict=True):
        distances = [hypot(point[0] - x, point[1] - y) for x, y in layout.centres_mm]
        assert distances[found] == pytest.approx(min(distances))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_touch_within_the_safe_radius_stays_on_its_key(name):
    layout = load_layout(name)
    turns = np.linspace(0, 2 * np.pi, 48)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for key, centre in enumerate(layout.centres_mm):
        inside = layout.nearest_key(centre + 0.999 * layout.safe_radius_mm * circle)
        assert set(inside.tolist()) == {key}
    outside = [
        layout.nearest_key(centre + 1.01 * layout.safe_radius_mm * circle) != key
        for key, centre in enumerate(layout.centres_mm)
    ]
    assert np.any(outside)


@pytest.mark.parametrize("name", LAYOUTS)
def test_touch_probabilities_match_sampled_touches(name):
    layout = load_layout(name)
    probabilities = layout.touch_probabilities(2.0, (0.8, -0.4))
    rng = np.random.default_rng(1)
    touches = 20_000
    for key in range(0, len(layout.keys), 5):
        hits = layout.nearest_key(
            rng.normal(layout.centres_mm[key] + (0.8, -0.4), 2.0, (touches, 2))
        )
        sampled = np.bincount(hits, minlength=len(layout.keys)) / touches
        np.testing.assert_allclose(probabilities[key], sampled, atol=4 * sqrt(0.25 / touches))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_the_median_thumb_misses_as_often_as_published():
    # A lateral miss rate of 8 % needs sigma = 0.286 key widths (DESIGN.md, Typing facts).
    layout = load_layout("qwerty")
    sigma_mm = hypot(FINGER_SIGMA_MM, SPEED_SIGMA_MM)
    assert sigma_mm / layout.key_size_mm[0] == pytest.approx(0.286, abs=0.001)
    assert 1 - erf(0.5 / 0.286 / sqrt(2)) == pytest.approx(0.08, abs=0.001)
    beside = [layout.key_index(c) for c in "asdfhjkl"]
    touches = layout.touch_probabilities(sigma_mm, (0.0, 0.0))
    assert touches[layout.key_index("g")][beside].sum() == pytest.approx(0.08, abs=0.006)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('{"key_width_mm": 6.2}', "malformed layout"),
        (
            '{"key_width_mm": 6, "key_height_mm": 9, "long_press": {},'
            ' "rows": [{"keys": "aa", "first_x": 0}]}',
            "each key once",
        ),
    ],
)
def test_a_malformed_layout_is_refused_with_its_file(tmp_path, monkeypatch, table, complaint):
    (tmp_path / "broken.json").write_text(table, encoding="utf-8")
    monkeypatch.setattr("device_runtime.layouts.KEYBOARDS", tmp_path)
    with pytest.raises(ValueError, match=f"broken.json: .*{complaint}"):
        load_layout("broken")
