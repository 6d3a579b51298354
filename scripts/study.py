"""A study: the arms of `synthetic_text.arms.list_recipes` and real chat, over several seeds, before federated learning.

Every arm has the same words, steps, tokenizer, vocabulary and test users. Jobs run side by side, one thread each; each
is a stage of a run folder per seed, so a killed study goes on where it was.
"""

import dataclasses
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.config import RunConfig
from scripts.pipeline import Run
from scripts.progress import say, show_progress
from scripts.results import describe_environment
from scripts.stages import stage_seconds
from scripts.training import REAL_CHAT

if TYPE_CHECKING:
    from eval.study import ArmRun

HEADLINE = ("web", "web_news", "synthetic", "synthetic_adapted", REAL_CHAT)
"""Arms of every seed; the others are the ablation."""
NAMES = {"web": "web_all"}
"""What the page calls an arm that a run calls otherwise."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One arm of one seed: trained, exported, scored on the test users; of HEADLINE, also on the second test set."""

    run: Run
    arm: str

    def do(self) -> None:
        """Finishes what is missing."""
        self.run.ensure(self.run.evaluated(self.arm, "pretrained"))
        if self.run.second_test is not None and self.arm in HEADLINE:
            self.run.ensure(self.run.evaluated_second(self.arm))


def list_jobs(runs: Sequence[Run], ablation_seeds: int) -> list[Job]:
    """The headline arms of all seeds first, then the others of the first `ablation_seeds`."""
    from synthetic_text.arms import list_recipes

    text = runs[0].config.text
    recipes = list_recipes(text)
    if len(text.public) + len(text.files) == 1:
        del recipes["web_news"]  # it is all there is
    headline = [arm for arm in HEADLINE if arm in recipes or arm == REAL_CHAT]
    others = [arm for arm in recipes if arm not in HEADLINE]
    jobs = [Job(run, arm) for run in runs for arm in headline]
    return jobs + [Job(run, arm) for run in runs[:ablation_seeds] for arm in others]


def run_study(
    out: Path,
    preset: str,
    config: RunConfig,
    seeds: int,
    ablation_seeds: int,
    second_test: Path | None,
    loops: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Runs every job and writes `study.json` and `study.html` to `out`; returns what is in the first.

    Args:
        out: folder of the study; run folders `seed-1` and so on lie in it.
        preset: name for the page.
        config: of every run but for its seed.
        seeds: seeds 1 to this.
        ablation_seeds: of these, the first that train the ablation's arms too.
        second_test: JSONL or Parquet of {user, text} to score every arm on as well.
        loops: records of `keyfed loop` to show beside.
    """
    first = Run(
        out / "seed-1",
        config.model_copy(update={"seed": 1}),
        preset,
        processes=1,
        second_test=second_test,
    )
    runs = [first] + [
        dataclasses.replace(
            first,
            out=out / f"seed-{seed}",
            config=config.model_copy(update={"seed": seed}),
            vocabulary_of=first,  # or the seeds' scores could not be added
        )
        for seed in range(2, seeds + 1)
    ]
    jobs = list_jobs(runs, ablation_seeds)
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    ) as pool:
        _finish(pool, runs, jobs)
    study = collect_study(runs, jobs) | {"loops": list(loops)}
    write_study(study, out)
    return study


def collect_study(runs: Sequence[Run], jobs: Sequence[Job]) -> dict[str, Any]:
    """Figures of all finished jobs, and what is needed to judge them."""
    from eval.study import build_study

    first = runs[0]
    study: dict[str, Any] = {
        "preset": first.preset,
        "config": first.config.model_dump(mode="json"),
        "test": build_study(_list_arm_runs(jobs, second=False), seed=1),
        "second_test": None,
        "adaptation": first.read_json("adaptation/privacy.json"),
        "contamination": first.read_json("contamination/certificate.json"),
        "texts": first.read_json("text/counts.json"),
        "environment": describe_environment(),
    }
    if first.second_test is not None:
        study["second_test"] = build_study(_list_arm_runs(jobs, second=True), seed=1)
    return study


def read_loop(path: Path) -> dict[str, Any]:
    """The record that `keyfed loop` wrote.

    Raises:
        ValueError: the file is none.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}): give a loop.json") from None
    if not isinstance(record, dict) or "generations" not in record:
        raise ValueError(f"{path}: field generations is missing: give the loop.json of keyfed loop")
    return record


def write_study(study: dict[str, Any], out: Path) -> None:
    """Writes study.json and study.html, each by renaming."""
    from eval.report.study import render_study

    page = render_study(
        study["test"],
        second=study["second_test"],
        privacy=study["adaptation"],
        certificates=[{"name": "training text", **study["contamination"]}],
        loops=study["loops"],
        environment=study["environment"],
        commands=[f"keyfed study --preset {study['preset']} --out {out}"],
    )
    for name, content in (
        ("study.json", json.dumps(study, indent=1, allow_nan=False) + "\n"),
        ("study.html", page),
    ):
        temporary = out / f".{name}"
        temporary.write_text(content, "utf-8")
        temporary.rename(out / name)


def _list_arm_runs(jobs: Sequence[Job], second: bool) -> "list[ArmRun]":
    from eval.study import ArmRun

    runs = []
    for run, arm in ((job.run, job.arm) for job in jobs):
        if second and arm not in HEADLINE:
            continue
        scored = run.evaluated_second(arm) if second else run.evaluated(arm, "pretrained")
        read = run.read_json(f"{run.pretrained(arm).name}/read.json")
        runs.append(
            ArmRun(
                arm=NAMES.get(arm, arm),
                seed=run.config.seed,
                scores=run.load_scores(scored),
                words_read=read["words_read"],
                distinct_words=read["distinct_words"],
                seconds=stage_seconds(run.out / run.pretrained(arm).name),
            )
        )
    return runs


def _start_worker() -> None:
    """One thread for each worker, which ends with the study, and leaves Ctrl-C to it."""
    from eval.processes import exit_with_parent
    from federated.isolation import isolate_network

    isolate_network()  # before anything starts threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    os.environ |= {name: "1" for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
    os.environ["OMP_NUM_THREADS"] = "1"


def _prepare(run: Run) -> None:
    """What the arms of a seed share: texts checked against the test users, tokenizer, histogram of the devices."""
    run.ensure(run.contamination)
    run.ensure(run.adaptation)
    run.ensure(run.tokenizer)


def _finish(pool: ProcessPoolExecutor, runs: Sequence[Run], jobs: Sequence[Job]) -> None:
    """Prepares every run, and does its jobs as soon as it is prepared, in their order otherwise."""
    pending: dict[Future[None], Run | None] = {pool.submit(_prepare, run): run for run in runs}
    prepared: list[Run] = []
    first = runs[0]  # has the vocabulary of all
    left = list(jobs)
    done = 0
    try:
        with show_progress("study", len(runs) + len(jobs)) as advance:
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    future.result()
                    done += 1
                    advance(done, "")
                    if (run := pending.pop(future)) is not None:
                        prepared.append(run)
                # An ablation waits until no seed's headline arms have to.
                ready = [
                    job
                    for job in left
                    if first in prepared
                    and job.run in prepared
                    and (job.arm in HEADLINE or len(prepared) == len(runs))
                ]
                left = [job for job in left if job not in ready]
                pending |= {pool.submit(Job.do, job): None for job in ready}
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.kill()  # its stage goes on from its checkpoint
        say("study: stopped; the same command goes on from here")
        raise
