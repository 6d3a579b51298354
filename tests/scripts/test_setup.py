"""scripts/setup says in one line what is missing, installs from the lock alone, and does nothing when all is there.

Runs in a folder of its own with stand-ins for what it calls, so nothing is installed and nothing needs a network.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("awk", "cat", "cut", "df", "dirname", "env", "grep", "mktemp", "rm", "sha256sum", "tail")

# Stands for the environment's Python: notes its arguments, and fails as pip would where `pip_says` holds something.
PYTHON = """#!/bin/sh
echo "$*" >>calls
case "$*" in
  *"-m pip"*) if [ -s pip_says ]; then cat pip_says >&2; exit 1; fi ;;
  *print*) echo 3 11 ;;
esac
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the real script and a PATH that holds coreutils and no Python at all."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", folder / "scripts" / "setup")
    (folder / "requirements.lock").write_text("numpy==1.26.4\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / "bin" / tool).symlink_to(found)
    return folder


@pytest.fixture
def installed(checkout: Path) -> Path:
    """The checkout with a Python 3.11, an environment and the stamp of its lock."""
    (checkout / "bin" / "python3.11").symlink_to(sys.executable)
    write_program(checkout / ".venv" / "bin" / "python", PYTHON)
    stamp = checkout / ".venv" / ".keyfed-requirements.lock"
    stamp.write_text(hash_of(checkout, "requirements.lock") + "\n")
    return checkout


def hash_of(checkout: Path, lock: str) -> str:
    content = b"".join((checkout / name).read_bytes() for name in (lock, "pyproject.toml"))
    return hashlib.sha256(content).hexdigest()


def run_setup(checkout: Path, *names: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    assert bash
    environment = os.environ | {"PATH": str(checkout / "bin")}
    return subprocess.run(
        [bash, str(checkout / "scripts" / "setup"), *names],
        env=environment,
        capture_output=True,
        text=True,
    )


def pip_calls(checkout: Path) -> list[str]:
    calls = checkout / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return [line.partition(" install ")[2] for line in lines if "-m pip" in line]


def assert_one_line(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("setup: ")
    assert all(words in last for words in said), last


@pytest.mark.parametrize("other", [None, "exit 1", "exit 127"])
def test_no_python_3_11_is_one_clear_line(checkout: Path, other: str | None) -> None:
    if other:  # a Python that is not 3.11, or a launcher without one behind it
        write_program(checkout / "bin" / "python3", f"#!/bin/sh\n{other}\n")
    done = run_setup(checkout)
    assert_one_line(done, "no Python 3.11 found", "install it")
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / ".venv").exists()


def test_a_fitting_stamp_means_nothing_to_do(installed: Path) -> None:
    (installed / "bin" / "python3.11").unlink()  # not even a Python is looked for
    done = run_setup(installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pip_calls(installed) == []


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_is_installed_once_by_its_hashes_alone(
    installed: Path, changed: str
) -> None:
    with (installed / changed).open("a") as file:
        file.write("# changed\n")
    for _ in range(2):
        assert run_setup(installed).returncode == 0
    assert pip_calls(installed) == [
        "--no-deps --require-hashes -r requirements.lock",
        "--no-deps --no-build-isolation -e .",
    ]


def test_a_named_lock_is_added_to_what_is_there_and_stays_when_it_is_not_named(
    installed: Path,
) -> None:
    (installed / "locks").mkdir()
    (installed / "locks" / "fleet.lock").write_text("ray==2.60.0\n")
    for names in (("fleet",), ("fleet",), ()):
        assert run_setup(installed, *names).returncode == 0
    assert pip_calls(installed) == [
        "--no-deps --require-hashes -r locks/fleet.lock",
        "--no-deps --no-build-isolation -e .",
    ]


def test_kebbie_gets_an_environment_of_its_own_of_its_lock_alone(installed: Path) -> None:
    (installed / "locks").mkdir()
    (installed / "locks" / "kebbie.lock").write_text("kebbie==0.5.1\n")
    write_program(installed / ".venv-kebbie" / "bin" / "python", PYTHON)
    (installed / ".venv" / "bin" / "python").unlink()
    for _ in range(2):
        assert run_setup(installed, "kebbie").returncode == 0
    assert pip_calls(installed) == [
        "--no-deps --require-hashes -r locks/kebbie.lock",
        "--no-deps --no-build-isolation -e .",
    ]
    assert (installed / ".venv-kebbie" / ".keyfed-kebbie.lock").exists()


def test_an_unknown_lock_is_one_clear_line(installed: Path) -> None:
    done = run_setup(installed, "flet")
    assert_one_line(done, "no locks/flet.lock", "locks/README.md")
    assert pip_calls(installed) == []


@pytest.mark.parametrize(
    ("pip_says", "said"),
    [
        ("WARNING: Retrying after connection broken\nERROR: No matching distribution", "index"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "pip could not install"),
    ],
)
def test_a_failed_install_says_what_to_do_and_is_tried_again(
    installed: Path, pip_says: str, said: str
) -> None:
    (installed / "requirements.lock").write_text("numpy==1.26.3\n")
    (installed / "pip_says").write_text(pip_says + "\n")
    assert_one_line(run_setup(installed), said)
    (installed / "pip_says").unlink()
    assert run_setup(installed).returncode == 0
    assert len(pip_calls(installed)) == 1 + 2


def test_a_full_disk_is_one_clear_line_before_anything_is_installed(installed: Path) -> None:
    (installed / "requirements.lock").write_text("numpy==1.26.3\n")
    (installed / "bin" / "df").unlink()
    write_program(installed / "bin" / "df", "#!/bin/sh\necho head\necho disk 9 9 1000000 9% /\n")
    done = run_setup(installed)
    assert_one_line(done, "GB free")
    assert len(done.stderr.splitlines()) == 1
    assert pip_calls(installed) == []
