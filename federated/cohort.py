"""Who takes part in a round: fixed-size cohorts that keep the participation promise."""

from collections.abc import Mapping

import numpy as np


class CohortSelector:
    """Draws a uniform cohort each round among the devices that the (b, k) promise lets take part.

    A device may take part again min_separation rounds after it last did (|i - j| >= b), and in at
    most max_participations rounds. The draw depends on (seed, round, devices allowed) alone, so a
    restored selector goes on as the uninterrupted one would have. A selected device counts, whether
    or not it reports.

    Args:
        population_size: devices, with ids 0 to population_size - 1.
        cohort_size: devices a round, >= 1.
        min_separation: b >= 1; 1 lets a device take part in every round.
        seed: >= 0.
        max_participations: k >= 1, or None for no limit.

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
    ) -> None:
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
        self._seed = seed
        self._last_round = np.full(population_size, -min_separation, np.int64)
        self._participations = np.zeros(population_size, np.int64)
        self._next_round = 0

    def select(self, round_index: int) -> np.ndarray:
        """Ids of the round's devices, int64 [cohort_size], ascending, which are counted as used.

        Rounds are drawn in order, though some may be left out.

        Raises:
            ValueError: the round or a later one was drawn before, or too few devices may take part.
        """
        if round_index < self._next_round:
            raise ValueError(
                f"round {round_index} was drawn or passed, the next is {self._next_round}"
            )
        may_take_part = self._last_round + self.min_separation <= round_index
        if self.max_participations is not None:
            may_take_part &= self._participations < self.max_participations
        candidates = np.flatnonzero(may_take_part)
        if len(candidates) < self.cohort_size:
            raise ValueError(
                f"round {round_index} needs {self.cohort_size} devices, and {len(candidates)} of "
                f"{self.population_size} may take part with min_separation {self.min_separation}, "
                f"max_participations {self.max_participations}: run fewer rounds or "
                "take a smaller cohort"
            )
        generator = np.random.default_rng([self._seed, round_index])
        cohort = np.sort(generator.choice(candidates, self.cohort_size, replace=False))
        self._last_round[cohort] = round_index
        self._participations[cohort] += 1
        self._next_round = round_index + 1
        return cohort

    def state(self) -> dict[str, np.ndarray]:
        """The past, without the constructor's arguments, as int64 arrays for a checkpoint."""
        return {
            "last_round": self._last_round.copy(),
            "participations": self._participations.copy(),
            "next_round": np.array(self._next_round, np.int64),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a `state()` of a selector with the same arguments.

        Raises:
            ValueError: a part is missing or belongs to another population size.
        """
        parts = {}
        for name, part in self.state().items():
            if name not in state:
                raise ValueError(f"cohort selector state: {name} is missing")
            parts[name] = np.array(state[name], np.int64)
            if parts[name].shape != part.shape:
                raise ValueError(
                    f"cohort selector state: {name} has shape {parts[name].shape}, must have "
                    f"{part.shape}"
                )
        self._last_round = parts["last_round"]
        self._participations = parts["participations"]
        self._next_round = int(parts["next_round"])
