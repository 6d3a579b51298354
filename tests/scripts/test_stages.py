"""A stage is built when something that decides its result has changed, whole or not at all."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import stages
from scripts.stages import Stage, lock_run, run_stage, stage_seconds

ROOT = Path(__file__).parents[2]


class Builder:
    """Writes `content` to a file and counts its calls; fails after the first half where told to."""

    def __init__(self, content: str = "result") -> None:
        self.content = content
        self.calls = 0
        self.fails = False
        self.found: list[str] = []

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        self.found = sorted(path.name for path in folder.iterdir())
        (folder / "half").write_text(self.content)
        if self.fails:
            raise RuntimeError("interrupted")
        (folder / "half").rename(folder / "whole")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose code decides a result, in a repository of its own."""
    root = tmp_path / "repository"
    (root / "room").mkdir(parents=True)
    (root / "room" / "code.py").write_text("one = 1")
    monkeypatch.setattr(stages, "_ROOT", root)
    stages.hash_code.cache_clear()
    yield root / "room"
    stages.hash_code.cache_clear()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def make(build: Builder, needs: tuple[Stage, ...] = (), name: str = "s", **settings: Any) -> Stage:
    return Stage(name, settings, ("room",), needs, build)


def contents(out: Path) -> dict[str, str]:
    """Every file below a run's folder but records, by path."""
    return {
        str(path.relative_to(out)): path.read_text()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }


def test_an_unchanged_stage_is_not_built_again(room: Path, out: Path) -> None:
    build = Builder()
    folder = run_stage(make(build, words=3), out)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run_stage(make(build, words=3), out) == folder
    assert build.calls == 1
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert contents(out) == {"s/whole": "result"}
    assert stage_seconds(folder) >= 0
    assert json.loads((folder / "stage.json").read_text())["settings"] == {"words": 3}


def test_a_changed_setting_need_or_code_builds_it_again(room: Path, out: Path) -> None:
    build, other = Builder(), Builder()

    def run(words: int = 3, need: int = 1) -> int:
        run_stage(make(build, (make(other, name="needed", size=need),), words=words), out)
        return build.calls

    assert run() == run() == 1
    assert run(words=4) == 2
    assert run(words=4, need=2) == 3
    (room / "README.md").write_text("what it is")
    (room / "code.pyc").write_text("compiled")
    stages.hash_code.cache_clear()
    assert run(words=4, need=2) == 3  # neither decides a result
    (room / "code.py").write_text("one = 2")
    stages.hash_code.cache_clear()
    assert run(words=4, need=2) == 4
    (room / "table.json").write_text("{}")
    stages.hash_code.cache_clear()
    assert run(words=4, need=2) == 5
    assert sorted(path.name for path in out.iterdir()) == ["s"]


def test_names_of_stages_may_be_folders_in_folders(room: Path, out: Path) -> None:
    build = Builder()
    for name in ("a/b", "a/c", "a/b"):
        assert run_stage(make(build, name=name), out) == out / name
    assert build.calls == 2


def test_an_interrupted_build_leaves_no_result_and_finds_its_part_again(
    room: Path, out: Path
) -> None:
    build = Builder()
    build.fails = True
    for found in ([], ["half"]):
        with pytest.raises(RuntimeError):
            run_stage(make(build), out)
        assert build.found == found
        assert not (out / "s").exists()
    build.fails = False
    run_stage(make(build), out)
    assert build.found == ["half"]
    assert contents(out) == {"s/whole": "result"}


def test_an_interrupted_build_keeps_the_earlier_result(room: Path, out: Path) -> None:
    build = Builder("old")
    run_stage(make(build, words=1), out)
    build.fails, build.content = True, "new"
    with pytest.raises(RuntimeError):
        run_stage(make(build, words=2), out)
    assert (out / "s" / "whole").read_text() == "old"
    run_stage(make(build, words=1), out)  # changed back: nothing to do
    assert build.calls == 2


def test_what_was_left_by_another_configuration_is_removed(room: Path, out: Path) -> None:
    build = Builder()
    build.fails = True
    with pytest.raises(RuntimeError):
        run_stage(make(build, words=1), out)
    build.fails = False
    run_stage(make(build, words=2), out)
    assert build.found == []
    assert sorted(path.name for path in out.iterdir()) == ["s"]


def test_force_builds_it_from_the_start(room: Path, out: Path) -> None:
    build = Builder()
    run_stage(make(build), out)
    build.content = "again"
    run_stage(make(build), out, force=True)
    assert contents(out) == {"s/whole": "again"}
    build.fails = True
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run_stage(make(build), out, force=True)
        assert build.found == []


# The moments at the end of a build that a SIGKILL can fall on; only the renames are left to do by then.
MOMENTS = ("before the record is named", "before the first rename", "between the renames", "after")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("earlier", [False, True])
def test_a_kill_at_the_end_of_a_build_costs_nothing(
    room: Path, out: Path, earlier: bool, moment: str
) -> None:
    build = Builder("old")
    if earlier:
        run_stage(make(build, words=1), out)
    build.content = "new"
    program = (
        "import os, signal, sys\n"
        "moment, renames = int(sys.argv[1]), []\n"
        "def watch(event, arguments):\n"
        "    if event in ('os.rename', 'shutil.rmtree'):\n"
        "        renames.append(event)\n"
        "        len(renames) > moment and os.kill(os.getpid(), signal.SIGKILL)\n"
        "from pathlib import Path\n"
        "from scripts import stages\n"
        "stages._ROOT = Path(sys.argv[2])\n"
        "def build(folder): (folder / 'whole').write_text('new')\n"
        "stage = stages.Stage('s', {'words': 2}, ('room',), (), build)\n"
        "sys.addaudithook(watch)\n"
        "stages.run_stage(stage, Path(sys.argv[3]))\n"
    )
    # Renames of a build: the record's; the earlier folder's, where there is one; the new one's. Then the earlier goes.
    number = {MOMENTS[0]: 0, MOMENTS[1]: 1, MOMENTS[2]: 1 + earlier, MOMENTS[3]: 2 + earlier}
    command = [sys.executable, "-c", program, str(number[moment]), str(room.parent), str(out)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    if moment == MOMENTS[2]:
        assert not (out / "s").exists()
    run_stage(make(build, words=2), out)
    assert (out / "s" / "whole").read_text() == "new"
    assert build.calls == earlier + (moment == MOMENTS[0])
    run_stage(make(build, words=3), out)  # and the next build tidies up
    assert contents(out) == {"s/whole": "new"}
    assert sorted(path.name for path in out.iterdir()) == ["s"]


def test_a_broken_record_is_no_record(room: Path, out: Path) -> None:
    build = Builder()
    for record in ("", "{", "{}", "[]", "null"):
        run_stage(make(build), out)
        (out / "s" / "stage.json").write_text(record)
        calls = build.calls
        run_stage(make(build), out)
        assert build.calls == calls + 1


def test_one_process_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with (
        lock_run(out),
        pytest.raises(ValueError, match=f"{out}: another keyfed works here"),
        lock_run(out),
    ):
        pass
    with lock_run(out):  # free again
        pass


def test_a_killed_process_gives_the_folder_free(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from scripts.stages import lock_run\n"
        "with lock_run(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="another keyfed"), lock_run(tmp_path):
            pass
        process.kill()
    with lock_run(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        with pytest.raises(ValueError, match=f"{out}: cannot be written"), lock_run(out):
            pass
