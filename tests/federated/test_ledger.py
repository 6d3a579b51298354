"""The ledger refuses what breaks the promise and accounts for what was recorded."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accounting import account
from federated.cohort import CohortSelector
from federated.ledger import Ledger, LedgerError, Promise
from federated.strategies import BandedToeplitz, Blt, Gaussian, Strategy, Tree
from federated.zcdp import epsilon_from_rho

PROMISE = Promise(Tree(), 7.0, 0.5, min_separation=3, max_participations=2)


def test_guarantee_follows_from_what_was_recorded() -> None:
    ledger = Ledger(PROMISE)
    for round_index in range(3):
        ledger.record(round_index, [round_index], [round_index])
    assert ledger.guarantee(1e-6) == account(Tree(), 7.0, 3, 3, 1, 1e-6)
    ledger.record(3, [0], [0])
    assert ledger.guarantee(1e-6) == account(Tree(), 7.0, 4, 3, 2, 1e-6)


def test_devices_that_never_report_are_not_charged() -> None:
    ledger = Ledger(PROMISE)
    for round_index in range(4):
        ledger.record(round_index, [5, 7], [])
    assert ledger.measured_participations == 1
    assert ledger.guarantee(1e-6).rounds == 4


@given(st.data())
@settings(deadline=None)
def test_ledger_accepts_exactly_what_the_promise_allows(data) -> None:
    """Against the definition, on whole histories; a refused round leaves no trace."""
    rounds = data.draw(st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=1, max_size=8))
    ledger = Ledger(PROMISE)
    history: dict[int, list[int]] = {}
    for devices in rounds:
        round_index = len(ledger.rounds)
        after = {device: [*history.get(device, []), round_index] for device in devices}
        allowed = all(
            len(taken) <= 2 and all(j - i >= 3 for i, j in itertools.pairwise(taken))
            for taken in after.values()
        )
        if allowed:
            ledger.record(round_index, devices, devices)
            history |= after
        else:
            text = ledger.to_json()
            with pytest.raises(LedgerError):
                ledger.record(round_index, devices, devices)
            assert ledger.to_json() == text
    assert ledger.measured_participations == max([1, *map(len, history.values())])


def test_selector_and_ledger_agree() -> None:
    selector = CohortSelector(30, 3, 4, seed=9, max_participations=6)
    ledger = Ledger(Promise(Tree(), 1.0, 1.0, 4, 6))
    for round_index in range(40):
        cohort = selector.select(round_index)
        ledger.record(round_index, cohort, cohort[:-1])
    assert len(ledger.rounds) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [9], [9]), "round 0 was charged before: the next is 1"),
        ((2, [9], [9]), "round 2 is out of order: the next is 1"),
        ((1, [9, 9], [9]), "a device is listed twice"),
        ((1, [9], [9, 9]), "a device is listed twice"),
        ((1, [9], [8]), "device 8 reported and was not selected"),
        ((1, [1, 2], [2]), "device 2 reported in round 0, and the promised min_separation is 3"),
    ],
)
def test_a_broken_promise_stops_the_run(arguments, message: str) -> None:
    ledger = Ledger(PROMISE)
    ledger.record(0, [2, 1], [2])
    with pytest.raises(LedgerError, match=message):
        ledger.record(*arguments)


def test_too_many_participations_stop_the_run() -> None:
    ledger = Ledger(Promise(Tree(), 1.0, 1.0, min_separation=1, max_participations=2))
    for round_index in range(2):
        ledger.record(round_index, [4], [4])
    with pytest.raises(LedgerError, match="device 4 has reported 2 times"):
        ledger.record(2, [4], [4])


def test_resumed_ledger_goes_on_as_the_uninterrupted_one() -> None:
    selector = CohortSelector(30, 3, 4, seed=9)
    whole = resumed = Ledger(Promise(Tree(), 1.0, 1.0, 4))
    cohorts = [selector.select(round_index) for round_index in range(20)]
    for round_index, cohort in enumerate(cohorts):
        if round_index == 8:
            resumed = Ledger.from_json(whole.to_json())
        whole.record(round_index, cohort, cohort[1:])
        if resumed is not whole:
            resumed.record(round_index, cohort, cohort[1:])
    assert resumed.to_json() == whole.to_json()
    assert resumed.promise == whole.promise
    assert resumed.guarantee(1e-6) == whole.guarantee(1e-6)


def test_resumed_ledger_remembers_who_took_part() -> None:
    ledger = Ledger(PROMISE)
    ledger.record(0, [2], [2])
    with pytest.raises(LedgerError, match="device 2 reported in round 0"):
        Ledger.from_json(ledger.to_json()).record(1, [2], [2])


STRATEGIES = [
    Gaussian(),
    Gaussian(count_stddev=4.0),
    Tree(),
    Tree(restart_every=4),
    BandedToeplitz((1.0, 0.5, 0.25)),
    BandedToeplitz((1.0, 0.2, 0.4)),
    Blt((0.9, 0.5), (0.2, 0.25)),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_mechanism_is_charged_for_what_was_recorded_also_after_a_restart(
    strategy: Strategy,
) -> None:
    ledger = Ledger(Promise(strategy, 3.0, 0.5, min_separation=3))
    for round_index in range(11):
        ledger.record(round_index, [round_index % 5], [round_index % 5])
        ledger = Ledger.from_json(ledger.to_json())
        most = round_index // 5 + 1
        expected = account(strategy, 3.0, round_index + 1, 3, most, 1e-6)
        assert ledger.guarantee(1e-6) == expected
        assert ledger.promise.strategy == strategy


def test_with_sampling_the_chance_is_charged_and_not_who_was_drawn() -> None:
    strategy = Gaussian(sampling_rate=0.2)
    ledger = Ledger(Promise(strategy, 8.0, 0.5, min_separation=1))
    for round_index, devices in enumerate([[1, 2], [], [1], [1, 3]]):
        ledger.record(round_index, devices, devices)
    assert ledger.guarantee(1e-6) == account(strategy, 8.0, 4, 1, None, 1e-6)
    ledger.earlier = (release_once(4),)
    total = ledger.total(1e-6)
    assert total.rho is None
    assert total.epsilon > max(part.epsilon for part in total.parts)


def test_no_guarantee_without_a_round() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        Ledger(PROMISE).guarantee(1e-6)


def release_once(devices: int) -> Ledger:
    ledger = Ledger(Promise(Gaussian(), 2.0, 1.0, min_separation=1, max_participations=1))
    ledger.record(0, range(devices), range(devices))
    return ledger


def test_the_total_adds_the_earlier_releases() -> None:
    earliest, earlier, ledger = release_once(5), release_once(9), Ledger(PROMISE)
    ledger.record(0, [1], [1])
    earlier.earlier = (earliest,)
    ledger.earlier = (earlier,)
    total = ledger.total(1e-6)
    assert [part.mechanism for part in total.parts] == ["gaussian", "gaussian", "tree"]
    assert total.parts[-1] == ledger.guarantee(1e-6) == account(Tree(), 7.0, 1, 3, 1, 1e-6)
    assert total.rho == pytest.approx(1 / 8 + 1 / 8 + 1 / 98)
    assert total.epsilon == pytest.approx(epsilon_from_rho(1 / 4 + 1 / 98, 1e-6))


def test_a_total_without_earlier_releases_is_the_guarantee() -> None:
    ledger = release_once(3)
    assert ledger.total(1e-6).parts == (ledger.guarantee(1e-6),)
    assert ledger.total(1e-6).epsilon == ledger.guarantee(1e-6).epsilon


def test_earlier_releases_are_part_of_the_file_and_checked() -> None:
    ledger = Ledger(PROMISE)
    ledger.record(0, [1], [1])
    ledger.earlier = (release_once(4),)
    read = Ledger.from_json(ledger.to_json())
    assert read.to_json() == ledger.to_json()
    assert read.total(1e-6) == ledger.total(1e-6)

    forged = json.loads(ledger.to_json())
    forged["earlier"][0]["rounds"] *= 2
    with pytest.raises(LedgerError, match="device 0 has reported 1 times"):
        Ledger.from_json(json.dumps(forged))
    del forged["earlier"]
    with pytest.raises(ValueError, match="'earlier' is missing"):
        Ledger.from_json(json.dumps(forged))


def test_a_forged_ledger_is_refused() -> None:
    ledger = Ledger(PROMISE)
    ledger.record(0, [2], [2])
    document = json.loads(ledger.to_json())
    document["rounds"] *= 2
    with pytest.raises(LedgerError, match="device 2 reported in round 0"):
        Ledger.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a field has the wrong type"),
        ("{}", "'schema' is missing"),
        ('{"schema": "other/1"}', "schema is 'other/1'"),
        ('{"schema": "keyfed-ledger/1"}', "schema is 'keyfed-ledger/1', must be 'keyfed-ledger/2'"),
        ('{"schema": "keyfed-ledger/2", "promise": {"rounds": 1}}', "'strategy' is missing"),
        (
            '{"schema": "keyfed-ledger/2", "promise": {"rounds": 1, "strategy": {"name": "tree", '
            '"restart_every": null}}}',
            "wrong type or name",
        ),
        (
            '{"schema": "keyfed-ledger/2", "promise": {"strategy": {"name": "laplace"}}}',
            "mechanism is 'laplace', and only",
        ),
    ],
)
def test_a_file_that_is_no_ledger_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ledger.from_json(text)


@pytest.mark.parametrize(
    ("device", "fault"),
    [
        ("anna", "wrong type"),
        (1.5, "wrong type"),
        ([1], "wrong type"),
        (-1, "a device id is not in 0 to 2147483647"),
        (2**31, "a device id is not in 0 to 2147483647"),
        (2**70, "wrong type"),
    ],
)
def test_ids_are_integers(device, fault: str) -> None:
    document = json.loads(Ledger(PROMISE).to_json())
    for field in ("selected", "reported"):
        document["rounds"] = [{"selected": [], "reported": []} | {field: [device]}]
        with pytest.raises(ValueError, match=fault):
            Ledger.from_json(json.dumps(document))


def test_the_file_is_plain_json_for_people() -> None:
    """Two small ledgers, spelled out."""
    ledger = Ledger(PROMISE)
    ledger.record(0, [3, 1, 2], [3, 1])
    ledger.record(1, [], [])
    ledger.earlier = (release_once(1), release_once(2))
    promise = {
        "strategy": {"name": "tree", "restart_every": None},
        "noise_multiplier": 7.0,
        "clip_norm": 0.5,
        "min_separation": 3,
        "max_participations": 2,
    }
    document = json.loads(ledger.to_json())
    assert document == {
        "schema": "keyfed-ledger/2",
        "promise": promise,
        "rounds": [
            {"selected": [1, 2, 3], "reported": [1, 3]},
            {"selected": [], "reported": []},
        ],
        "earlier": [json.loads(earlier.to_json()) for earlier in ledger.earlier],
    }
    assert json.dumps(document) == ledger.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Tree(), 0.0, 1.0, 1), "noise_multiplier is 0.0"),
        ((Tree(), 1.0, float("inf"), 1), "clip_norm is inf"),
        ((Tree(), 1.0, 1.0, 0), "min_separation is 0"),
        ((Tree(), 1.0, 1.0, 1, 0), "max_participations is 0"),
        ((BandedToeplitz((1.0, 0.2, 0.9)), 1.0, 1.0, 2), "up to min_separation, 2"),
        ((Gaussian(sampling_rate=0.1), 1.0, 1.0, 3), "must be 1 and None with a sampling_rate"),
    ],
)
def test_promise_names_the_field_at_fault(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Promise(*arguments)
