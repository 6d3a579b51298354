"""Epsilon after each round is what a ledger said at that moment, the releases before the run included."""

import pytest

from federated.accounting import account, project
from federated.ledger import Ledger, Promise
from federated.strategies import Gaussian, Tree
from federated.zcdp import epsilon_from_rho
from scripts.convergence import _list_spent

DELTA = 1e-6
FLEET = (3, 600, 30_000)
ROUNDS = [(0, 1, 2), (3, 4, 5), (0, 6, 7), (1, 3), (0, 2, 8)]  # device 0 three times in the end


def test_each_point_costs_what_was_spent_by_then():
    histogram = Ledger(Promise(Gaussian(), 2.0, 1.0, 1))
    histogram.record(0, [0, 1], [0, 1])
    ledger = Ledger(Promise(Tree(), 1.5, 0.3, 2))
    ledger.earlier = (histogram,)
    totals = [histogram.total(DELTA)]
    for index, devices in enumerate(ROUNDS):
        ledger.record(index, devices, devices)
        totals.append(ledger.total(DELTA))
    spent = _list_spent(ledger.to_json(), (0, 1, 3, 5), DELTA, *FLEET)
    for number, costs in zip((0, 1, 3, 5), spent, strict=True):
        assert costs["rho"] == pytest.approx(totals[number].rho)
        assert costs["epsilon"] == pytest.approx(totals[number].epsilon)
    assert spent[0]["rho"] == pytest.approx(1 / (2 * 2.0**2)) and spent[0]["projected_epsilon"] == 0
    by_hand = [
        account(Tree(), 1.5, rounds, 2, participations, DELTA)
        for rounds, participations in ((1, 1), (3, 2), (5, 3))
    ]
    for guarantee, costs in zip(by_hand, spent[1:], strict=True):
        assert costs["epsilon"] == pytest.approx(epsilon_from_rho(guarantee.rho + 1 / 8, DELTA))
        projected = project(guarantee, *FLEET).guarantee.epsilon
        assert costs["projected_epsilon"] == pytest.approx(projected)


def test_nothing_is_spent_before_the_first_round():
    ledger = Ledger(Promise(Gaussian(sampling_rate=0.1), 1.0, 0.3, 1))
    ledger.record(0, [0], [0])
    first, second = _list_spent(ledger.to_json(), (0, 1), DELTA, *FLEET)
    assert first == {"rho": 0.0, "epsilon": 0.0, "projected_epsilon": 0.0}
    assert second["rho"] is None
    assert second["epsilon"] == account(Gaussian(sampling_rate=0.1), 1.0, 1, 1, None, DELTA).epsilon
