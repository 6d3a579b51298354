"""What a run really did to its devices, round by round, and the guarantee that follows from it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from operator import index
from typing import Any

from federated.accounting import (
    ComposedGuarantee,
    PrivacyGuarantee,
    account,
    compose,
)
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


@dataclass(frozen=True)
class RoundRecord:
    """Ids of the devices asked to take part and of those whose updates were summed, ascending."""

    selected: tuple[int, ...]
    reported: tuple[int, ...]


class Ledger:
    """The rounds of one run, each checked against the promise as it is recorded.

    A device that was selected and did not report added nothing to any sum: only reports are
    charged.

    Attributes:
        promise: holds for every round.
        rounds: what was recorded.
        earlier: ledgers of the releases that this run was built on, such as the histogram its text
            was chosen by. They concern the same devices, so `total` charges for them too.
    """

    def __init__(self, promise: Promise) -> None:
        self.promise = promise
        self.rounds: list[RoundRecord] = []
        self.earlier: tuple[Ledger, ...] = ()
        self._last_round: dict[int, int] = {}
        self._participations: dict[int, int] = {}

    @property
    def measured_participations(self) -> int:
        """Rounds of the device that reported most often, at least 1."""
        return max(self._participations.values(), default=1)

    def record(self, round_index: int, selected: Iterable[int], reported: Iterable[int]) -> None:
        """Charges a round, the first being 0; a round that is refused leaves the ledger as it was.

        Raises:
            TypeError: an id is no integer.
            LedgerError: the round was charged before or is not the next one, a device comes twice,
                reports without having been selected, too soon after its last report or too often.
        """
        if round_index != len(self.rounds):
            fault = "was charged before" if round_index < len(self.rounds) else "is out of order"
            raise LedgerError(f"round {round_index} {fault}: the next is {len(self.rounds)}")
        selected_ids, reported_ids = (sorted(index(i) for i in ids) for ids in (selected, reported))
        for ids in (selected_ids, reported_ids):
            if len(set(ids)) < len(ids):
                raise LedgerError(f"round {round_index}: a device is listed twice")
        uninvited = set(reported_ids).difference(selected_ids)
        if uninvited:
            raise LedgerError(
                f"round {round_index}: device {min(uninvited)} reported and was not selected"
            )
        limit = self.promise.max_participations
        for device in reported_ids:
            last = self._last_round.get(device)
            if last is not None and round_index - last < self.promise.min_separation:
                raise LedgerError(
                    f"round {round_index}: device {device} reported in round {last}, and the "
                    f"promised min_separation is {self.promise.min_separation}"
                )
            if limit is not None and self._participations.get(device, 0) >= limit:
                raise LedgerError(
                    f"round {round_index}: device {device} has reported {limit} times, the "
                    "promised max_participations"
                )
        for device in reported_ids:
            self._last_round[device] = round_index
            self._participations[device] = self._participations.get(device, 0) + 1
        self.rounds.append(RoundRecord(tuple(selected_ids), tuple(reported_ids)))

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
        return json.dumps(self._document())

    def _document(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "promise": {
                **asdict(self.promise),
                "strategy": strategy_document(self.promise.strategy),
            },
            "rounds": [asdict(record) for record in self.rounds],
            "earlier": [ledger._document() for ledger in self.earlier],
        }

    @classmethod
    def from_json(cls, text: str) -> "Ledger":
        """Reads `to_json`, checking every round anew, to be continued by a resumed run.

        Raises:
            ValueError: `text` is no ledger, or names the field at fault.
            LedgerError: a round breaks the ledger's own promise.
        """
        try:
            return cls._from_document(json.loads(text))
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
