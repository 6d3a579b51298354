"""What noise a run adds: one frozen description for the mechanism that draws it, the accountant and the ledger.

The noise of all rounds is C^-1 z: z is independent Gaussian noise, noise_multiplier clip norms strong, and C the
strategy matrix, lower triangular (trees: one row a node). Privacy depends on the sensitivity of C, utility on the noise
in the sum of the rounds so far, A C^-1 z with A the lower-triangular ones. No TensorFlow here, so that accounting is
at hand at once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from federated.sensitivity import (
    most_participations,
    toeplitz_squared_sensitivity,
    tree_squared_sensitivity,
)
from federated.skellam import (
    MOST_BITS,
    RENYI_ORDERS,
    finest_scale,
    padded_dimension,
    rounded_norm,
    skellam_divergence,
)
from federated.zcdp import check_positive


@dataclass(frozen=True)
class Strategy(ABC):
    """A strategy matrix.

    Attributes:
        name: of the mechanism.
    """

    name: ClassVar[str]

    def check(self, min_separation: int, max_participations: int | None) -> None:  # noqa: B027
        """Raises ValueError if no accountant covers the strategy under this participation, k None being no limit."""

    @abstractmethod
    def squared_sensitivity(
        self, rounds: int, min_separation: int, max_participations: int
    ) -> float:
        """Exact, in squared clip norms, see `sensitivity`.

        Raises:
            ValueError: it is not known exactly, or an argument is not a positive integer.
        """

    @abstractmethod
    def prefix_variances(self, rounds: int) -> np.ndarray:
        """Variance of the noise in the sum of rounds 1 to t, for t = 1 .. rounds, float64, for unit z."""


@dataclass(frozen=True)
class Gaussian(Strategy):
    """Independent noise each round.

    Attributes:
        count_stddev: s > 0, noise on the count of unclipped devices that adapts the clip norm (Andrew et al. 2021);
            None for a fixed clip norm.
        sampling_rate: q in (0, 1], the chance with which each device takes part in a round, independently of all
            else (Poisson sampling); None where cohorts are chosen otherwise, which amplifies nothing.
    """

    name = "gaussian"
    count_stddev: float | None = None
    sampling_rate: float | None = None

    def __post_init__(self) -> None:
        if self.count_stddev is not None and not 0 < self.count_stddev < math.inf:
            raise ValueError(
                f"count_stddev is {self.count_stddev!r}, must be positive and finite, or None"
            )
        if self.sampling_rate is not None and not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate is {self.sampling_rate!r}, must be in (0, 1], or None")

    def check(self, min_separation: int, max_participations: int | None) -> None:
        """Sampling amplifies only where every round may draw every device."""
        if self.sampling_rate is None or (min_separation, max_participations) == (1, None):
            return
        raise ValueError(
            f"min_separation is {min_separation} and max_participations {max_participations}, and must be 1 and None "
            "with a sampling_rate: no accountant covers both"
        )

    def squared_sensitivity(
        self, rounds: int, min_separation: int, max_participations: int
    ) -> float:
        return most_participations(rounds, min_separation, max_participations)

    def prefix_variances(self, rounds: int) -> np.ndarray:
        return np.arange(1.0, rounds + 1)


@dataclass(frozen=True)
class Tree(Strategy):
    """Binary tree aggregation with Honaker's variance reduction (Kairouz et al. 2021, arXiv:2103.00039, algorithm 1).

    Attributes:
        restart_every: rounds after which a new tree is started, the noise so far staying in the sum; None for never.
    """

    name = "tree"
    restart_every: int | None = None

    def __post_init__(self) -> None:
        if self.restart_every is not None and self.restart_every < 1:
            raise ValueError(
                f"restart_every is {self.restart_every!r}, must be at least 1, or None"
            )

    def squared_sensitivity(
        self, rounds: int, min_separation: int, max_participations: int
    ) -> float:
        period = self.restart_every or rounds
        segments = [period] * (rounds // period) + ([rounds % period] if rounds % period else [])
        return tree_squared_sensitivity(segments or [rounds], min_separation, max_participations)

    def prefix_variances(self, rounds: int) -> np.ndarray:
        """Of one tree, the sum over set bits d of t of 1 / (2 - 2^-d); full trees before it add theirs at their end."""
        period = self.restart_every or rounds
        steps = np.arange(1, min(period, rounds) + 1)
        levels = np.arange(int(steps[-1]).bit_length())
        tree = (steps[:, None] >> levels & 1) @ (1 / (2 - 2.0**-levels))
        restarts, place = np.divmod(np.arange(rounds), period)
        return restarts * tree[-1] + tree[place]


@dataclass(frozen=True)
class ToeplitzStrategy(Strategy):
    """A lower-triangular Toeplitz matrix, described by its first column."""

    @abstractmethod
    def first_column(self, rounds: int) -> np.ndarray:
        """Its entries from the diagonal down, float64 [at most rounds], zeros beyond."""

    def squared_sensitivity(
        self, rounds: int, min_separation: int, max_participations: int
    ) -> float:
        return toeplitz_squared_sensitivity(
            self.first_column(rounds), rounds, min_separation, max_participations
        )

    def prefix_variances(self, rounds: int) -> np.ndarray:
        from scipy.signal import lfilter

        first_round = np.zeros(rounds)
        first_round[0] = 1
        inverse = lfilter([1.0], self.first_column(rounds), first_round)
        return np.cumsum(np.cumsum(inverse) ** 2)


@dataclass(frozen=True)
class BandedToeplitz(ToeplitzStrategy):
    """h bands of a Toeplitz matrix (Choquette-Choo et al. 2023, arXiv:2306.08153).

    Attributes:
        coefficients: c_0 > 0 on the diagonal to c_{h-1}; `factorisation.optimise_toeplitz` finds them.
    """

    name = "toeplitz"
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", tuple(map(float, self.coefficients)))
        if not self.coefficients or not all(map(math.isfinite, self.coefficients)):
            raise ValueError("coefficients are empty or not finite, give at least one number")
        if self.coefficients[0] <= 0:
            raise ValueError(f"coefficients start with {self.coefficients[0]!r}, must be positive")

    def check(self, min_separation: int, max_participations: int | None) -> None:
        rounds = min_separation + len(self.coefficients)
        self.squared_sensitivity(rounds, min_separation, max_participations or rounds)

    def first_column(self, rounds: int) -> np.ndarray:
        return np.array(self.coefficients[:rounds])


@dataclass(frozen=True)
class Blt(ToeplitzStrategy):
    """Buffered linear Toeplitz matrix: column 1, sum w_j, sum w_j th_j, sum w_j th_j^2, ...

    Dvijotham et al. 2024 (arXiv:2404.16706); with b and k McMahan et al. 2024 (arXiv:2408.08868). The noise of a round
    needs one buffer a decay, however many rounds there are.

    Attributes:
        decays: th_j in [0, 1), one a buffer; `factorisation.optimise_blt` finds them.
        scales: w_j >= 0, one a buffer, of sum at most 1, so that the column does not increase.
    """

    name = "blt"
    decays: tuple[float, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("decays", "scales"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.decays) != len(self.scales) or not self.decays:
            raise ValueError(
                f"{len(self.decays)} decays and {len(self.scales)} scales, must be one of each a buffer"
            )
        if not all(0 <= decay < 1 for decay in self.decays):
            raise ValueError(f"decays are {self.decays}, must be in [0, 1)")
        if not all(scale >= 0 for scale in self.scales) or sum(self.scales) > 1:
            raise ValueError(
                f"scales are {self.scales}, must be at least 0 and add up to at most 1"
            )

    def first_column(self, rounds: int) -> np.ndarray:
        powers = np.array(self.decays) ** np.arange(rounds - 1)[:, None]
        return np.concatenate([[1.0], powers @ np.array(self.scales)])

    def inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """Decays, falling, and scales of C^-1, which has the same form; these scales are not positive.

        C^-1 feeds its output back: buffers' = (diag(decays) - 1 scales^T) buffers + 1 z, whose eigenvalues decay it.
        """
        decays, scales = np.array(self.decays), np.array(self.scales)
        values, vectors = np.linalg.eig(np.diag(decays) - scales)
        order = np.argsort(-values.real)
        inverse_scales = -(scales @ vectors) * np.linalg.solve(vectors, np.ones(len(decays)))
        return values.real[order], inverse_scales.real[order]


@dataclass(frozen=True)
class Skellam(Strategy):
    """Independent integer noise each round, of which each device adds a share before a sum modulo 2^bits.

    The noise multiplier is what `min_reports` devices make together; more of them make more.

    Attributes:
        bits: of a value of a device's message and of the sum, 2 to MOST_BITS.
        scale: grid steps of a clip norm, > 0.
        dimension: values of a message, a power of two.
        cohort: most devices that may report in a round; their sum does not wrap around.
        min_reports: fewest devices whose sum may be opened.
    """

    name = "skellam"
    bits: int
    scale: float
    dimension: int
    cohort: int
    min_reports: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= MOST_BITS:
            raise ValueError(f"bits is {self.bits!r}, must be 2 to {MOST_BITS}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale is {self.scale!r}, must be positive and finite")
        if self.dimension < 1 or self.dimension & (self.dimension - 1):
            raise ValueError(f"dimension is {self.dimension!r}, must be a power of two")
        if not 1 <= self.min_reports <= self.cohort:
            raise ValueError(
                f"min_reports is {self.min_reports!r}, must be 1 to the cohort, {self.cohort}"
            )

    @classmethod
    def lay_out(
        cls, bits: int, parameters: int, cohort: int, min_reports: int, noise_multiplier: float
    ) -> "Skellam":
        """With the finest grid of which a full cohort's sum fits into the bits, see `skellam.finest_scale`.

        Args:
            parameters: of the model, >= 1.

        Raises:
            ValueError: an argument is out of its range, or the bits are too few.
        """
        check_positive("noise_multiplier", noise_multiplier)
        dimension = padded_dimension(parameters)
        cls(bits, 1.0, dimension, cohort, min_reports)  # checks them
        scale = finest_scale(bits, dimension, cohort, min_reports, noise_multiplier)
        return cls(bits, scale, dimension, cohort, min_reports)

    @property
    def message_bytes(self) -> int:
        """Of what a device sends, without what a protocol of secure aggregation adds."""
        return -(-self.dimension * self.bits // 8)

    def for_noise(self, noise_multiplier: float) -> "Skellam":
        """The same messages, on the grid that fits another noise.

        Raises:
            ValueError: the bits are too few.
        """
        sizes = self.bits, self.dimension, self.cohort, self.min_reports
        return self.lay_out(*sizes, noise_multiplier)

    def for_cohort(self, cohort: int, noise_multiplier: float) -> "Skellam":
        """For another cohort, in as many bits more as that needs; min_reports keep their share of it.

        Raises:
            ValueError: MOST_BITS are too few.
        """
        min_reports = math.ceil(self.min_reports * cohort / self.cohort)
        for bits in range(self.bits, MOST_BITS):
            try:
                return self.lay_out(bits, self.dimension, cohort, min_reports, noise_multiplier)
            except ValueError:
                continue
        return self.lay_out(MOST_BITS, self.dimension, cohort, min_reports, noise_multiplier)

    def divergences(self, noise_multiplier: float) -> np.ndarray:
        """Of one participation, at most, at skellam.RENYI_ORDERS."""
        return skellam_divergence(noise_multiplier, self.scale, self.dimension, RENYI_ORDERS)

    def squared_sensitivity(
        self, rounds: int, min_separation: int, max_participations: int
    ) -> float:
        """Of the rounded updates, which are a little longer than the clip norm."""
        participations = most_participations(rounds, min_separation, max_participations)
        return participations * (rounded_norm(self.scale, self.dimension) / self.scale) ** 2

    def prefix_variances(self, rounds: int) -> np.ndarray:
        """Of the noise of full cohorts; rounding adds up to cohort / (4 scale^2), in clip norms, to each round's."""
        return np.arange(1.0, rounds + 1) * self.cohort / self.min_reports


@dataclass(frozen=True)
class DeviceNoise:
    """What devices must know to add their share of the noise, see `secure_aggregation`.

    Attributes:
        strategy: the messages' grid.
        noise_multiplier: z >= 0, in clip norms, of `strategy.min_reports` devices together.
    """

    strategy: Skellam
    noise_multiplier: float


_KINDS: dict[str, type[Strategy]] = {
    kind.name: kind for kind in (Gaussian, Tree, BandedToeplitz, Blt, Skellam)
}
MECHANISMS = tuple(name for name in _KINDS if name != Skellam.name)
"""Those with noise of the server's, which need nothing but the participation to be chosen."""


def is_alike(first: Strategy, second: Strategy) -> bool:
    """Whether two strategies are the same, or differ in the values of their coefficients alone."""

    def fixed(strategy: Strategy) -> dict[str, Any]:
        return {n: len(v) if isinstance(v, tuple) else v for n, v in asdict(strategy).items()}

    return type(first) is type(second) and fixed(first) == fixed(second)


def strategy_document(strategy: Strategy) -> dict[str, Any]:
    """The strategy as a JSON object."""
    return {"name": strategy.name, **asdict(strategy)}


def read_strategy(document: Mapping[str, Any]) -> Strategy:
    """Undoes `strategy_document`.

    Raises:
        ValueError: unknown name or parameter, or one out of its range.
        KeyError: the name is missing.
    """
    parameters = dict(document)
    name = parameters.pop("name")
    if name not in _KINDS:
        raise ValueError(
            f"mechanism is {name!r}, and only {', '.join(_KINDS)} can be accounted for"
        )
    known = {field.name for field in fields(_KINDS[name])}
    if parameters.keys() != known:
        raise ValueError(
            f"mechanism {name} has the parameters {sorted(parameters)}, must be {sorted(known)}"
        )
    return _KINDS[name](**parameters)
