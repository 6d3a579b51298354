"""Who takes part in a round: cohorts, of fixed size or Poisson, that keep the participation promise."""

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

Sampling = Literal["fixed", "poisson"]


class CohortSelector:
    """Draws a uniform cohort each round among the devices that the (b, k) promise lets take part.

    A device may take part again min_separation rounds after it last did (|i - j| >= b), and in at
    most max_participations rounds. The draw depends on (seed, round, devices allowed) alone, so a
    restored selector goes on as the uninterrupted one would have. A selected device counts, whether
    or not it reports.

    A `fixed` cohort has cohort_size devices. In a `poisson` one each device that may take part is
    drawn by itself, with the probability that makes cohort_size the expected number. Neither is
    taken for amplification by sampling: the guarantee rests on the promise alone.

    Args:
        population_size: devices, with ids 0 to population_size - 1.
        cohort_size: devices a round, >= 1.
        min_separation: b >= 1; 1 lets a device take part in every round.
        seed: >= 0.
        max_participations: k >= 1, or None for no limit.
        sampling: fixed or poisson.

    Raises:
        ValueError: an argument is out of its range, or the population is smaller than cohort_size *
            min_separation, with which the rounds would run out of devices.
    """

    def __init__(
        self,
        population_size: int,
        cohort_size: int,
        min_separation: int,
        seed: int,
        max_participations: int | None = None,
        sampling: Sampling = "fixed",
    ) -> None:
        if sampling not in get_args(Sampling):
            raise ValueError(f"sampling is {sampling!r}, must be fixed or poisson")
        for name, value, least in (
            ("cohort_size", cohort_size, 1),
            ("min_separation", min_separation, 1),
            ("seed", seed, 0),
            ("max_participations", 1 if max_participations is None else max_participations, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, must be at least {least}")
        if population_size < cohort_size * min_separation:
            raise ValueError(
                f"population_size is {population_size}, must be at least cohort_size * "
                f"min_separation = {cohort_size} * {min_separation}: take a smaller cohort or "
                "separation, or more devices"
            )
        self.population_size = population_size
        self.cohort_size = cohort_size
        self.min_separation = min_separation
        self.max_participations = max_participations
        self.sampling = sampling
        self._seed = seed
        self._last_round, self._participations = _start(population_size, min_separation)
        self._next_round = 0
        self._latest: tuple[np.ndarray, np.ndarray] | None = (
            None  # a cohort, and its last rounds before
        )

    def select(
        self, round_index: int, available: np.ndarray | None = None, draw: int | None = None
    ) -> np.ndarray:
        """Ids of the round's devices, int64, ascending, which are counted as used.

        Rounds are drawn in order, though some may be left out.

        Args:
            round_index: of the round.
            available: bool [population_size], the devices that can be reached; where they are too
                few, all of them that may take part are drawn. None if all can be.
            draw: number of the draw, which decides it beside the seed; None for round_index. A round that is drawn
                again after `give_back` takes another.

        Raises:
            ValueError: the round or a later one was drawn before, or all can be reached and too few
                may take part.
        """
        if round_index < self._next_round:
            raise ValueError(
                f"round {round_index} was drawn or passed, the next is {self._next_round}"
            )
        may_take_part = self._last_round + self.min_separation <= round_index
        if self.max_participations is not None:
            may_take_part &= self._participations < self.max_participations
        if available is not None:
            may_take_part &= available
        candidates = np.flatnonzero(may_take_part)
        if len(candidates) < self.cohort_size and available is None:
            raise ValueError(
                f"round {round_index} needs {self.cohort_size} devices, and {len(candidates)} of "
                f"{self.population_size} may take part with min_separation {self.min_separation}, "
                f"max_participations {self.max_participations}: run fewer rounds or "
                "take a smaller cohort"
            )
        key = [self._seed, round_index if draw is None else draw]
        cohort = self._draw(candidates, np.random.default_rng(key))
        self._latest = cohort, self._last_round[cohort]
        self._last_round[cohort] = round_index
        self._participations[cohort] += 1
        self._next_round = round_index + 1
        return cohort

    def give_back(self) -> None:
        """Undoes the latest `select`, whose round is abandoned: its devices may be drawn again, at once and as often.

        Raises:
            ValueError: it was undone before, or there was none.
        """
        if self._latest is None:
            raise ValueError("no round was drawn that could be given back")
        cohort, last_round = self._latest
        self._last_round[cohort] = last_round
        self._participations[cohort] -= 1
        self._next_round -= 1
        self._latest = None

    def _draw(self, candidates: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if len(candidates) <= self.cohort_size:
            return candidates
        if self.sampling == "poisson":
            chosen = generator.random(len(candidates)) < self.cohort_size / len(candidates)
            return candidates[chosen]
        return np.sort(generator.choice(candidates, self.cohort_size, replace=False))

    def restore(self, cohorts: Iterable[np.ndarray]) -> None:
        """Goes on after rounds 0, 1, ... in which these devices were selected, whatever was drawn here before.

        Raises:
            ValueError: a device is not of this population.
        """
        last_round, participations = _start(self.population_size, self.min_separation)
        rounds = 0
        for rounds, cohort in enumerate(cohorts, 1):
            if len(cohort) and not 0 <= cohort.min() <= cohort.max() < self.population_size:
                raise ValueError(
                    f"round {rounds - 1}: a device is not in 0 to {self.population_size - 1}, the population"
                )
            last_round[cohort] = rounds - 1
            participations[cohort] += 1
        self._last_round, self._participations = last_round, participations
        self._next_round, self._latest = rounds, None


def _start(population_size: int, min_separation: int) -> tuple[np.ndarray, np.ndarray]:
    """The round each device last took part in, long ago, and the number of rounds it did, none; int32."""
    return (
        np.full(population_size, -min_separation, np.int32),
        np.zeros(population_size, np.int32),
    )
