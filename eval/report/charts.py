"""Inline SVG charts that take their colours from the page, so that they follow light and dark.

Units are CSS pixels at about printed size; classes `web` and `synthetic` colour an arm,
`pretrained` and `federated` tell stages apart. Every chart has a title, and a description with its
figures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from eval.report.notation import number, percent, percent_range, points, points_range

_CHAR_WIDTH = 6.2  # average advance of the 11 px label font, for keeping labels inside


def draw_bars(
    name: str,
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, float]]],
    limit: float,
    write: Callable[[float], str] = percent,
    write_range: Callable[[Mapping[str, float]], str] = percent_range,
) -> Markup:
    """Horizontal bars with interval whiskers.

    Args:
        name: unique in the page.
        rows: (label, classes, {value, low, high}) from top to bottom.
        limit: right end of the axis, shared by charts that are to be compared.
        write, write_range: how a figure and its interval are written.
    """
    width, left, right, step = 250, 1, 50, 38
    height = step * len(rows)
    description = "; ".join(
        f"{label}: {write(bar['value'])} ({write_range(bar)})" for label, _, bar in rows
    )
    svg = _svg(name, title, description, width, height)
    scale = (width - left - right) / limit
    for index, (label, classes, bar) in enumerate(rows):
        top = index * step
        group = _add(svg, "g", class_=classes)
        _text(group, left, top + 11, label, class_="label")
        length = bar["value"] * scale
        _add(group, "rect", class_="bar", x=left, y=top + 17, width=length, height=13)
        low, high = (left + min(bar[end], limit) * scale for end in ("low", "high"))
        middle = top + 23.5
        _add(group, "path", class_="whisker", d=_path([(low, middle), (high, middle)]))
        for end in (low, high):
            _add(group, "path", class_="whisker", d=_path([(end, middle - 4), (end, middle + 4)]))
        _text(group, max(high, left + length) + 6, middle + 4, write(bar["value"]), class_="value")
    return _markup(svg)


def draw_lifts(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Mapping[str, float], tuple[float, float]]],
) -> Markup:
    """Relative lifts as dots with intervals, against zero and each row's shaded band of reference."""
    width, left, right, step = 350, 14, 22, 46
    height = step * len(rows) + 34
    description = "; ".join(
        f"{label}: {percent(lift['relative'], signed=True)} ({percent_range(lift, signed=True)})"
        for label, lift, _ in rows
    )
    svg = _svg(name, title, description, width, height)
    ends = [end for _, lift, _ in rows for end in (lift["low"], lift["high"], lift["relative"])]
    finite = [end for end in ends if math.isfinite(end)]
    ticks = _ticks(min(0.0, *finite), max(*(band[1] for *_, band in rows), *finite), 4)
    scale = (width - left - right) / (ticks[-1] - ticks[0])

    def x(share: float) -> float:
        return left + (min(max(share, ticks[0]), ticks[-1]) - ticks[0]) * scale

    bottom = height - 20
    for index, (*_, (low, high)) in enumerate(rows):
        top = 4 + index * step
        end = bottom if index == len(rows) - 1 else top + step
        _add(svg, "rect", class_="band", x=x(low), y=top, width=x(high) - x(low), height=end - top)
    for tick in ticks:
        class_ = "axis" if tick == 0 else "grid"
        _add(svg, "path", class_=class_, d=_path([(x(tick), 4), (x(tick), bottom)]))
        _text(
            svg, x(tick), height - 6, _tick_label(tick, signed=True), class_="tick", anchor="middle"
        )
    for index, (label, lift, _) in enumerate(rows):
        middle = 30 + index * step
        group = _add(svg, "g", class_="synthetic")
        _add(
            group,
            "path",
            class_="range",
            d=_path([(x(lift["low"]), middle), (x(lift["high"]), middle)]),
        )
        _add(group, "circle", class_="dot", cx=x(lift["relative"]), cy=middle, r=5)
        half = len(label) * _CHAR_WIDTH / 2
        at = min(max(x(lift["relative"]), half), width - half)
        _text(group, at, middle - 12, label, class_="label", anchor="middle")
    return _markup(svg)


def draw_shares(
    name: str,
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, float], Sequence[float]]],
    *,
    differences: bool = False,
) -> Markup:
    """Shares as dots with intervals, on an axis that need not start at zero.

    Args:
        rows: (label, classes, {value, low, high}, repeats shown as faint dots) from top to bottom.
        differences: whether they are differences of shares, in points about a line at zero.
    """
    width, right, step, top = 460, 52, 24, 8
    left = 205 if differences else 165
    write = partial(points, signed=True) if differences else percent
    write_range = points_range if differences else percent_range
    bottom = top + step * len(rows)
    description = "; ".join(
        f"{label}: {write(bar['value'])} ({write_range(bar)})" for label, _, bar, _ in rows
    )
    svg = _svg(name, title, description, width, bottom + 22)
    shares = [share for *_, bar, repeats in rows for share in (bar["low"], bar["high"], *repeats)]
    shares += [0.0] * differences
    ticks = _ticks(min(shares), max(shares), 4)
    scale = (width - left - right) / (ticks[-1] - ticks[0])

    def x(share: float) -> float:
        return left + (share - ticks[0]) * scale

    for tick in ticks:
        class_ = "axis" if differences and tick == 0 else "grid"
        _add(svg, "path", class_=class_, d=_path([(x(tick), top), (x(tick), bottom)]))
        label = _tick_label(tick, differences, "" if differences else "%")
        _text(svg, x(tick), bottom + 16, label, class_="tick", anchor="middle")
    for index, (label, classes, bar, repeats) in enumerate(rows):
        middle = top + (index + 0.5) * step
        group = _add(svg, "g", class_=classes)
        _text(group, left - 12, middle + 4, label, class_="label", anchor="end")
        ends = [(x(bar["low"]), middle), (x(bar["high"]), middle)]
        _add(group, "path", class_="range", d=_path(ends))
        for share in repeats:
            _add(group, "circle", class_="repeat", cx=x(share), cy=middle, r=2.2)
        _add(group, "circle", class_="dot", cx=x(bar["value"]), cy=middle, r=5)
        _text(group, width - right + 12, middle + 4, write(bar["value"]), class_="value")
    return _markup(svg)


def draw_curves(
    name: str,
    title: str,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    along: tuple[str, str, str] = ("round", "round", "federated rounds"),
) -> Markup:
    """Accuracy over rounds, a line and its interval band for each arm, labelled at its end.

    Args:
        curves: points by arm, {top1, low, high} and where along the axis.
        along: key of the points that they stand at, its unit, and what the axis is called.
    """
    key, unit, axis = along
    width, height, left, right, top, bottom = 420, 262, 40, 84, 12, 36
    measured = [point for curve in curves.values() for point in curve]
    description = "; ".join(
        f"{arm}: "
        + ", ".join(
            f"{unit} {number(point[key])} {percent(point['top1'])} ({percent_range(point)})"
            for point in curve
        )
        for arm, curve in curves.items()
    )
    svg = _svg(name, title, description, width, height)
    last = max(point[key] for point in measured)
    marks = _whole_ticks(last) if isinstance(last, int) else _ticks(0, last, 5)
    shares = _ticks(
        min(point["low"] for point in measured), max(point["high"] for point in measured), 4
    )

    def x(at: float) -> float:
        return left + (width - left - right) * at / marks[-1]

    def y(share: float) -> float:
        share_of_axis = (share - shares[0]) / (shares[-1] - shares[0])
        return height - bottom - (height - top - bottom) * share_of_axis

    for tick in shares:
        _add(svg, "path", class_="grid", d=_path([(left, y(tick)), (width - right, y(tick))]))
        _text(svg, left - 7, y(tick) + 4, _tick_label(tick), class_="tick", anchor="end")
    for mark in marks:
        _text(svg, x(mark), height - bottom + 17, f"{mark:,.6g}", class_="tick", anchor="middle")
    middle = (left + width - right) / 2
    _text(svg, middle, height - 4, axis, class_="tick", anchor="middle")
    ends: list[tuple[float, str, float]] = []
    for arm, curve in curves.items():
        ordered = sorted(curve, key=lambda point: point[key])
        group = _add(svg, "g", class_=arm)
        upper = [(x(point[key]), y(point["high"])) for point in ordered]
        lower = [(x(point[key]), y(point["low"])) for point in reversed(ordered)]
        _add(group, "path", class_="area", d=_path(upper + lower) + "Z")
        line = [(x(point[key]), y(point["top1"])) for point in ordered]
        _add(group, "path", class_="line", d=_path(line))
        for cx, cy in line:
            _add(group, "circle", class_="dot", cx=cx, cy=cy, r=2.6)
        ends.append((line[-1][1], arm, line[-1][0]))
    lowest = -math.inf
    for end, arm, at in sorted(ends):
        lowest = max(end + 4, lowest + 15)  # labels of close lines are pushed apart
        _text(svg, at + 9, lowest, arm, class_=f"{arm} name")
    return _markup(svg)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers around [low, high], about `count` steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(f * power for f in (1, 2, 5, 10) if f * power * count >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _whole_ticks(last: int) -> list[int]:
    return sorted({int(tick) for tick in _ticks(0, max(last, 1), 5) if tick == int(tick)})


def _tick_label(share: float, signed: bool = False, unit: str = "%") -> str:
    text = f"{100 * share:{'+' if signed and share else ''}.6g}".replace("-", "−")
    return f"{text}\u202f{unit}".rstrip("\u202f")


def _svg(name: str, title: str, description: str, width: int, height: int) -> ElementTree.Element:
    svg = ElementTree.Element(
        "svg",
        {
            "viewBox": f"0 0 {width} {height}",
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc",
        },
    )
    ElementTree.SubElement(svg, "title", {"id": f"{name}-title"}).text = title
    ElementTree.SubElement(svg, "desc", {"id": f"{name}-desc"}).text = description
    return svg


def _add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    written = {
        key.rstrip("_"): f"{value:.5g}" if isinstance(value, float) else str(value)
        for key, value in attributes.items()
    }
    return ElementTree.SubElement(parent, tag, written)


def _text(
    parent: ElementTree.Element, x: float, y: float, text: str, class_: str, anchor: str = "start"
) -> None:
    element = _add(parent, "text", x=x, y=y, class_=class_)
    if anchor != "start":
        element.set("text-anchor", anchor)
    element.text = text


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _markup(svg: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(svg, encoding="unicode"))
