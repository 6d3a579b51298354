"""`keyfed kebbie`: what kebbie's environment is asked, what is kept of its answer, and what the report makes of it.

The environment is a stand-in: kebbie is never installed beside what these tests run on (see test_kebbie_score.py).
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from federated.population import read_message_file, split_population
from scripts.kebbie_scores import FILE, KebbieScores, hash_manifest, load_scores_of
from tests.scripts.command import assert_refused, run_keyfed
from tests.scripts.conftest import FinishedRun

ACCURACY = {"accuracy": 0.15, "top3_accuracy": 0.27, "n": 1_234}
CORRECTION = {"accuracy": 0.9, "top3_accuracy": 0.91, "n": 1_400, "n_typo": 77} | {
    f"{top}{name}": 0.625 for top in ("", "top3_") for name in ("precision", "recall", "fscore")
}
SCORES = {
    "overall_score": 0.4175,
    "next_word_prediction": ACCURACY,
    "auto_completion": ACCURACY,
    "auto_correction": CORRECTION,
    "swipe_resolution": {"accuracy": 0, "top3_accuracy": 0, "n": 3},
}

STAND_IN = """#!{python}
import json, os, sys
if sys.argv[1] == "-c":  # both kebbie and keyfed are found
    sys.exit()
task = json.loads(sys.stdin.readline())
network = [os.environ.get(name) for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")]
with open({told!r}, "a") as file:
    file.write(json.dumps(task | {{"network": network, "command": sys.argv[1:]}}) + "\\n")
{says}
"""
ANSWERS = (
    'print("kebbie talks"); print(json.dumps({"kebbie": "0.5.1", "scores": ' + f"{SCORES}" + "}))"
)


def write_stand_in(folder: Path, says: str = ANSWERS) -> tuple[Path, Path]:
    """An environment's Python that says this, and the file of what it was told."""
    python, told = folder / "python", folder / "told.jsonl"
    python.write_text(STAND_IN.format(python=sys.executable, told=str(told), says=says))
    python.chmod(0o755)
    return python, told


def read_told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_is_scored_without_what_was_masked(finished: FinishedRun, tmp_path: Path) -> None:
    python, told = write_stand_in(tmp_path)
    text = tmp_path / "m.txt"
    text.write_text("See you tomorrow\n😂 !\nwrite to a@b.com\n")
    done = run_keyfed(
        *("kebbie", "--bundle", finished.bundle, "--text", text, "--python", python),
        *("--processes", "3", "--json"),
    )
    assert done.returncode == 0, done.stderr
    bundles = {"bundle": SCORES | {"manifest_sha256": hash_manifest(finished.bundle)}}
    expected = {"kebbie": "0.5.1", "seed": 42, "messages": 2, "bundles": bundles}
    assert json.loads(done.stdout) == expected
    [task] = read_told(told)
    assert task["messages"] == ["See you tomorrow", "write to  "]
    assert "tommorow" in task["common_typos"]["tomorrow"]
    assert (task["bundle"], task["processes"]) == (str(finished.bundle), 3)
    assert task["network"] == ["1", "1"]


@pytest.fixture(scope="module")
def scored(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the finished run with scores of both arms, and what the stand-in was told."""
    folder = tmp_path_factory.mktemp("scored")
    python, told = write_stand_in(folder)
    out = Path(shutil.copytree(finished.out, folder / "out"))
    done = run_keyfed("kebbie", "--run", out, "--python", python)
    assert done.returncode == 0, done.stderr
    assert "F 0.62" in done.stdout and "swipe" in done.stdout
    return out, told


def test_a_run_is_scored_on_its_test_users(
    finished: FinishedRun, scored: tuple[Path, Path]
) -> None:
    out, told = scored
    tasks = read_told(told)
    bundles = [str(out / f"exported/{arm}-federated/bundle") for arm in ("web", "synthetic")]
    assert [task["bundle"] for task in tasks] == bundles
    # max_targets of the fixture's preset is 0: all that they wrote.
    config = yaml.safe_load(finished.preset.read_text())["population"]
    shares = (0.7, 0.1, 0.2)
    split, _ = split_population(
        read_message_file(finished.population), 0, config["max_messages"], shares
    )
    texts = [text.replace("▢", " ") for texts in split["test"].values() for text in texts]
    wrote = [text for text in texts if any(map(str.isalnum, text))]
    for task in tasks:
        assert task["messages"] == wrote
    for path in (path for path in out.iterdir() if path.is_file()):
        assert not any(len(text) > 12 and text in path.read_text() for text in wrote)


def test_the_next_report_shows_the_scores(finished: FinishedRun, scored: tuple[Path, Path]) -> None:
    out, _ = scored
    done = run_keyfed("run", "--preset", finished.preset, "--out", out)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.endswith(" ...")] == ["report ..."]
    results = json.loads((out / "results.json").read_text())
    assert results["kebbie"] == json.loads((out / FILE).read_text())
    assert "Not the same text" in (out / "report.html").read_text()
    (out / FILE).write_text("{}")
    assert_refused_last(run_keyfed("run", "--preset", finished.preset, "--out", out), FILE)


def assert_refused_last(done: Any, *said: str) -> None:
    """One line of its own behind the progress of stages."""
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("keyfed: ") and all(words in last for words in said), done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --run, or --bundle and --text"),
        (("--run", "r", "--bundle", "b", "--text", "t"), "give --run, or"),
        (("--bundle", "b"), "give --run, or"),
        (("--run", "r", "--python", "/nowhere/python"), "./scripts/setup kebbie"),
        (("--run", "r", "--python", sys.executable), "has no kebbie"),
        (("--run", "r", "--python", shutil.which("false")), "./scripts/setup kebbie"),
    ],
)
def test_what_it_needs_is_one_line(options: tuple[str, ...], said: str) -> None:
    assert_refused(run_keyfed("kebbie", *options), said)


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ('print(json.dumps({"error": "kebbie failed with KeyError: ..."}))', "KeyError"),
        ("sys.exit(3)", "ended with code 3"),
        ('print("{")', "ended with code 0"),
    ],
)
def test_a_failed_evaluation_is_one_line(
    finished: FinishedRun, tmp_path: Path, says: str, said: str
) -> None:
    python, _ = write_stand_in(tmp_path, says)
    text = tmp_path / "m.jsonl"
    text.write_text('{"user": "a", "text": "See you"}\n')
    done = run_keyfed(
        "kebbie", "--bundle", finished.bundle, "--text", text, "--python", python, "--json"
    )
    assert_refused_last(done, said)


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    python, _ = write_stand_in(tmp_path)
    done = run_keyfed("kebbie", "--run", tmp_path, "--python", python)
    assert_refused(done, str(tmp_path), "keyfed run --out")


def build_scores(**bundles: str) -> KebbieScores:
    scores = {arm: SCORES | {"manifest_sha256": sha256} for arm, sha256 in bundles.items()}
    return KebbieScores.model_validate(
        {"kebbie": "0.5.1", "seed": 42, "messages": 7, "bundles": scores}
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", None),
        ('"seed"', '"sead"', "seed"),
        ('"n":1234', '"n":-1', "bundles.web.next_word_prediction.n"),
        ('"fscore":0.625', '"fscore":1.5', "bundles.web.auto_correction.fscore"),
        ('"fscore":0.625', '"fscore":NaN', "kebbie.json"),
        ('"overall_score":0.4175,', "", "bundles.web.overall_score"),
        ("}}}}", "}}}", "kebbie.json"),
        ('"messages":7', '"messages":"<b>"', "messages"),
    ],
)
def test_a_broken_file_is_refused_by_its_field(
    tmp_path: Path, old: str, new: str, said: str | None
) -> None:
    path = tmp_path / FILE
    text = build_scores(web="0" * 64).model_dump_json()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if said is None:
        assert KebbieScores.load(path) == build_scores(web="0" * 64)
        return
    with pytest.raises(ValueError, match=FILE) as refused:
        KebbieScores.load(path)
    assert said in str(refused.value) and "keyfed kebbie" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_of_other_bundles_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    assert load_scores_of({"web": bundle}, tmp_path) is None  # there is no file
    scores = build_scores(web=hash_manifest(bundle))
    scores.save(tmp_path / FILE)
    assert load_scores_of({"web": bundle}, tmp_path) == scores
    assert capsys.readouterr().err == ""
    assert load_scores_of({"synthetic": bundle}, tmp_path) is None
    (bundle / "manifest.json").write_text("{ }")
    assert load_scores_of({"web": bundle}, tmp_path) is None
    assert capsys.readouterr().err.count("of other bundles") == 2
