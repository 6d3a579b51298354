"""The whole run, end to end: its results, its resumption after a kill at any moment, and its silence about people."""

import csv
import gzip
import json
import math
import re
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.keyboard import Keyboard
from device_runtime.lexicon import Lexicon
from device_runtime.tokenizer import Tokenizer
from eval.next_word import score_users
from eval.targets import EvaluationVocabulary
from federated.accounting import account, project
from federated.ledger import Ledger
from federated.population import read_message_file, split_population
from scripts.config import load_config
from scripts.pipeline import ARMS, STEPS
from scripts.results import _null_infinities, print_headline
from tests.scripts.command import run_keyfed, run_keyfed_killed_at, stop_keyfed_at
from tests.scripts.conftest import FinishedRun
from tests.sources import SECRET_USER, SECRET_WORD

SHARES = ("top1", "top3", "top1_all", "oov_rate", "keystroke_savings")

TYPED_FIGURES = ("correction", "correction_by_letters", "false_correction")
TYPED_FIGURES += ("false_correction_by_letters", "completion")


def split_as(finished: FinishedRun) -> dict[str, dict[str, list[str]]]:
    """The run's messages by side and user."""
    population = load_config(str(finished.preset)).population
    shares = (population.train_share, population.validation_share)
    split, _ = split_population(
        read_message_file(finished.population),
        population.rotation,
        population.max_messages,
        (*shares, 1 - sum(shares)),
    )
    return split


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def read_results(out: Path) -> dict[str, Any]:
    text = (out / "results.json").read_text("utf-8")
    return json.loads(text, parse_constant=refuse_constant)


def numbers(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from numbers(branch)
    elif isinstance(tree, float):
        yield tree


def test_results_hold_every_key_of_the_contract(finished: FinishedRun) -> None:
    results = read_results(finished.out)
    for arm in ARMS:
        for step in STEPS:
            for share in SHARES:
                interval = results["arms"][arm][step][share]
                assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1
    for step in STEPS:
        lift = results["lift"][step]
        assert -1 <= lift["low"] <= lift["relative"]
        assert lift["high"] is None or lift["relative"] <= lift["high"]
        web, synthetic = (results["arms"][arm][step]["top1"]["value"] for arm in ARMS)
        assert lift["relative"] == pytest.approx(synthetic / web - 1)
    privacy = results["privacy"]
    assert privacy["mechanism"] == "tree"
    for guarantee in (privacy, privacy["projected"]):
        assert guarantee["rho"] > 0 and guarantee["epsilon"] > 0 and 0 < guarantee["delta"] < 1
    assert privacy["projected"]["epsilon"] < privacy["epsilon"]
    device = results["device"]
    assert device["bytes"] == sum(path.stat().st_size for path in finished.bundle.iterdir())
    assert 0 < device["p50_ms"] <= device["p99_ms"]
    assert results["environment"]["tensorflow-federated"] == "0.87.0"
    assert results["seeds"] == {"run": 1}
    assert results["preset"] == "own"
    config = load_config(str(finished.preset)).model_dump(mode="json")
    config["population"]["messages"] = finished.population.name
    config["text"]["files"] = ["web.jsonl"]
    assert results["config"] == config
    assert results["commands"] == ["./scripts/setup", "keyfed run --preset own.yaml --out out"]
    records = {
        str(path.parent.relative_to(finished.out)) for path in finished.out.rglob("stage.json")
    }
    assert set(results["timings_s"]) == records - {"report"}
    assert all(map(math.isfinite, numbers(results)))
    for arm in ARMS:
        assert [point["round"] for point in results["curve"][arm]] == [0, 2, 3]
    assert results["rounds_to_match"] in (None, 0, 2, 3)


def test_convergence_is_the_curve_with_what_it_cost_until_then(finished: FinishedRun) -> None:
    results = read_results(finished.out)
    privacy, found = results["privacy"], results["convergence"]
    config = load_config(str(finished.preset)).federated
    fleet = (config.production_cohort, config.production_population)
    strategy = config.strategy(parameters=1)  # the tree's has no use for them
    for arm in ARMS:
        points = found["curve"][arm]
        shown = [{key: point[key] for key in ("round", "top1", "low", "high")} for point in points]
        assert shown == results["curve"][arm]
        assert [points[0][key] for key in ("rho", "epsilon", "projected_epsilon")] == [0, 0, 0]
        for point in points[1:]:  # each device was in one round at most
            run = (point["round"], config.min_separation, 1, config.delta)
            guarantee = account(strategy, config.noise_multiplier, *run)
            assert point["rho"] == pytest.approx(guarantee.rho)
            assert point["epsilon"] == pytest.approx(guarantee.epsilon)
            projected = project(guarantee, config.cohort, *fleet).guarantee.epsilon
            assert point["projected_epsilon"] == pytest.approx(projected)
        assert points[-1]["epsilon"] == pytest.approx(privacy["epsilon"])
        assert points[-1]["projected_epsilon"] == pytest.approx(privacy["projected"]["epsilon"])
        cost, tops = found["cost"][arm], results["arms"][arm]
        assert cost["pretrained"]["gain"] == tops["pretrained"]["top1"]["value"]
        assert cost["pretrained"]["words"] == results["data"][arm]["words_read"]
        assert sum(price["gain"] for price in cost.values()) == pytest.approx(
            tops["federated"]["top1"]["value"]
        )
        assert cost["federated"]["reports"] == 3 * 6
        for step in STEPS:
            name = f"{step}/{arm}"
            assert cost[step]["seconds"] == results["timings_s"][name]
    ends = [max(point["top1"] for point in results["curve"][arm]) for arm in ARMS]
    assert all(level["top1"] <= max(ends) for level in found["levels"])


def test_cohorts_and_confusions_are_of_the_test_users(finished: FinishedRun) -> None:
    results = read_results(finished.out)
    vocabulary = EvaluationVocabulary.load(finished.out / "tokenizer" / "vocabulary.txt")
    users = list(split_as(finished)["test"].values())
    for step in STEPS:
        web, synthetic = (results["arms"][arm][step]["top1"]["value"] for arm in ARMS)
        rows = {row["cohort"]: row for row in results["cohorts"][step]["rows"]}
        for low, high in (("few", "many"), ("short", "long")):
            sides = [rows[f"{side} messages"] for side in (low, high) if f"{side} messages" in rows]
            if not sides:
                continue  # all users alike
            assert sum(row["users"] for row in sides) == len(users)
            targets = sum(row["targets"] for row in sides)
            for figure, whole in (("baseline", web), ("share", synthetic)):
                share = sum(row[figure] * row["targets"] for row in sides) / targets
                assert share == pytest.approx(whole)
        assert rows and all(row["users"] >= 5 for row in rows.values())
        confusions = results["confusions"][step]
        for arm, right in zip(ARMS, ("baseline_right", "ours_right"), strict=True):
            keyboard = finished.out / "exported" / f"{arm}-{step}" / "bundle"
            scores = score_users(partial(Keyboard.open, keyboard), users, vocabulary, 100)
            assert confusions["targets"] == scores.in_vocab.sum()
            assert confusions["both_right"] + confusions[right] == scores.top1_in.sum()
        for kind in ("gained", "lost", "missed"):
            for row in confusions[kind]:
                assert row["users"] >= 5
                assert {row["meant"], row["baseline"], row["ours"]} <= set(vocabulary.words)
    assert any(results["confusions"]["pretrained"][kind] for kind in ("gained", "lost", "missed"))
    page = (finished.out / "report.html").read_text("utf-8")
    for section in ("cohorts", "confusions", "convergence"):
        assert f'id="{section}"' in page


def test_rounds_are_logged_as_they_were(finished: FinishedRun) -> None:
    """Accuracy is the curve's, rho the ledger's; nothing is blank but accuracy, where it was not measured."""
    results = read_results(finished.out)
    for arm in ARMS:
        folder = finished.out / "federated" / arm
        with (folder / "rounds.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["round"] for row in rows] == ["1", "2", "3"]
        measured = {int(row["round"]): row["accuracy"] for row in rows if row["accuracy"]}
        curve = {point["round"]: point["top1"] for point in results["curve"][arm][1:]}
        assert {k: float(v) for k, v in measured.items()} == pytest.approx(curve)
        ledger = Ledger.from_json((folder / "ledger.json").read_text("utf-8"))
        assert float(rows[-1]["rho"]) == pytest.approx(ledger.guarantee(1e-10).rho)
        for row, record in zip(rows, ledger.rounds, strict=True):
            assert int(row["reported"]) == len(record.reported) == 6
            assert all(value for name, value in row.items() if name != "accuracy")
        assert len(list((folder / "tensorboard").iterdir())) == 1


def test_a_lift_without_an_upper_end_is_null_in_strict_json_and_is_printed(
    finished: FinishedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    results = read_results(finished.out)
    results["lift"]["federated"]["high"] = math.inf
    strict = json.loads(json.dumps(_null_infinities(results), allow_nan=False))
    assert strict["lift"]["federated"].pop("high") is None
    assert results["lift"]["federated"].pop("high") == math.inf
    assert strict == results
    strict["lift"]["federated"]["high"] = None
    print_headline(strict)
    assert "to no limit)" in capsys.readouterr().out


def test_both_arms_read_the_same_words_in_the_same_steps(finished: FinishedRun) -> None:
    data = read_results(finished.out)["data"]
    text = load_config(str(finished.preset)).text
    for arm in ARMS:
        assert data[arm]["steps"] == text.words // text.batch_words
        assert data[arm]["words_read"] == pytest.approx(text.words, rel=0.1)
        assert data[arm]["parameters"] == data["web"]["parameters"]


def test_the_report_needs_no_network_and_shows_the_headline(finished: FinishedRun) -> None:
    page = (finished.out / "report.html").read_text("utf-8")
    assert not re.search(
        r"<(?:script|link|iframe)\b[^>]*(?:src|href)|@import|url\((?!#|data:)", page
    )
    assert not re.search(r'\bsrc="(?!data:)', page)
    top1 = read_results(finished.out)["arms"]["synthetic"]["pretrained"]["top1"]["value"]
    assert f"{100 * top1:.1f}" in page


def test_standard_output_is_the_headline_and_standard_error_tells_the_stages(
    finished: FinishedRun,
) -> None:
    assert finished.stdout.splitlines()[-1] == f"report: {finished.out / 'report.html'}"
    assert "relative lift" in finished.stdout and "epsilon" in finished.stdout
    chatter = [
        line
        for line in finished.stderr.splitlines()
        if not re.fullmatch(
            r"(note|     )[: ].*|[\w/-]+( \.\.\.|: [\d.]+ s)|[\w /-]+: \d+/\d+, .*|INFO: Created .*",
            line,
        )
    ]
    assert chatter == []


def all_times(out: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.name != ".lock"
    }


def test_a_second_call_builds_nothing_and_gives_the_same(finished: FinishedRun) -> None:
    before = all_times(finished.out)
    arguments = ("--preset", finished.preset, "--out", finished.out)
    again = run_keyfed("run", *arguments)
    assert (again.returncode, again.stdout) == (0, finished.stdout)
    as_json = run_keyfed("run", *arguments, "--json")
    assert json.loads(as_json.stdout) == read_results(finished.out)
    one = run_keyfed("export", *arguments, "--arm", "synthetic")
    assert one.stdout == f"{finished.bundle}\n"
    for done in (again, as_json, one):
        assert " ..." not in done.stderr
    assert all_times(finished.out) == before


def test_evaluate_on_the_test_users_file_gives_the_figures_of_the_run(
    finished: FinishedRun, tmp_path: Path
) -> None:
    split = split_as(finished)
    text = tmp_path / "test.jsonl"
    lines = [
        {"user": user, "text": text} for user, texts in split["test"].items() for text in texts
    ]
    text.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    done = run_keyfed("evaluate", "--bundle", finished.bundle, "--text", text, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    results = read_results(finished.out)
    assert figures.pop("users") == results["evaluation"]["users"]
    assert figures.pop("targets") == results["evaluation"]["targets"]
    noisy = {name: figures.pop(f"{name}_noisy") for name in ("top1", "top3")}
    for name, figure in noisy.items():
        assert 0 < figure["value"] < figures[name]["high"]
    typed = {name: figures.pop(name) for name in TYPED_FIGURES}
    for figure in typed.values():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert typed["correction"]["value"] > 0.3 > 0.1 > typed["false_correction"]["value"]
    perplexity = figures.pop("perplexity")
    assert 1 < perplexity["low"] <= perplexity["value"] <= perplexity["high"]
    assert figures == results["arms"]["synthetic"]["federated"]


def test_a_bundles_lexicon_is_that_of_its_arms_text(finished: FinishedRun) -> None:
    for arm, pools in (("web", ["web"]), ("synthetic", ["web_converted", "llm", "llm_everyday"])):
        messages: list[list[str]] = []
        for name in pools:
            with gzip.open(
                finished.out / "text" / f"{name}.jsonl.gz", "rt", encoding="utf-8"
            ) as lines:
                messages += [json.loads(line)["words"] for line in lines]
        bundle = finished.out / "exported" / f"{arm}-federated" / "bundle"
        lexicon = Lexicon((bundle / "lexicon.bin").read_bytes())
        words = [word for message in messages for word in message]
        assert {word for word in words if word.isalpha() and word.isascii()} >= set(
            filter(str.isascii, filter(str.isalpha, lexicon.words))
        )
        assert SECRET_WORD not in lexicon.words
        assert not set(lexicon.words) & set((bundle / "blocklist.txt").read_text("utf-8").split())
        counted = sum(any(map(str.isalpha, word)) for word in words)
        share = words.count("the") / counted
        assert lexicon.log_probs[lexicon.find("the")] == pytest.approx(math.log(share), abs=0.1)
        [(first, log_prob)] = lexicon.next_words(None, 1)
        firsts = [message[0] for message in messages if message[0] in lexicon.words]
        share = (firsts.count(first) - 0.75) / len(firsts)
        assert log_prob == pytest.approx(math.log(share), abs=0.1)


def test_suggest_gives_words_best_first(finished: FinishedRun) -> None:
    done = run_keyfed("suggest", "see you", "--bundle", finished.bundle, "--json", "--count", "5")
    suggestions = json.loads(done.stdout)["suggestions"]
    assert len({suggestion["text"] for suggestion in suggestions}) == 5
    probabilities = [suggestion["log_prob"] for suggestion in suggestions]
    assert probabilities == sorted(probabilities, reverse=True) and max(probabilities) < 0
    plain = run_keyfed("suggest", "see you", "--bundle", finished.bundle, "--count", "5")
    shown = [line.split("\t")[0] for line in plain.stdout.splitlines()]
    assert shown == [suggestion["text"] for suggestion in suggestions]
    narrowed = run_keyfed("suggest", "see", "--prefix", "y", "--bundle", finished.bundle)
    assert all(line.lower().startswith("y") for line in narrowed.stdout.splitlines())


def assert_nothing_private(folder: Path, tokenizer: Tokenizer) -> None:
    """No file holds a private word or name, nor the pieces of the private words in any order of bytes."""
    pieces = np.array(tokenizer.encode_words([SECRET_WORD, "and", "nobody"]), np.int32)
    secrets = [SECRET_WORD.encode(), SECRET_USER.encode(), pieces.tobytes()]
    secrets += [pieces.astype(kind).tobytes() for kind in (np.uint16, np.int64)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content += gzip.decompress(content)
        for secret in secrets:
            assert secret not in content, path.relative_to(folder)


def test_no_file_and_no_line_holds_private_text(finished: FinishedRun) -> None:
    assert finished.population.read_text("utf-8").count(SECRET_WORD) == 100
    tokenizer = Tokenizer((finished.out / "tokenizer" / "tokenizer.model").read_bytes())
    assert_nothing_private(finished.out, tokenizer)
    assert_nothing_private(finished.temporary, tokenizer)
    for said in (finished.stdout, finished.stderr):
        assert SECRET_WORD not in said and SECRET_USER not in said


def test_a_run_killed_at_any_moment_finishes_with_the_same_results(
    finished: FinishedRun, tmp_path: Path
) -> None:
    # The synthetic arm is taken as it is; the web arm is trained anew, under fire.
    out = shutil.copytree(finished.out, tmp_path / "out")
    made_of_web = ("pretrained/web", "federated/web", "exported/web-*", "evaluated/web-*")
    for made in ("report", *made_of_web, "tapped/web-*"):
        for folder in out.glob(made):
            shutil.rmtree(folder)
    arguments = ("run", "--preset", finished.preset, "--out", out)
    tokenizer = Tokenizer((out / "tokenizer" / "tokenizer.model").read_bytes())

    # While the second checkpoint of pre-training gets its name.
    run_keyfed_killed_at(r"/\.pretrained\.web\.\w+/checkpoint\.npz", 2, *arguments)
    assert not (out / "pretrained" / "web").exists()
    assert list(out.glob(".pretrained.web.*/checkpoint.npz"))

    # In round 2 of 3, when its accuracy has been measured and its checkpoint has no name yet.
    killed = run_keyfed_killed_at(r"/\.federated\.web\.\w+/checkpoint\.npz", 2, *arguments)
    assert "child: worker_binary" in killed.stderr
    assert (out / "pretrained" / "web" / "weights.npz").exists()
    assert not (out / "federated" / "web").exists()
    assert_nothing_private(out, tokenizer)

    # While other processes score.
    code, said = stop_keyfed_at("evaluated/web-federated ...", signal.SIGKILL, *arguments)
    assert code == -signal.SIGKILL, said
    assert not (out / "evaluated" / "web-federated").exists()

    # When all that is missing is the report's name.
    run_keyfed_killed_at(r"/report", 1, *arguments)
    assert_nothing_private(out, tokenizer)

    done = run_keyfed(*arguments)
    assert done.returncode == 0, done.stderr
    assert " ..." not in done.stderr
    undisturbed, results = read_results(finished.out), read_results(out)
    parts = ("arms", "lift", "curve", "privacy", "parity", "examples", "data", "cohorts")
    for part in (*parts, "confusions"):
        assert results[part] == undisturbed[part], part
    logs = [path / "federated" / "web" / "rounds.csv" for path in (finished.out, out)]
    first, second = (log.read_text("utf-8").splitlines() for log in logs)
    for line, resumed_line in zip(first, second, strict=True):
        assert line.rpartition(",")[0] == resumed_line.rpartition(",")[0]  # but for the seconds
    assert not list(out.glob(".*.*"))  # no partial folder


def test_ctrl_c_is_one_line_and_exit_code_130(finished: FinishedRun, tmp_path: Path) -> None:
    arguments = ("run", "--preset", finished.preset, "--out", tmp_path / "out")
    code, said = stop_keyfed_at("text ...", signal.SIGINT, *arguments)
    assert code == 130
    assert said.splitlines()[-1] == "keyfed: stopped; the same command goes on from here"
    assert "Traceback" not in said


def resume_with_population(
    finished: FinishedRun, folder: Path, messages: str
) -> tuple[int, list[str]]:
    """Exit code and standard error of the run with another population, from where it is first read."""
    out = folder / "out"
    for stage in ("text", "tokenizer", "pretrained", "exported"):
        shutil.copytree(finished.out / stage, out / stage)
    population = folder / "population.jsonl"
    population.write_text(messages, "utf-8")
    preset = folder / "own.yaml"
    preset.write_text(
        finished.preset.read_text("utf-8").replace(str(finished.population), str(population)),
        "utf-8",
    )
    done = run_keyfed("run", "--preset", preset, "--out", out)
    said = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    return done.returncode, said


def test_a_bad_population_is_one_line_that_quotes_nobody(
    finished: FinishedRun, tmp_path: Path
) -> None:
    good = finished.population.read_text("utf-8").splitlines(keepends=True)
    bad = f'{{"user": "u", "text": "{SECRET_WORD}\n'
    code, said = resume_with_population(finished, tmp_path, "".join(good[:4]) + bad)
    assert code == 2
    assert len(said) == 1 and f"{tmp_path / 'population.jsonl'}:5: " in said[0]
    assert SECRET_WORD not in said[0]


def test_too_few_users_is_one_line(finished: FinishedRun, tmp_path: Path) -> None:
    line = json.dumps({"user": "only one", "text": "hi there"})
    code, said = resume_with_population(finished, tmp_path, line + "\n")
    assert code == 2
    assert len(said) == 1 and "give more users" in said[0]


def test_the_bundles_card_gives_the_runs_figures(finished: FinishedRun) -> None:
    card = (finished.bundle / "card.md").read_text("utf-8")
    results = json.loads((finished.out / "results.json").read_text("utf-8"))
    privacy, latest = results["privacy"], results["curve"]["synthetic"][-1]
    epsilon, projected = privacy["epsilon"], privacy["projected"]["epsilon"]
    assert f"| epsilon | {epsilon:.4g} | {projected:.4g} |" in card
    assert f"| top1 | {latest['top1']:.4g} |" in card
    assert "| private text | none before federated learning |" in card


def test_install_and_roll_back(finished: FinishedRun, tmp_path: Path) -> None:
    other = finished.bundle.parents[1] / "web-federated" / "bundle"
    into = ("--into", tmp_path / "keyboards")
    current = tmp_path / "keyboards" / "current"
    for bundle in (other, finished.bundle):
        done = run_keyfed("install", "--bundle", bundle, *into)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{current}\n", "")
    for expected in (other, finished.bundle, other):
        assert run_keyfed("rollback", *into).stdout == f"{current}\n"
        manifest = (current / "manifest.json").read_bytes()
        assert manifest == (expected / "manifest.json").read_bytes()
    refused = [
        (run_keyfed("rollback", "--into", tmp_path), "nothing is installed there"),
        (run_keyfed("install", "--bundle", other, "--into", other), "holds other things"),
        (run_keyfed("install", "--bundle", tmp_path, *into), "manifest.json: missing"),
    ]
    for done, said in refused:
        assert done.returncode == 2 and done.stdout == "" and said in done.stderr
        assert len(done.stderr.splitlines()) == 1
