"""Canary devices inside a run: random directions that are looked for in what the run released.

Andrew et al. 2023 (arXiv:2302.03098), with a fair coin for each canary that decides whether its update is added or is
zero, as in the neighbouring runs that the ledger speaks of. The coins are what makes a bound with confidence of it
(Steinke et al. 2023); without them the paper's figures are estimates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from federated.audit import bound_by_split, largest_bound, one_run, one_run_gaussian
from federated.ledger import Ledger
from federated.one_shot import estimate_from_cosines

_BOUNDS = {"one_run": one_run, "one_run_gaussian": one_run_gaussian}


class Canaries:
    """Devices that come after the real ones and send a random direction of the clip norm whenever they are selected.

    Attributes:
        is_in: bool [count], the coins: whether a canary's update is added or is zero.
        released: the run's noised sums so far, one float32 [d] a round. All that a run publishes follows from them.

    Args:
        count: canaries, >= 1.
        weight_shapes: shapes of an update, d values in all.
        clip_norm: C > 0, of the run.
        seed: of coins and directions.
    """

    def __init__(
        self, count: int, weight_shapes: Sequence[tuple[int, ...]], clip_norm: float, seed: int
    ) -> None:
        if count < 1:
            raise ValueError(f"canaries: count is {count}, must be at least 1")
        self._shapes, self._clip_norm, self._seed = list(weight_shapes), clip_norm, seed
        self.dimensions = sum(int(np.prod(shape)) for shape in self._shapes)
        self.is_in = np.random.default_rng([seed, 2]).random(count) < 0.5
        self.released: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.is_in)

    def direction(self, canary: int) -> np.ndarray:
        """Unit vector float32 [d] of a canary, uniform on the sphere and the same in every round."""
        vector = np.random.default_rng([self._seed, 3, canary]).standard_normal(self.dimensions)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def sum_updates(self, canaries: Iterable[int]) -> list[np.ndarray]:
        """Sum of these canaries' clipped updates, shaped like the weights; those that are out add zero."""
        total = np.zeros(self.dimensions, np.float32)
        for canary in canaries:
            if self.is_in[canary]:
                update = self._clip_norm * self.direction(canary)
                total += min(1.0, self._clip_norm / float(np.linalg.norm(update))) * update
        parts = np.split(total, np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def observe(self, noised_sum: Sequence[np.ndarray]) -> None:
        """Keeps what a round released."""
        self.released.append(flatten(noised_sum))


@dataclass(frozen=True)
class CanaryAudit:
    """What a run's canaries show, beside what its ledger says.

    Attributes:
        epsilon: of the ledger.
        delta: of all epsilons here.
        canaries_in, canaries_out: canaries that were selected, by their coins.
        bounds: lower bounds on epsilon by name; all hold together with probability >= confidence.
        lower_bound: the largest of them.
        largest_bound: what a perfect attack could have shown; a ledger above it cannot be contradicted.
        estimate_every, estimate_final: estimates of epsilon, no bounds, for someone who sees every round's sum, or the
            final model alone.
        confidence: of the bounds.
    """

    epsilon: float
    delta: float
    canaries_in: int
    canaries_out: int
    bounds: dict[str, float]
    lower_bound: float
    largest_bound: float
    estimate_every: float
    estimate_final: float
    confidence: float

    @property
    def is_violated(self) -> bool:
        """Whether the canaries contradict the ledger."""
        return self.lower_bound > self.epsilon


def audit_canaries(
    ledger: Ledger,
    canaries: Canaries,
    first_id: int,
    change: Sequence[np.ndarray],
    delta: float,
    significance: float,
    seed: int,
) -> CanaryAudit:
    """Looks for each selected canary in all that was released, and compares those that are in with those that are out.

    A canary's score is its direction's cosine with the combination of the rounds' noised sums that shows its pattern of
    participation best. The combination depends on the sums and the pattern alone, so that a direction that is out has
    the cosine of a random one, whatever the mechanism does.

    Args:
        ledger: of the finished run.
        canaries: that took part in it.
        first_id: id of the first canary in the ledger.
        change: final weights less the first ones.
        delta: of the epsilons.
        significance: probability that any of the bounds is wrong, in (0, 1/2).
        seed: of the split that chooses thresholds.

    Raises:
        ValueError: fewer than two canaries were selected on a side of the coin.
    """
    patterns = _participations(ledger, len(canaries), first_id)
    selected = np.flatnonzero(patterns.any(axis=1))
    is_in = canaries.is_in[selected]
    if min(is_in.sum(), (~is_in).sum()) < 2:
        raise ValueError(
            f"audit: {is_in.sum()} canaries in and {(~is_in).sum()} out were selected, at least two of each are "
            "needed: take more canaries, rounds or a larger cohort"
        )
    every = _score(canaries, np.stack(canaries.released), selected, patterns[selected])
    final = _score(canaries, flatten(change)[np.newaxis], selected, np.ones((len(selected), 1)))
    scores = every[is_in], every[~is_in]
    share = significance / len(_BOUNDS)
    bounds = {
        name: bound_by_split(bound, *scores, share, delta, seed) for name, bound in _BOUNDS.items()
    }
    judged_in, judged_out = (-(-len(side) // 2) for side in scores)  # half chose the threshold
    return CanaryAudit(
        epsilon=ledger.guarantee(delta).epsilon,
        delta=delta,
        canaries_in=len(scores[0]),
        canaries_out=len(scores[1]),
        bounds=bounds,
        lower_bound=max(bounds.values()),
        largest_bound=max(
            largest_bound(bound, judged_in, judged_out, share, delta) for bound in _BOUNDS.values()
        ),
        estimate_every=estimate_from_cosines(every[is_in], canaries.dimensions, delta),
        estimate_final=estimate_from_cosines(final[is_in], canaries.dimensions, delta),
        confidence=1 - significance,
    )


def flatten(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays shaped like the weights as one vector [d]."""
    return np.concatenate([np.ravel(part) for part in parts])


def _participations(ledger: Ledger, count: int, first_id: int) -> np.ndarray:
    """float64 [canaries, rounds]: 1 where a canary was selected, whatever its coin."""
    patterns = np.zeros((count, len(ledger.rounds)))
    for round_index, record in enumerate(ledger.rounds):
        chosen = np.array([device for device in record.selected if device >= first_id], int)
        patterns[chosen - first_id, round_index] = 1
    return patterns


def _score(
    canaries: Canaries, released: np.ndarray, chosen: np.ndarray, patterns: np.ndarray
) -> np.ndarray:
    """Cosine of each canary's direction with q = W'(WW')^-1 s, W the released rows and s its pattern over them."""
    gram = released.astype(np.float64) @ released.T.astype(np.float64)
    combinations = np.linalg.solve(gram, patterns.T).T
    norms = np.sqrt(np.einsum("ct,ct->c", combinations, patterns))
    projections = np.stack([released @ canaries.direction(int(canary)) for canary in chosen])
    return np.einsum("ct,ct->c", combinations, projections) / norms
