"""`keyfed report`: pages from results in folders; differences where the same was asked, otherwise the reason."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eval.comparison import compare_scores
from eval.report import write_report
from eval.report.runs import render_runs
from scripts.report import compare_runs, read_run, report
from tests.scripts.command import assert_refused, run_keyfed
from tests.scripts.run_folders import SHARES, make_scores, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "first"), write_run(folder / "better", seed=2, gain=0.05)


def test_differences_are_of_the_users_scores_and_stand_in_page_and_json(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "side.html"
    done = run_keyfed("report", "--compare", *runs, "--out", page, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert list(figures["runs"]) == ["first", "better"] and figures["refused"] == []
    shown = page.read_text("utf-8").replace("\u202f", " ")
    assert len(figures["differences"]) == len(SHARES)
    for row in figures["differences"]:
        key = row["arm"], row["step"]
        gain = 0.05 * (key == ("synthetic", "federated"))
        a, b = make_scores(SHARES[key], 1), make_scores(SHARES[key] + gain, 2)
        share_a, share_b = (int(x.top1_in.sum()) / int(x.in_vocab.sum()) for x in (a, b))
        difference = row["difference"]
        assert difference["value"] == pytest.approx(share_b - share_a)
        assert f"{100 * (share_b - share_a):+.2f}".replace("-", "−") in shown
        alone = compare_scores([a], [b], 1).difference
        assert difference["low"] < alone.low and alone.high < difference["high"]  # all hold at once
        assert (difference["low"] > 0) == bool(gain)
    assert shown.count(">better</span>") == 1
    assert figures["settings"]["config.federated.rounds"] == [101, 102]
    assert figures["runs"]["first"]["seconds"] == pytest.approx(41.3 + 252.4 + 188.0 + 96.2)
    for run in figures["runs"].values():
        for step in ("pretrained", "federated"):
            assert f"{100 * run['lift'][step]['relative']:+.1f} %" in shown


def test_a_run_does_not_differ_from_its_copy(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(runs[0], tmp_path / "first")
    comparison = compare_runs([read_run(runs[0]), read_run(copy)])
    assert list(comparison["runs"]) == ["first", "first (2)"]
    for row in comparison["differences"]:
        assert (row["run"], row["over"]) == ("first (2)", "first")
        assert row["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert row["users_needed"] is None
    assert comparison["settings"] == {}
    assert "Nothing." in render_runs(comparison)


def test_what_was_not_asked_alike_is_refused_and_the_others_are_not(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    first, better = runs
    others = {
        "words": write_run(tmp_path / "words", vocabulary="the\nme\n"),
        "people": write_run(tmp_path / "people", test="ab" * 32),
        "cap": write_run(tmp_path / "cap", targets=50),
        "unscored": write_run(tmp_path / "unscored"),
        "stale": write_run(tmp_path / "stale"),
        "broken": write_run(tmp_path / "broken"),
        "unchecked": write_run(tmp_path / "unchecked"),
    }
    shutil.rmtree(others["unscored"] / "evaluated" / "synthetic-federated")
    evaluated = others["stale"] / "evaluated"
    shutil.copy(evaluated / "web-pretrained/scores.npz", evaluated / "web-federated/scores.npz")
    (others["broken"] / "evaluated/web-pretrained/scores.npz").write_bytes(b"PK\x03\x04")
    (others["unchecked"] / "contamination/certificate.json").unlink()
    comparison = compare_runs(list(map(read_run, [first, *others.values(), better])))
    reasons = {row["run"]: row["reason"] for row in comparison["refused"]}
    assert reasons == {
        "words": "they differ in vocabulary",
        "people": "they differ in test messages",
        "cap": "they were not asked the same words of the same users",
        "unscored": "unscored has no scores of synthetic federated",
        "stale": "the scores of stale are not those of its results.json",
        "broken": "the scores of broken cannot be read",
        "unchecked": "unchecked has no hash of its test messages",
    }
    assert {row["run"] for row in comparison["differences"]} == {"better"}
    page = render_runs(comparison)
    for reason in reasons.values():
        assert f"are not compared: {reason}." in page
    assert list(comparison["runs"]) == ["first", *others, "better"]


def test_a_page_is_written_anew_from_its_results(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(list(runs))
    assert capsys.readouterr().out.splitlines() == [str(run / "report.html") for run in runs]
    expected = write_report(json.loads((runs[1] / "results.json").read_text("utf-8")), tmp_path)
    assert (runs[1] / "report.html").read_bytes() == expected.read_bytes()
    for run in runs:
        (run / "report.html").unlink()


def test_bad_input_is_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    empty, broken, other = (tmp_path / name for name in ("empty", "broken", "other"))
    for folder, content in ((broken, "{"), (other, '{"arms": []}')):
        folder.mkdir()
        (folder / "results.json").write_text(content, "utf-8")
    done = run_keyfed("report", "--compare", runs[0], empty)
    assert_refused(done, "empty/results.json: No such file")
    for arguments, said in (
        ({"runs": [runs[0]], "compare": True}, "give two runs or more"),
        ({"runs": [runs[0], broken], "compare": True}, "broken/results.json: "),
        ({"runs": [other]}, "no arms.web.pretrained.top1"),
        ({"runs": [runs[0]], "as_json": True}, "--compare"),
        ({"runs": list(runs), "compare": True, "out": empty / "page.html"}, "give another --out"),
    ):
        with pytest.raises(ValueError, match=said):
            report(**arguments)


def test_more_runs_widen_the_intervals(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The level of a table grows with its rows, so that one wrong finding in it stays as rare."""
    records = [read_run(runs[0])]
    widths = []
    for seed in range(2, 5):
        records.append(read_run(write_run(tmp_path / f"run-{seed}", seed=seed)))
        difference = compare_runs(records)["differences"][0]["difference"]
        widths.append(difference["high"] - difference["low"])
    assert all(a < b for a, b in pairwise(widths)) and np.ptp(widths) < 0.3 * widths[0]
