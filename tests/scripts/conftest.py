"""One whole run of the test preset on small files of the users' own, shared by the tests of a session."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from scripts.config import PRESETS
from tests.scripts.command import run_keyfed
from tests.sources import write_population, write_web_text


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What `keyfed run` left.

    Attributes:
        preset: the test preset with sources of the users' own.
        population: its private messages.
        out: the run's folder.
        temporary: folder for temporary files of the process.
        stdout, stderr: all it said.
    """

    preset: Path
    population: Path
    out: Path
    temporary: Path
    stdout: str
    stderr: str

    @property
    def bundle(self) -> Path:
        return self.out / "exported" / "synthetic-federated" / "bundle"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("finished")
    web = write_web_text(folder / "web.jsonl", articles=150)
    population = write_population(folder / "population.jsonl", users=100, messages=8)
    content = yaml.safe_load((PRESETS / "test.yaml").read_text("utf-8"))
    content["text"] |= {"public": [], "files": [str(web)]}
    content["population"]["messages"] = str(population)
    content["evaluation"]["max_targets"] = 0
    preset = folder / "own.yaml"
    preset.write_text(yaml.safe_dump(content), "utf-8")
    out, temporary = folder / "out", folder / "temporary"
    temporary.mkdir()
    done = run_keyfed(
        "run", "--preset", preset, "--out", out, environment={"TMPDIR": str(temporary)}
    )
    assert done.returncode == 0, done.stderr
    return FinishedRun(preset, population, out, temporary, done.stdout, done.stderr)
