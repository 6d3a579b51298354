"""How training converges: rounds and epsilon to equal accuracy, and what a point of accuracy costs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Between levels of accuracy that arms are compared at: the finest that gives no more than `_MOST_LEVELS`.
_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_LEVELS = 5

Curve = Sequence[Mapping[str, Any]]


def find_reached(curve: Curve, top1: float) -> Mapping[str, Any] | None:
    """The first measured point of a curve, in order of rounds, at least as high as `top1`; None if there is none."""
    return next((point for point in curve if point["top1"] >= top1), None)


def choose_levels(curves: Sequence[Curve]) -> list[float]:
    """Round numbers above where the lowest curve begins, up to the highest point of any; five at most."""
    low = min(curve[0]["top1"] for curve in curves)
    high = max(point["top1"] for curve in curves for point in curve)
    for step in _STEPS:
        first, last = math.floor(low / step + 1e-9) + 1, math.floor(high / step + 1e-9)
        if last - first < _MOST_LEVELS:
            break
    return [round(index * step, 3) for index in range(first, last + 1)]


def compare_rounds(
    baseline: Curve, curve: Curve, levels: Sequence[float]
) -> list[dict[str, float | int | None]]:
    """At each level of accuracy, after how many rounds either curve was measured there first.

    Curves are measured every so many rounds on some people, so that rounds are too.

    Args:
        baseline, curve: points {round, top1} in order of rounds.
        levels: of top-1.

    Returns:
        {top1, baseline, rounds, saved} for each level: rounds of either, None if it never was there; `saved` by the
        curve over the baseline, None if one of them never was.
    """
    rows: list[dict[str, float | int | None]] = []
    for level in levels:
        needed = [
            None if (point := find_reached(arm, level)) is None else int(point["round"])
            for arm in (baseline, curve)
        ]
        first, second = needed
        saved = None if first is None or second is None else first - second
        rows.append({"top1": level, "baseline": first, "rounds": second, "saved": saved})
    return rows


def price_points(gain: float, **amounts: float) -> dict[str, float | None]:
    """What was spent for a gain in top-1, in all and for each percentage point; None where nothing was gained.

    Args:
        gain: share, 0.01 is a point.
        amounts: spent, by name, as `seconds=60.0`.

    Returns:
        {gain, seconds, seconds_per_point} and so on.
    """
    price: dict[str, float | None] = {"gain": gain}
    for name, amount in amounts.items():
        price[name] = amount
        price[f"{name}_per_point"] = amount / (100 * gain) if gain > 0 else None
    return price
