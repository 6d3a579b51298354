"""What noise each mechanism leaves in the model at one rho: the table a team chooses by."""

from dataclasses import dataclass

import numpy as np

from federated.mechanism_choice import MechanismChoice
from federated.sensitivity import most_participations
from federated.strategies import BandedToeplitz, Blt, Strategy, Tree
from federated.zcdp import check_positive


@dataclass(frozen=True)
class MechanismNoise:
    """Noise of a mechanism at a given rho, in clip norms and in the sum of all rounds so far.

    noise_multiplier is what meets the rho; max_deviation the standard deviation at its worst round, rms_deviation the
    root of the mean variance of all rounds; models_kept how many times the model's size it keeps between rounds.
    """

    mechanism: str
    strategy: Strategy
    squared_sensitivity: float
    noise_multiplier: float
    max_deviation: float
    rms_deviation: float
    models_kept: int


def compare_mechanisms(
    rounds: int,
    min_separation: int,
    max_participations: int | None,
    rho: float,
    bands: int | None = None,
    buffers: int | None = None,
) -> list[MechanismNoise]:
    """Independent noise, one tree, banded Toeplitz and BLT for the same run and rho.

    Args:
        rounds, min_separation, max_participations: the run's; None for as many as fit.
        rho: zCDP of each, > 0.
        bands, buffers: see `MechanismChoice`.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_positive("rho", rho)
    participations = most_participations(
        rounds, min_separation, rounds if max_participations is None else max_participations
    )
    choices = [
        MechanismChoice("gaussian"),
        MechanismChoice("tree"),
        MechanismChoice("toeplitz", bands=bands),
        MechanismChoice("blt", buffers=buffers),
    ]
    rows = []
    for choice in choices:
        strategy = choice.build(rounds, min_separation, participations)
        sensitivity = strategy.squared_sensitivity(rounds, min_separation, participations)
        noise = (sensitivity / (2 * rho)) ** 0.5
        variances = strategy.prefix_variances(rounds)
        rows.append(
            MechanismNoise(
                mechanism=strategy.name,
                strategy=strategy,
                squared_sensitivity=sensitivity,
                noise_multiplier=noise,
                max_deviation=noise * float(np.sqrt(variances.max())),
                rms_deviation=noise * float(np.sqrt(variances.mean())),
                models_kept=_models_kept(strategy, rounds),
            )
        )
    return rows


def _models_kept(strategy: Strategy, rounds: int) -> int:
    if isinstance(strategy, Tree):
        return int(rounds).bit_length()
    if isinstance(strategy, BandedToeplitz):
        return len(strategy.coefficients) - 1
    return len(strategy.decays) if isinstance(strategy, Blt) else 0
