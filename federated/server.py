"""What the server does with a round's noised mean update: SGD with momentum or Adam, with a learning-rate cool-down.

All of it is post-processing of noised sums, and costs no privacy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Weights = list[np.ndarray]

OPTIMIZERS = ("sgd", "adam")
_SECOND_MOMENT_DECAY = 0.99  # Reddi et al. 2021 (arXiv:2003.00295), section 4


@dataclass(frozen=True)
class LearningRate:
    """Constant, then falling linearly to a share of itself in the last rounds, so that the last model moves less.

    Attributes:
        peak: > 0.
        rounds: of the run.
        cooldown_rounds: how many of them cool down, 0 to `rounds`.
        final_share: of the peak, in the last round, in (0, 1].
    """

    peak: float
    rounds: int
    cooldown_rounds: int = 0
    final_share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.peak < float("inf"):
            raise ValueError(f"peak is {self.peak!r}, must be positive and finite")
        if not 0 <= self.cooldown_rounds <= self.rounds:
            raise ValueError(
                f"cooldown_rounds is {self.cooldown_rounds!r}, must be 0 to rounds, {self.rounds}"
            )
        if not 0 < self.final_share <= 1:
            raise ValueError(f"final_share is {self.final_share!r}, must be in (0, 1]")

    def at(self, round_index: int) -> float:
        """Of a round, the first being 0; rounds past the planned ones stay at the end's."""
        cooled = round_index + 1 - (self.rounds - self.cooldown_rounds)
        if self.cooldown_rounds == 0 or cooled <= 0:
            return self.peak
        share = min(1.0, cooled / self.cooldown_rounds)
        return self.peak * (1 - share * (1 - self.final_share))


class ServerOptimizer(Protocol):
    """Steps the weights, with state of its own."""

    def step(self, weights: Weights, update: Sequence[np.ndarray], learning_rate: float) -> None:
        """Moves the weights, in place, along the mean update, which points where the loss falls."""

    def state(self) -> list[np.ndarray]:
        """Flat, for a checkpoint."""

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Goes on from `state()` of an optimizer with the same settings."""


class SgdMomentum:
    """v <- momentum v + update, w <- w + learning_rate v.

    Args:
        weights: for their shapes.
        momentum: in [0, 1).
    """

    def __init__(self, weights: Sequence[np.ndarray], momentum: float) -> None:
        self._momentum = momentum
        self._velocity = [np.zeros_like(w) for w in weights]

    def step(self, weights: Weights, update: Sequence[np.ndarray], learning_rate: float) -> None:
        for weight, velocity, change in zip(weights, self._velocity, update, strict=True):
            velocity *= self._momentum
            velocity += change
            weight += learning_rate * velocity

    def state(self) -> list[np.ndarray]:
        return self._velocity

    def restore(self, state: Sequence[np.ndarray]) -> None:
        self._velocity = [np.array(v) for v in state]


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on the mean update, as FedAdam does (Reddi et al. 2021).

    Args:
        weights: for their shapes.
        momentum: beta_1 in [0, 1).
        epsilon: > 0, added to the root of the second moment.
    """

    def __init__(self, weights: Sequence[np.ndarray], momentum: float, epsilon: float) -> None:
        self._momentum, self._epsilon = momentum, epsilon
        self._steps = 0
        self._first = [np.zeros_like(w) for w in weights]
        self._second = [np.zeros_like(w) for w in weights]

    def step(self, weights: Weights, update: Sequence[np.ndarray], learning_rate: float) -> None:
        self._steps += 1
        first_sum = 1 - self._momentum**self._steps
        second_sum = 1 - _SECOND_MOMENT_DECAY**self._steps
        for weight, first, second, change in zip(
            weights, self._first, self._second, update, strict=True
        ):
            first += (1 - self._momentum) * (change - first)
            second += (1 - _SECOND_MOMENT_DECAY) * (change**2 - second)
            weight += (
                learning_rate * (first / first_sum) / (np.sqrt(second / second_sum) + self._epsilon)
            )

    def state(self) -> list[np.ndarray]:
        return [np.array(self._steps), *self._first, *self._second]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        steps, *moments = [np.array(part) for part in state]
        self._steps = int(steps)
        self._first, self._second = moments[: len(moments) // 2], moments[len(moments) // 2 :]


def create_server_optimizer(
    name: str, weights: Sequence[np.ndarray], momentum: float, epsilon: float
) -> ServerOptimizer:
    """Optimizer `sgd` or `adam`.

    Raises:
        ValueError: unknown name.
    """
    if name == "sgd":
        return SgdMomentum(weights, momentum)
    if name == "adam":
        return Adam(weights, momentum, epsilon)
    raise ValueError(f"server optimizer {name!r}: give one of {', '.join(OPTIMIZERS)}")
