"""What results hold, where anything may be missing."""

import math
from collections.abc import Mapping
from typing import Any


def find(tree: Any, path: str) -> Any:
    """What lies at a dotted path, or None."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def is_finite(x: Any) -> bool:
    return isinstance(x, (int, float)) and math.isfinite(x)


def is_drawable(interval: Any, value: str, highest: float = 1.0) -> bool:
    """Whether it is a share, or a lift, with both ends of its interval."""
    if not isinstance(interval, Mapping) or not is_finite(interval.get(value)):
        return False
    low, high = interval.get("low"), interval.get("high")
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return False
    return -1 <= low <= high <= highest
