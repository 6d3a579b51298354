"""What a privacy figure means, in words."""

import math
from typing import Any

from eval.report import notation


def describe_epsilon(epsilon: Any) -> str:
    """What an epsilon promises a device (tiers: Ponomareva et al. 2023, How to DP-fy ML, 5.2)."""
    if not isinstance(epsilon, (int, float)) or not math.isfinite(epsilon):
        return "There is no finite ε: the run promises nothing to a device that takes part."
    odds = math.exp(epsilon) if epsilon < 14 else 0
    factor = f"{odds:,.3g}" if odds < 100 else f"{odds:,.0f}"
    if not odds:
        power = str(round(epsilon / math.log(10))).translate(notation.SUPERSCRIPT)
        factor = f"10{power}"
    change = (
        "Seeing the trained model can change the odds that anyone gives to a device having taken "
        f"part by a factor of at most exp(ε), here about {factor}, but for a chance of δ."
    )
    if epsilon <= 1:
        return f"{change} That is a strong promise."
    if epsilon <= 10:
        return f"{change} That is the range that deployed keyboards publish: a moderate promise."
    return (
        f"{change} An ε this large promises nothing. It is the price of a simulated fleet, which "
        "is too small to hide a device in: do not read it as protection."
    )
