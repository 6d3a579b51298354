import fcntl
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from device_runtime.bundle import BundleError, open_bundle, write_bundle
from device_runtime.installation import InstallationError, install, roll_back
from device_runtime.keyboard import Keyboard

ROOT = Path(__file__).resolve().parents[2]
INSTALL = (
    "import sys; from pathlib import Path; from device_runtime.installation import install\n"
    "install(Path(sys.argv[1]), Path(sys.argv[2]))"
)
Parts = tuple[dict[str, bytes], dict[str, Any]]


@pytest.fixture(scope="module")
def bundles(bundle_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles told apart by a fact of their manifest."""
    files, facts = bundle_parts
    folder = tmp_path_factory.mktemp("sources")
    return {
        name: write_bundle(folder / name, files, {**facts, "training": {"name": name}})
        for name in "abc"
    }


def name_of(bundle: Path) -> str:
    return open_bundle(bundle).manifest["training"]["name"]


def entries(folder: Path) -> tuple[int, int, list[str]]:
    """Numbers of bundles and states, and what else lies in the folder."""
    counts = [len(list((folder / kind).iterdir())) for kind in ("bundles", "states")]
    others = [p.name for p in folder.iterdir() if p.name not in ("bundles", "states")]
    return counts[0], counts[1], sorted(others)


def test_install_roll_back_and_back_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "keyboards"
    current = install(bundles["a"], folder)
    assert current == folder / "current" and name_of(current) == "a"
    with pytest.raises(InstallationError, match="no previous bundle"):
        roll_back(folder)
    assert install(bundles["b"], folder) == current
    assert Keyboard.open(current).session().suggest()
    for expected in ("a", "b", "a"):
        assert roll_back(folder) == current
        assert name_of(current) == expected
    assert install(bundles["c"], folder) == current  # b is left behind, a is the previous one
    assert name_of(current) == "c"
    assert entries(folder) == (2, 1, [".keyfed-lock", "current"])
    roll_back(folder)
    assert name_of(current) == "a"


def test_the_copy_is_the_source(bundles: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(bundles["a"], source)
    content = {path.name: path.read_bytes() for path in source.iterdir()}
    current = install(source, tmp_path / "keyboards")
    shutil.rmtree(source)
    assert {path.name: path.read_bytes() for path in current.iterdir()} == content


def test_installing_what_is_installed_keeps_the_previous_one(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("a", "b", "b", "b"):
        install(bundles[name], tmp_path / "keyboards")
    assert name_of(roll_back(tmp_path / "keyboards")) == "a"


def test_an_open_keyboard_stays_with_its_bundle(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "keyboards"
    opened = open_bundle(install(bundles["a"], folder))
    install(bundles["b"], folder)
    assert opened.read("model.tflite") == (bundles["a"] / "model.tflite").read_bytes()
    assert opened.manifest["training"]["name"] == "a"


def test_a_damaged_current_bundle_is_no_previous_one(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "keyboards"
    install(bundles["a"], folder)
    current = install(bundles["b"], folder)
    (current / "model.tflite").write_bytes(b"worn out")
    install(bundles["b"], folder)  # the same again mends it
    assert name_of(current) == "b"
    assert name_of(roll_back(folder)) == "a"


def test_a_damaged_previous_bundle_is_not_gone_back_to(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "keyboards"
    previous = install(bundles["a"], folder).resolve()
    current = install(bundles["b"], folder)
    (previous / "truecase.tsv").write_bytes(b"worn out")
    with pytest.raises(BundleError, match=r"^truecase\.tsv: "):
        roll_back(folder)
    assert name_of(current) == "b"


def test_bundles_that_cannot_be_used_are_not_installed(
    bundles: dict[str, Path], bundle_parts: Parts, tmp_path: Path
) -> None:
    """Damaged; whole, and unusable."""
    files, facts = bundle_parts
    folder = tmp_path / "keyboards"
    current = install(bundles["a"], folder)
    altered = tmp_path / "altered"
    shutil.copytree(bundles["b"], altered)
    (altered / "lexicon.bin").write_bytes(b"")
    wrong = write_bundle(tmp_path / "wrong", {**files, "model.tflite": b"\x1c\0\0\0TFL3"}, facts)
    for bundle, said in ((altered, "lexicon.bin"), (wrong, "model.tflite")):
        with pytest.raises(BundleError, match=f"^{said}: "):
            install(bundle, folder)
        assert name_of(current) == "a"
        assert entries(folder) == (1, 1, [".keyfed-lock", "current"])


def test_a_bundle_that_brings_down_its_process(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyboard that dies of a signal when opened, as an interpreter with a flaw would let it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\n"
        "if 'device_runtime.installation' in ' '.join(sys.orig_argv): os.kill(os.getpid(), 11)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BundleError, match=r"brings down its keyboard \(exit code -11\)"):
        install(bundles["a"], tmp_path / "keyboards")
    assert not (tmp_path / "keyboards" / "current").exists()


def test_other_peoples_folders_are_left_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "thesis.txt").write_text("years of work")
    for call in (lambda: install(bundles["a"], tmp_path), lambda: roll_back(tmp_path)):
        with pytest.raises(InstallationError):
            call()
    assert (tmp_path / "bundles" / "thesis.txt").exists()
    with pytest.raises(InstallationError, match="nothing is installed"):
        roll_back(tmp_path / "nowhere")


def test_killed_before_any_file_operation(bundle_path: Path, tmp_path: Path) -> None:
    """`kill -9` before the first, the second, ... operation: the old bundle or the new one, and the next call works."""
    command = [sys.executable, "-m", "tests.device_runtime.killed_installation"]
    done = subprocess.run(
        [*command, str(bundle_path), str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["install"]["old"] > 10 and report["install"]["new"] > 3
    assert report["roll_back"]["old"] > 3 and report["roll_back"]["new"] > 3


def test_a_full_disk(bundles: dict[str, Path], tmp_path: Path) -> None:
    """No file may grow beyond some bytes: the model cannot be written, and nothing changes."""
    folder = tmp_path / "keyboards"
    current = install(bundles["a"], folder)

    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + INSTALL, bundles["b"], folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "cannot be written (File too large)" in done.stderr
    assert name_of(current) == "a"
    assert entries(folder) == (1, 1, [".keyfed-lock", "current"])
    install(bundles["b"], folder)
    assert name_of(current) == "b"


def test_installations_at_once_wait_for_each_other(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Two processes install in turns while the lock is taken: both end well, and the later one's bundle is current."""
    folder = tmp_path / "keyboards"
    install(bundles["a"], folder)
    with (folder / ".keyfed-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = [
            subprocess.Popen([sys.executable, "-c", INSTALL, bundles[name], folder], cwd=ROOT)
            for name in "bc"
        ]
        time.sleep(0.3)
        assert [process.poll() for process in running] == [None, None]
        assert name_of(folder / "current") == "a"
    assert [process.wait() for process in running] == [0, 0]
    last = name_of(folder / "current")
    assert {last, name_of(roll_back(folder))} == {"b", "c"}
    assert entries(folder) == (2, 1, [".keyfed-lock", "current"])
