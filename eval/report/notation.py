"""How figures are written for people: one format a quantity, everywhere in the report.

Each takes whatever JSON may hold; what was not measured (None, missing, not a number) is a dash.
"""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"
_THIN = "\u202f"  # narrow no-break space: a number and its unit stay together
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: Any, signed: bool = False, digits: int = 1) -> str:
    """0.1204 -> '12.0 %'; signed: '+12.0 %'."""
    return _with_unit(share, lambda x: _fixed(100 * x, digits, signed), "%")


def percent_range(interval: Any, signed: bool = False) -> str:
    """{'low': 0.11, 'high': 0.13} -> '11.0–13.0', signed '+11.0 to +13.0 %'."""
    ends = interval if isinstance(interval, Mapping) else {}
    low, high = ends.get("low", math.nan), ends.get("high", math.nan)
    if not _is_number(low) or not _is_number(high):
        return MISSING
    if signed:
        return f"{_fixed(100 * low, 1, True)} to {percent(high, signed=True)}"
    return f"{_fixed(100 * low, 1)}–{_fixed(100 * high, 1)}"


def bits(x: Any) -> str:
    """3.17 -> '3.2 bits'."""
    return _with_unit(x, lambda y: _fixed(y, 1), "bits")


def bits_range(interval: Mapping[str, float]) -> str:
    """{'low': 1.1, 'high': 4.3} -> '1.1–4.3'."""
    return f"{_fixed(interval['low'], 1)}–{_fixed(interval['high'], 1)}"


def points(share: Any, signed: bool = False) -> str:
    """A difference of two shares in percentage points: 0.0123 -> '1.23'."""
    return _fixed(100 * share, 2, signed) if _is_number(share) else MISSING


def points_range(interval: Any) -> str:
    """{'low': -0.011, 'high': 0.03} -> '−1.10 to +3.00'."""
    ends = interval if isinstance(interval, Mapping) else {}
    low, high = (points(ends.get(end), signed=True) for end in ("low", "high"))
    return MISSING if MISSING in (low, high) else f"{low} to {high}"


def number(x: Any) -> str:
    """Counts with thousands commas, fractions to about three figures, text as it is."""
    if isinstance(x, (bool, str)):
        return str(x)
    if not _is_number(x):
        return MISSING
    if isinstance(x, int) or abs(x) >= 100 or x == 0:
        return _fixed(x, 0)
    if abs(x) < 0.01:
        return scientific(x)
    return _fixed(x, 2) if abs(x) >= 1 else f"{x:.3g}".replace("-", "−")


def scientific(x: Any) -> str:
    """1e-10 -> '10⁻¹⁰', 1.08e-3 -> '1.08 · 10⁻³'."""
    if not _is_number(x) or x == 0 or math.isinf(x):
        return MISSING if not _is_number(x) else _fixed(x, 0)
    mantissa, exponent = f"{x:.2e}".split("e")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPT)
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}{_THIN}·{_THIN}{power}"


def megabytes(size_bytes: Any) -> str:
    """2,580,000 -> '2.58 MB' (10**6 bytes)."""
    return _with_unit(size_bytes, lambda x: number(x / 1e6).removesuffix(".00"), "MB")


def milliseconds(duration_ms: Any) -> str:
    return _with_unit(duration_ms, lambda x: _fixed(x, 2 if abs(x) < 10 else 0), "ms")


def seconds(duration_s: Any) -> str:
    """4.21 -> '4.2 s', 252 -> '4 min 12 s'."""
    if not _is_number(duration_s) or duration_s < 100 or math.isinf(duration_s):
        return _with_unit(duration_s, lambda x: _fixed(x, 1), "s")
    minutes, rest = divmod(round(duration_s), 60)
    return f"{minutes:,}{_THIN}min {rest}{_THIN}s"


def label(key: Any) -> str:
    """'words.dropped_by_split' -> 'words: dropped by split'."""
    return str(key).replace("_", " ").replace(".", ": ")


def flatten(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested settings as (dotted name, value), in order; a list of settings is numbered from 1."""
    if isinstance(tree, (list, tuple)) and any(isinstance(item, Mapping) for item in tree):
        tree = dict(enumerate(tree, start=1))
    if not isinstance(tree, Mapping):
        return [(prefix, tree)]
    return [
        leaf
        for key, value in tree.items()
        for leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def setting(value: Any) -> str:
    """A setting as it would be typed, so neither rounded nor grouped."""
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value)
    return "not set" if value is None else str(value)


def entry(value: Any) -> str:
    """A measured value of any kind: yes or no, a number, text, or a list of these."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(entry(item) for item in value) or MISSING
    return number(value)


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not math.isnan(x)


def _fixed(x: float, digits: int, signed: bool = False) -> str:
    if math.isinf(x):
        return "−∞" if x < 0 else "∞"
    text = f"{x:{'+' if signed else ''},.{digits}f}"
    return text.replace("-", "−")


def _with_unit(x: Any, write: Any, unit: str) -> str:
    return f"{write(x)}{_THIN}{unit}" if _is_number(x) else MISSING
