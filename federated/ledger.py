"""What a run really did to its devices, round by round, and the guarantee that follows from it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from federated.accounting import (
    ComposedGuarantee,
    PrivacyGuarantee,
    account,
    compose,
)
from federated.round_records import MAX_DEVICE, RoundRecords
from federated.strategies import Gaussian, Strategy, read_strategy, strategy_document

_SCHEMA = "keyfed-ledger/2"


class LedgerError(ValueError):
    """A round breaks the promise under which the run is accounted for; the run has to stop."""


@dataclass(frozen=True)
class Promise:
    """The facts that hold for every round of a run.

    strategy is how the noise is drawn and what it is spent on, noise_multiplier > 0 that of the updates in clip norms,
    clip_norm > 0 the largest L2 norm of a device's update, of the first round's if it adapts, min_separation b >= 1
    (|i - j| >= b), max_participations k >= 1 or None for no limit.

    Raises:
        ValueError: a value is out of its range, or no accountant covers them together.
    """

    strategy: Strategy
    noise_multiplier: float
    clip_norm: float
    min_separation: int
    max_participations: int | None = None

    def __post_init__(self) -> None:
        for name in ("noise_multiplier", "clip_norm"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value!r}, must be positive and finite")
        for name in ("min_separation", "max_participations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value!r}, must be at least 1")
        self.strategy.check(self.min_separation, self.max_participations)


class Ledger:
    """The rounds of one run, each checked against the promise as it is recorded.

    A device that was selected and did not report added nothing to any sum: only reports are
    charged. A round that was abandoned is none here, see `Participation`: no sum of it was used.

    Attributes:
        promise: holds for every round.
        rounds: what was recorded.
        earlier: ledgers of the releases that this run was built on, such as the histogram its text
            was chosen by. They concern the same devices, so `total` charges for them too.
    """

    def __init__(self, promise: Promise) -> None:
        self.promise = promise
        self.rounds = RoundRecords()
        self.earlier: tuple[Ledger, ...] = ()
        # by device: one more than the round of its last report, 0 before the first; and the number of its reports
        self._after_report = np.zeros(0, np.int32)
        self._participations = np.zeros(0, np.int32)
        self._most_participations = 1

    @property
    def measured_participations(self) -> int:
        """Rounds of the device that reported most often, at least 1."""
        return self._most_participations

    def record(
        self,
        round_index: int,
        selected: Iterable[int] | np.ndarray,
        reported: Iterable[int] | np.ndarray,
    ) -> None:
        """Charges a round, the first being 0; a round that is refused leaves the ledger as it was.

        Raises:
            TypeError: an id is no integer.
            ValueError: an id is not in 0 to MAX_DEVICE.
            LedgerError: the round was charged before or is not the next one, a device comes twice,
                reports without having been selected, too soon after its last report or too often.
        """
        if round_index != len(self.rounds):
            fault = "was charged before" if round_index < len(self.rounds) else "is out of order"
            raise LedgerError(f"round {round_index} {fault}: the next is {len(self.rounds)}")
        selected_ids, reported_ids = _sorted_ids(selected), _sorted_ids(reported)
        for ids in (selected_ids, reported_ids):
            if (ids[1:] == ids[:-1]).any():
                raise LedgerError(f"round {round_index}: a device is listed twice")
        uninvited = np.setdiff1d(reported_ids, selected_ids, assume_unique=True)
        if len(uninvited):
            raise LedgerError(
                f"round {round_index}: device {uninvited.min()} reported and was not selected"
            )
        self._make_room(reported_ids)
        after = self._after_report[reported_ids]
        hasty = (after > 0) & (round_index + 1 - after < self.promise.min_separation)
        if hasty.any():
            first = int(hasty.argmax())
            raise LedgerError(
                f"round {round_index}: device {reported_ids[first]} reported in round {after[first] - 1}, and the "
                f"promised min_separation is {self.promise.min_separation}"
            )
        counts = self._participations[reported_ids] + 1
        limit = self.promise.max_participations
        if limit is not None and (counts > limit).any():
            raise LedgerError(
                f"round {round_index}: device {reported_ids[(counts > limit).argmax()]} has reported {limit} times, "
                "the promised max_participations"
            )
        self._after_report[reported_ids] = round_index + 1
        self._participations[reported_ids] = counts
        self._most_participations = max(self._most_participations, int(counts.max(initial=0)))
        self.rounds.append(selected_ids, reported_ids)

    def _make_room(self, devices: np.ndarray) -> None:
        """Lengthens what is known of each device, at least twofold, up to the largest id."""
        known, needed = len(self._participations), int(devices.max(initial=-1)) + 1
        if needed > known:
            for name in ("_after_report", "_participations"):
                longer = np.zeros(max(needed, 2 * known), np.int32)
                longer[:known] = getattr(self, name)
                setattr(self, name, longer)

    def guarantee(self, delta: float) -> PrivacyGuarantee:
        """Guarantee of the rounds recorded so far: promised separation, measured participations.

        With Poisson sampling the chance to take part is charged, not who did.

        Without the earlier ledgers; what a device loses in all is `total`.

        Raises:
            ValueError: no round is recorded, or delta is not in (0, 1).
        """
        promise = self.promise
        is_sampled = isinstance(promise.strategy, Gaussian) and promise.strategy.sampling_rate
        return account(
            promise.strategy,
            promise.noise_multiplier,
            len(self.rounds),
            promise.min_separation,
            None if is_sampled else self.measured_participations,
            delta,
        )

    def total(self, delta: float) -> ComposedGuarantee:
        """Guarantee of the rounds here and in all earlier ledgers together, one part each, earliest first.

        Raises:
            ValueError: as `guarantee`.
        """
        earlier = [part for ledger in self.earlier for part in ledger.total(delta).parts]
        return compose([*earlier, self.guarantee(delta)])

    def to_json(self) -> str:
        """The whole ledger as one JSON object; device ids are all it says about anybody."""
        return "".join(self._json_parts())

    def _json_parts(self) -> Iterator[str]:
        """A round at a time, as json.dumps would write the whole."""
        promise = asdict(self.promise) | {"strategy": strategy_document(self.promise.strategy)}
        yield f'{{"schema": "{_SCHEMA}", "promise": {json.dumps(promise)}, "rounds": ['
        for round_index, record in enumerate(self.rounds):
            yield (", " if round_index else "") + json.dumps(vars(record))
        yield '], "earlier": ['
        for number, ledger in enumerate(self.earlier):
            yield ", " if number else ""
            yield from ledger._json_parts()
        yield "]}"

    @classmethod
    def from_json(cls, text: str) -> "Ledger":
        """Reads `to_json`, checking every round anew, to be continued by a resumed run.

        Raises:
            ValueError: `text` is no ledger, or names the field at fault.
            LedgerError: a round breaks the ledger's own promise.
        """
        try:
            return cls._from_document(json.loads(text, object_hook=_pack_round))
        except json.JSONDecodeError as error:
            raise ValueError(f"ledger: not JSON, {error.msg} in line {error.lineno}") from error
        except KeyError as error:
            raise ValueError(f"ledger: {error} is missing") from error
        except TypeError as error:
            raise ValueError(f"ledger: a field has the wrong type or name, {error}") from error

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> "Ledger":
        schema = document["schema"]
        if schema != _SCHEMA:
            raise ValueError(f"ledger: schema is {schema!r}, must be {_SCHEMA!r}")
        promise = document["promise"]
        ledger = cls(Promise(**{**promise, "strategy": read_strategy(promise["strategy"])}))
        for round_index, record in enumerate(document["rounds"]):
            ledger.record(round_index, record["selected"], record["reported"])
        ledger.earlier = tuple(cls._from_document(earlier) for earlier in document["earlier"])
        return ledger


def _pack_round(fields: dict[str, Any]) -> dict[str, Any]:
    """A round's lists of ids as arrays, as soon as they are read, for a list takes ten times their memory."""
    if fields.keys() == {"selected", "reported"}:
        return {name: _sorted_ids(ids) for name, ids in fields.items()}
    return fields


def _sorted_ids(ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Device ids in ascending order, int64."""
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
    if not array.size:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError("a device id is no integer")
    if array.min() < 0 or array.max() > MAX_DEVICE:
        raise ValueError(f"a device id is not in 0 to {MAX_DEVICE}")
    return np.sort(array.astype(np.int64))
