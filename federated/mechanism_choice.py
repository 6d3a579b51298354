"""A mechanism as a person chooses it: name and options, from which follows the strategy of a run."""

from dataclasses import dataclass

from federated.factorisation import most_bands, optimise_blt, optimise_toeplitz
from federated.strategies import MECHANISMS, Gaussian, Strategy, Tree

_OPTIONS = {
    "gaussian": ("count_stddev", "sampling_rate"),
    "tree": ("restart_every",),
    "toeplitz": ("bands",),
    "blt": ("buffers",),
}
_DEFAULT_BANDS = 32
_DEFAULT_BUFFERS = 4  # from there on, a further one gains under 1 % in the golden cases


@dataclass(frozen=True)
class MechanismChoice:
    """A mechanism and its own options; None stands for none, or the default.

    Attributes:
        name: one of strategies.MECHANISMS.
        restart_every: rounds of each `tree`.
        bands: of `toeplitz`, 1 to factorisation.most_bands; by default 32, or that.
        buffers: of `blt`, 4 by default.
        count_stddev: of `gaussian` with adaptive clipping.
        sampling_rate: of `gaussian` with Poisson sampling.

    Raises:
        ValueError: the mechanism is unknown or has another one's option.
    """

    name: str
    restart_every: int | None = None
    bands: int | None = None
    buffers: int | None = None
    count_stddev: float | None = None
    sampling_rate: float | None = None

    def __post_init__(self) -> None:
        if self.name not in MECHANISMS:
            raise ValueError(
                f"mechanism is {self.name!r}, must be one of {', '.join(MECHANISMS)}, or in a run skellam"
            )
        own = _OPTIONS[self.name]
        for option in (name for names in _OPTIONS.values() for name in names):
            value = getattr(self, option)
            if value is not None and option not in own:
                raise ValueError(
                    f"{option} is {value!r}, and mechanism {self.name} has none: leave it out"
                )

    def build(self, rounds: int, min_separation: int, max_participations: int) -> Strategy:
        """The strategy, with the best coefficients for the run where it has some.

        Raises:
            ValueError: an argument or option is out of its range.
        """
        if self.name == "toeplitz":
            bands = self.bands
            if bands is None:
                most = most_bands(rounds, min_separation, max_participations)
                bands = min(_DEFAULT_BANDS, most)
            return optimise_toeplitz(rounds, min_separation, max_participations, bands)
        if self.name == "blt":
            buffers = _DEFAULT_BUFFERS if self.buffers is None else self.buffers
            return optimise_blt(rounds, min_separation, max_participations, buffers)
        if self.name == "tree":
            return Tree(self.restart_every)
        return Gaussian(self.count_stddev, self.sampling_rate)
