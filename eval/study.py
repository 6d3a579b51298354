"""Several arms and training seeds on one test set: lifts, share of the gap closed, cost of a point.

Intervals are over users, and over training seeds where there are several. Pairs of arms are compared
over the seeds that both have; what was not run is not in the study.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.comparison import compare_scores, seed_interval, stack_hits
from eval.next_word import FIGURES, WordScores
from eval.statistics import (
    LEVEL,
    Interval,
    SeedVariance,
    gap_interval,
    lift_errors,
    simultaneous_level,
)

# The arms a study knows, in the order in which it shows them.
ARMS = (
    "web_news",
    "web_all",
    "filtered",
    "converted",
    "generated",
    "synthetic",
    "synthetic_no_typing",
    "synthetic_with_typing",
    "synthetic_no_dedup",
    "synthetic_with_dedup",
    "synthetic_no_floor",
    "synthetic_no_everyday",
    "synthetic_adapted",
    "real_chat",
)
MIX = "synthetic"
ADAPTED = "synthetic_adapted"
CEILING = "real_chat"
BASELINES = ("web_all", "web_news")
COST_BASELINE = "web_all"

# What tells an ablation arm from the mix: what the mix has more, or for ADAPTED what it has less.
PARTS = {
    "web_news": "synthetic text",
    "web_all": "synthetic text",
    "filtered": "the other sources",
    "converted": "the other sources",
    "generated": "the other sources",
    "synthetic_no_typing": "typing noise",
    "synthetic_with_typing": "leaving typing noise out",
    "synthetic_no_dedup": "dropping duplicates",
    "synthetic_with_dedup": "keeping duplicates",
    "synthetic_no_floor": "the floor of human text",
    "synthetic_no_everyday": "everyday chats",
    ADAPTED: "private adaptation",
}


@dataclass(frozen=True)
class ArmRun:
    """One model: an arm trained with one seed, and what became of it on the test users.

    Attributes:
        arm: one of `ARMS`.
        scores: counts by user, in one order for all runs of a test set.
        words_read: words trained on, repeats counted.
        distinct_words: words of the arm's text before any repeats.
        seconds: training time.
    """

    arm: str
    seed: int
    scores: WordScores
    words_read: int
    distinct_words: int
    seconds: float

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"arm is {self.arm!r}, must be one of {', '.join(ARMS)}")
        for name in ("words_read", "distinct_words", "seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{self.arm}, seed {self.seed}: {name} is {value}, must be >= 0")


@dataclass(frozen=True)
class Bars:
    """What the mix is to reach, declared before the study.

    Attributes:
        lifts: by baseline, (the least relative lift, what its whole interval must exceed).
        gap_closed: the least share of the gap to other users' real chat.
    """

    lifts: Mapping[str, tuple[float, float]]
    gap_closed: float


# 0.228: the highest lift published for Gboard (Wu et al. 2024, arXiv:2404.04360). Others are our own.
BARS = Bars(lifts={"web_all": (0.35, 0.228), "web_news": (0.60, 0.45)}, gap_closed=0.80)


def build_study(runs: Sequence[ArmRun], seed: int, *, bars: Bars = BARS) -> dict[str, Any]:
    """The figures of a study on one test set, as JSON values.

    Intervals are 95 %, over users and training seeds, paired; an end that is None has no limit, a value
    that is None is not defined. How lifts vary between seeds is learned from all arms with several, and
    holds for arms with one as well; if no arm has several, intervals are over users alone.
    `top1_by_seed`, `top1_seed_sd` (None for one seed) and `by_seed` tell how seeds differ.

    Args:
        runs: at most one for each arm and seed; arms and seeds may be missing.
        seed: of the bootstrap.

    Returns:
        `seeds`, `users`, `targets`;
        `arms`: by name top1, top3, top1_all, top3_all, oov_rate as {value, low, high}, seeds,
            top1_by_seed, top1_seed_sd and the means over seeds of words_read, distinct_words, seconds;
        `lifts`: [{arm, over, relative, low, high, seeds, by_seed}];
        `gap_closed`: by baseline {value, low, high, seeds, by_seed};
        `bars`: {lifts: [{over, relative, low, reached}], gap_closed: [{over, value, reached}]},
            reached is None for what was not measured;
        `ablations`: [{arm, part, relative, low, high, effect}]: of the lifts over the mix, their intervals
            widened until all of them hold together with 95 %; effect is "helps", "hurts" or "no clear
            difference" by these;
        `cost`: by arm {gain, seconds_per_point, words_per_point}: gain is the difference in top-1 from
            web_all, the others training seconds and distinct words for each 0.01 of it.

    Raises:
        ValueError: no runs, an arm twice with one seed, or runs on different targets.
    """
    by_arm = _group(runs)
    lifts = _build_lifts(by_arm, seed)
    gaps = _build_gaps(by_arm, seed)
    asked = runs[0].scores
    return {
        "seeds": sorted({run.seed for run in runs}),
        "users": len(asked),
        "targets": int(asked.targets.sum()),
        "arms": {arm: _describe_arm(by_seed, seed) for arm, by_seed in by_arm.items()},
        "lifts": lifts,
        "gap_closed": gaps,
        "bars": _compare_with_bars(lifts, gaps, bars),
        "ablations": _build_ablations(by_arm, seed),
        "cost": {
            arm: _cost(by_seed, by_arm[COST_BASELINE])
            for arm, by_seed in by_arm.items()
            if COST_BASELINE in by_arm and arm != COST_BASELINE
        },
    }


def find_lift(study: Mapping[str, Any], arm: str, over: str) -> dict[str, Any] | None:
    """The lift of one arm over another, or None if the study does not have it."""
    pairs = (lift for lift in study["lifts"] if (lift["arm"], lift["over"]) == (arm, over))
    return next(pairs, None)


def _group(runs: Sequence[ArmRun]) -> dict[str, dict[int, ArmRun]]:
    """Runs by arm, as ordered in `ARMS`, and ascending seed."""
    if not runs:
        raise ValueError("the study has no runs: train and score at least one arm")
    by_arm: dict[str, dict[int, ArmRun]] = {arm: {} for arm in ARMS}
    for run in sorted(runs, key=lambda run: run.seed):
        if run.seed in by_arm[run.arm]:
            raise ValueError(f"{run.arm} comes twice with seed {run.seed}; give each run once")
        by_arm[run.arm][run.seed] = run
        if not run.scores.has_targets_of(runs[0].scores):
            raise ValueError(
                f"{run.arm}, seed {run.seed}: other users, targets or vocabulary than "
                f"{runs[0].arm}, seed {runs[0].seed}; score all runs on the same ones"
            )
    return {arm: by_seed for arm, by_seed in by_arm.items() if by_seed}


def _common(*arms: Mapping[int, ArmRun]) -> list[int]:
    return sorted(set.intersection(*(set(by_seed) for by_seed in arms)))


def _pick(by_seed: Mapping[int, ArmRun], seeds: Sequence[int]) -> list[WordScores]:
    return [by_seed[seed].scores for seed in seeds]


def _top1(scores: WordScores) -> float:
    return float(scores.top1_in.sum() / scores.in_vocab.sum())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _describe_arm(by_seed: Mapping[int, ArmRun], seed: int) -> dict[str, Any]:
    scores = _pick(by_seed, list(by_seed))
    by_seed_top1 = {str(number): _top1(run.scores) for number, run in by_seed.items()}
    return {
        **{name: _ends(seed_interval(scores, name, seed)) for name in FIGURES},
        "seeds": list(by_seed),
        "top1_by_seed": by_seed_top1,
        "top1_seed_sd": _standard_deviation(list(by_seed_top1.values())),
        "words_read": round(_mean([run.words_read for run in by_seed.values()])),
        "distinct_words": round(_mean([run.distinct_words for run in by_seed.values()])),
        "seconds": _mean([run.seconds for run in by_seed.values()]),
    }


def _standard_deviation(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _build_lifts(by_arm: Mapping[str, Mapping[int, ArmRun]], seed: int) -> list[dict[str, Any]]:
    """The mix and its adapted kind over news; each arm over all web text and over the mix."""
    pairs = [
        *((arm, "web_news") for arm in (MIX, ADAPTED)),
        *((arm, "web_all") for arm in ARMS),
        *((arm, MIX) for arm in ARMS),
    ]
    variance = _pool_seed_variance(by_arm)
    lifts = []
    for arm, over in pairs:
        if arm == over or arm not in by_arm or over not in by_arm:
            continue
        seeds = _common(by_arm[arm], by_arm[over])
        if not seeds:
            continue
        scores = _pick(by_arm[over], seeds), _pick(by_arm[arm], seeds)
        lift = _lift(*scores, seed, variance)
        lifts.append(
            {
                "arm": arm,
                "over": over,
                **lift,
                "seeds": seeds,
                "by_seed": {
                    str(number): _relative(by_arm[over][number], by_arm[arm][number])
                    for number in seeds
                },
            }
        )
    return lifts


def _pool_seed_variance(by_arm: Mapping[str, Mapping[int, ArmRun]]) -> SeedVariance | None:
    """Variance of a log lift between training seeds, from all arms that have several; None if none has.

    Every arm is taken to vary alike, relative to its level: three seeds of one pair alone would be known
    with two degrees of freedom, whose t quantiles drown all effects of a table. Two arms of equal seed
    are taken to vary independently.
    """
    variances, freedom = 0.0, 0
    for by_seed in by_arm.values():
        shares = [_top1(run.scores) for run in by_seed.values()]
        if len(shares) > 1 and min(shares) > 0:
            deviation = _standard_deviation([math.log(share) for share in shares]) or 0.0
            variances += deviation**2 * (len(shares) - 1)
            freedom += len(shares) - 1
    return SeedVariance(2 * variances / freedom, freedom) if freedom else None


def _lift(
    baselines: Sequence[WordScores],
    scores: Sequence[WordScores],
    seed: int,
    seeds: SeedVariance | None,
    level: float = LEVEL,
) -> dict[str, float | None]:
    lift = compare_scores(baselines, scores, seed, level=level, seed_variance=seeds).relative
    if lift is None:
        return {"relative": None, "low": None, "high": None}
    ends = _ends(lift)
    return {"relative": ends["value"], "low": ends["low"], "high": ends["high"]}


def _build_ablations(by_arm: Mapping[str, Mapping[int, ArmRun]], seed: int) -> list[dict[str, Any]]:
    """The parts' arms over the mix, at a level at which all intervals of the table hold together."""
    pairs = {
        arm: (_pick(by_arm[MIX], seeds), _pick(by_arm[arm], seeds))
        for arm in PARTS
        if MIX in by_arm and arm in by_arm and (seeds := _common(by_arm[MIX], by_arm[arm]))
    }
    errors = [
        lift_errors(*(stack_hits(scores, "top1") for scores in pair)) for pair in pairs.values()
    ]
    level = simultaneous_level(errors, seed)
    variance = _pool_seed_variance(by_arm)
    rows = []
    for arm, (baselines, scores) in pairs.items():
        lift = _lift(baselines, scores, seed, variance, level)
        rows.append({"arm": arm, "part": PARTS[arm], **lift, "effect": _effect(arm, lift)})
    return rows


def _relative(baseline: ArmRun, run: ArmRun) -> float | None:
    share = _top1(baseline.scores)
    return _top1(run.scores) / share - 1 if share else None


def _build_gaps(by_arm: Mapping[str, Mapping[int, ArmRun]], seed: int) -> dict[str, dict[str, Any]]:
    gaps: dict[str, dict[str, Any]] = {}
    for baseline in BASELINES:
        arms = (baseline, MIX, CEILING)
        if not all(arm in by_arm for arm in arms):
            continue
        seeds = _common(*(by_arm[arm] for arm in arms))
        if not seeds:
            continue
        gaps[baseline] = {
            **_gap([_pick(by_arm[arm], seeds) for arm in arms], seed),
            "seeds": seeds,
            "by_seed": {
                str(number): _gap([_pick(by_arm[arm], [number]) for arm in arms], seed)["value"]
                for number in seeds
            },
        }
    return gaps


def _gap(arms: Sequence[Sequence[WordScores]], seed: int) -> dict[str, float | None]:
    """Of the scores of three arms, what the second closes of the gap from the first to the third."""
    low, middle, high = (stack_hits(scores, "top1") for scores in arms)
    return _ends(gap_interval(low, middle, high, arms[0][0].in_vocab, seed))


def _compare_with_bars(
    lifts: Sequence[Mapping[str, Any]], gaps: Mapping[str, Mapping[str, Any]], bars: Bars
) -> dict[str, Any]:
    of_mix = {lift["over"]: lift for lift in lifts if lift["arm"] == MIX}
    shares = {over: gap["value"] for over, gap in gaps.items()}
    return {
        "lifts": [
            {
                "over": over,
                "relative": relative,
                "low": low,
                "reached": _exceeds(of_mix[over], relative, low) if over in of_mix else None,
            }
            for over, (relative, low) in bars.lifts.items()
        ],
        "gap_closed": [
            {
                "over": over,
                "value": bars.gap_closed,
                "reached": None
                if (share := shares.get(over)) is None
                else share >= bars.gap_closed,
            }
            for over in bars.lifts
        ],
    }


def _exceeds(lift: Mapping[str, Any], relative: float, low: float) -> bool | None:
    if lift["relative"] is None:
        return None
    return lift["relative"] >= relative and lift["low"] > low


def _effect(arm: str, lift: Mapping[str, Any]) -> str:
    """What a part does, from the interval of the arm over the mix."""
    low, high = lift["low"], lift["high"]
    is_above = low is not None and low > 0
    is_below = high is not None and high < 0
    if not is_above and not is_below:
        return "no clear difference"
    return "helps" if is_above == (arm == ADAPTED) else "hurts"


def _cost(by_seed: Mapping[int, ArmRun], baseline: Mapping[int, ArmRun]) -> dict[str, float | None]:
    seeds = _common(by_seed, baseline)
    if not seeds:
        return {"gain": None, "seconds_per_point": None, "words_per_point": None}
    gain = _mean([_top1(by_seed[n].scores) - _top1(baseline[n].scores) for n in seeds])
    seconds = _mean([by_seed[seed].seconds for seed in seeds])
    words = _mean([by_seed[seed].distinct_words for seed in seeds])
    return {
        "gain": gain,
        "seconds_per_point": seconds / (100 * gain) if gain > 0 else None,
        "words_per_point": words / (100 * gain) if gain > 0 else None,
    }


def _ends(interval: Interval) -> dict[str, float | None]:
    """As strict JSON: what is not finite is None."""
    figures = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: figure if math.isfinite(figure) else None for name, figure in figures.items()}
