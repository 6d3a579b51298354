"""The convergence of a run: each arm's accuracy over rounds and over what they cost the devices."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from eval.convergence import choose_levels, compare_rounds, price_points
from federated.accounting import compose, project
from federated.ledger import Ledger
from scripts.pipeline import ARMS, Run
from scripts.stages import stage_seconds


def measure_convergence(
    run: Run, curves: Mapping[str, Sequence[Mapping[str, Any]]], arms: Mapping[str, Any]
) -> dict[str, Any]:
    """The key `convergence` of results.json.

    Args:
        run: with finished arms.
        curves: by arm, as the federated stages measured them on validation users.
        arms: `arms` of results.json, test users' figures, which gains are of.

    Returns:
        `curve.<arm>`: the curve's points with rho, epsilon and projected_epsilon spent until then; `levels`, see
        `eval.convergence.compare_rounds`; `cost.<arm>.<pretrained|federated>`, see `price_points`: words are read in
        pre-training, reports are devices' updates.
    """
    config = run.config.federated
    scale = config.delta, config.cohort, config.production_cohort, config.production_population
    curve, cost = {}, {}
    for arm in ARMS:
        ledger = (run.out / run.federated(arm).name / "ledger.json").read_text("utf-8")
        spent = _list_spent(ledger, tuple(point["round"] for point in curves[arm]), *scale)
        curve[arm] = [{**point, **costs} for point, costs in zip(curves[arm], spent, strict=True)]
        before, after = (arms[arm][step]["top1"]["value"] for step in ("pretrained", "federated"))
        cost[arm] = {
            "pretrained": price_points(
                before,
                seconds=stage_seconds(run.out / run.pretrained(arm).name),
                words=run.read_json(f"pretrained/{arm}/read.json")["words_read"],
            ),
            "federated": price_points(
                after - before,
                seconds=stage_seconds(run.out / run.federated(arm).name),
                reports=sum(len(record.reported) for record in Ledger.from_json(ledger).rounds),
            ),
        }
    levels = choose_levels(list(curves.values()))
    return {
        "curve": curve,
        "levels": compare_rounds(curves["web"], curves["synthetic"], levels),
        "cost": cost,
    }


@functools.lru_cache(maxsize=1)  # both arms' ledgers are often the same, and some accountants slow
def _list_spent(
    text: str,
    rounds: tuple[int, ...],
    delta: float,
    cohort: int,
    production_cohort: int,
    production_population: int,
) -> list[dict[str, float | None]]:
    """What a device has lost after each number of rounds of a ledger, here and in production.

    The releases that the run was built on are lost from the start; a projection is of the rounds alone.
    """
    ledger = Ledger.from_json(text)
    done = Ledger(ledger.promise)
    earlier = [part for before in ledger.earlier for part in before.total(delta).parts]
    spent: list[dict[str, float | None]] = []
    for number in rounds:
        for index in range(len(done.rounds), number):
            record = ledger.rounds[index]
            done.record(index, record.selected, record.reported)
        parts, projected = list(earlier), 0.0
        if number:
            parts.append(done.guarantee(delta))
            production = project(parts[-1], cohort, production_cohort, production_population)
            projected = production.guarantee.epsilon
        rho: float | None = 0.0
        epsilon = 0.0
        if parts:
            total = parts[0] if len(parts) == 1 else compose(parts)
            rho, epsilon = total.rho, total.epsilon
        spent.append({"rho": rho, "epsilon": epsilon, "projected_epsilon": projected})
    return spent
