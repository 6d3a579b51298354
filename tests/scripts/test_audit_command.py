"""`keyfed audit` and `keyfed plan` as people start them."""

import dataclasses
import json
import shutil

import pytest
import yaml

from scripts.audit import choose_folder
from scripts.config import load_config
from scripts.pipeline import Run
from scripts.results import report_stage
from scripts.run_facts import collect_facts
from tests.scripts.command import run_keyfed


@pytest.fixture(scope="module")
def audited(finished, tmp_path_factory):
    """A copy of the finished run's folder, so that its own report stays up to date."""
    return shutil.copytree(finished.out, tmp_path_factory.mktemp("audited") / "out")


@pytest.fixture(scope="module")
def noisy_preset(finished, tmp_path_factory):
    """The finished run's preset with cohorts of canaries and noise for an epsilon that they could contradict."""
    content = yaml.safe_load(finished.preset.read_text("utf-8"))
    content["federated"] |= {"engine": "local", "cohort": 60, "min_separation": 1, "delta": 1e-5}
    content["federated"]["noise_multiplier"] = 9.0
    path = tmp_path_factory.mktemp("noisy") / "noisy.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_an_honest_run_passes_and_remembers_less(audited, finished, noisy_preset) -> None:
    run = Run(audited, load_config(str(finished.preset)), str(finished.preset))
    before = report_stage(run).fingerprint()
    assert before == report_stage(dataclasses.replace(run, out=finished.out)).fingerprint()
    done = run_keyfed(
        "audit", "--run", audited, "--preset", noisy_preset, "--canaries", 300, "--json"
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    (audit,) = figures["audits"]
    assert not audit["violated"] and audit["lower_bound"] <= audit["epsilon"]
    assert audit["largest_bound"] > audit["epsilon"]
    saved = json.loads((audited / "audit" / "memorisation.json").read_text("utf-8"))
    assert saved == figures["memorisation"]
    assert list(saved["arms"]) == ["central", "central_by_user", "fedavg", "dp_ftrl"]
    assert all(len(row["exposures"]) == len(saved["plantings"]) for row in saved["arms"].values())
    assert saved["arms"]["dp_ftrl"]["epsilon"] > 0 and saved["arms"]["central"]["epsilon"] is None
    assert "<svg" in (audited / "audit" / "memorisation.html").read_text("utf-8")
    found = collect_facts(run)["audit"]
    assert found["canaries"]["audits"] == figures["audits"]
    assert set(found) == {"canaries", "memorisation"}
    assert report_stage(run).fingerprint() != before  # so that the next `keyfed run` reports it


def test_an_audit_of_another_configuration_leaves_the_runs_stages_alone(audited, finished) -> None:
    for preset, folder in ((str(finished.preset), audited), ("audit", audited / "audit" / "audit")):
        run = Run(audited, load_config(preset), preset)
        assert choose_folder(run, "synthetic") == folder
    assert choose_folder(Run(audited / "new", load_config("audit"), "audit"), "web").name == "new"


def test_an_audit_that_cannot_be_read_is_named(audited, finished) -> None:
    run = Run(audited, load_config(str(finished.preset)), str(finished.preset))
    path = audited / "study.json"
    for content in ("{", '{"test": {"arms": {}}}'):
        path.write_text(content, "utf-8")
        with pytest.raises(ValueError, match=r"study\.json: "):
            collect_facts(run)
    path.unlink()


def test_removed_noise_is_exit_code_1_and_a_line_that_says_so(audited, noisy_preset) -> None:
    done = run_keyfed(
        "audit",
        *("--run", audited, "--preset", noisy_preset, "--canaries", 300),
        *("--remove-noise", "--no-memorisation"),
    )
    assert done.returncode == 1, done.stderr
    assert "1 of 1 runs are less private than their ledgers say" in done.stderr
    assert "Traceback" not in done.stderr
    assert "estimates, no bounds" in done.stdout
    kept = json.loads((audited / "audit" / "canaries_without_noise.json").read_text("utf-8"))
    assert [row["violated"] for row in kept["audits"]] == [True]


def test_a_plan_of_the_launch_of_2022() -> None:
    launch = ["--population", 2_041_000, "--cohort", 6_500, "--rounds", 2_000, "--delta", 1e-10]
    launch += ["--max-participations", 6, "--noise-multiplier", 7, "--json"]
    done = run_keyfed("plan", *map(str, launch))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    by_mechanism = {row["guarantee"]["mechanism"]: row for row in made["plans"]}
    assert set(by_mechanism) == {"gaussian", "tree", "toeplitz", "blt"}
    assert made["measured"]["command"].startswith("keyfed bench noise")
    tree = by_mechanism["tree"]
    assert tree["guarantee"]["min_separation"] == 314
    assert tree["guarantee"]["rho"] == pytest.approx(0.81, abs=0.005)
    assert tree["guarantee"]["epsilon_rdp"] == pytest.approx(8.90, abs=0.005)
    assert tree["accuracy"]["low"] <= tree["accuracy"]["top1"] <= tree["accuracy"]["high"]


def test_a_plan_that_cannot_be_is_one_line_with_what_binds() -> None:
    done = run_keyfed("plan", "--population", "9000", "--epsilon", "1", "--delta", "1e-10")
    assert done.returncode == 2
    assert "population 9,000 is too small" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
