"""Rounds, levels and prices worked out by hand."""

import pytest

from eval.convergence import choose_levels, compare_rounds, find_reached, price_points


def _curve(*tops):
    return [{"round": 4 * i, "top1": top} for i, top in enumerate(tops)]


WEB = _curve(0.071, 0.093, 0.089, 0.101, 0.104)
SYNTHETIC = _curve(0.098, 0.112, 0.121, 0.119, 0.128)


@pytest.mark.parametrize(
    ("accuracies", "rounds"),
    [((0.3, 0.1, 0.1), 0), ((0.1, 0.26, 0.3), 4), ((0.1, 0.25, 0.3), 8), ((0.1, 0.2, 0.25), None)],
)
def test_reached_is_where_it_was_measured_first(accuracies, rounds):
    point = find_reached(_curve(*accuracies), 0.26)
    assert (point and point["round"]) == rounds


def test_levels_are_round_numbers_that_somebody_rose_to():
    assert choose_levels([WEB, SYNTHETIC]) == [0.08, 0.09, 0.1, 0.11, 0.12]
    assert choose_levels([_curve(0.1, 0.14)]) == [0.11, 0.12, 0.13, 0.14]
    assert choose_levels([_curve(0.2, 0.15), _curve(0.2, 0.204)]) == [0.202, 0.204]
    assert choose_levels([_curve(0.2, 0.2)]) == []
    assert choose_levels([_curve(0.0, 1.0)]) == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_rounds_saved_are_those_between_the_first_measurements():
    assert compare_rounds(WEB, SYNTHETIC, [0.08, 0.1, 0.12, 0.13]) == [
        {"top1": 0.08, "baseline": 4, "rounds": 0, "saved": 4},
        {"top1": 0.1, "baseline": 12, "rounds": 4, "saved": 8},
        {"top1": 0.12, "baseline": None, "rounds": 8, "saved": None},
        {"top1": 0.13, "baseline": None, "rounds": None, "saved": None},
    ]
    [behind] = compare_rounds(SYNTHETIC, WEB, [0.1])
    assert behind["saved"] == -8


def test_a_point_costs_what_was_spent_over_the_points_gained():
    price = price_points(0.025, seconds=100.0, words=5_000_000)
    assert price["seconds_per_point"] == pytest.approx(40.0)  # 2.5 points
    assert price["words_per_point"] == pytest.approx(2_000_000)
    assert (price["gain"], price["seconds"], price["words"]) == (0.025, 100.0, 5_000_000)
    for gain in (0.0, -0.01):
        assert price_points(gain, seconds=3.0) == {
            "gain": gain,
            "seconds": 3.0,
            "seconds_per_point": None,
        }
