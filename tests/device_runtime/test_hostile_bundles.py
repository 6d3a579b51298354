"""Whatever bytes a bundle's files are, with checksums that fit: suggestions, or a refusal that names the file."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.bundle import BundleError, write_bundle
from device_runtime.keyboard import Keyboard
from device_runtime.step_model import check_step_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle_files(
    bundle_parts: tuple[dict[str, bytes], dict[str, object]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    files, facts = bundle_parts
    folder = tmp_path_factory.mktemp("hostile")
    return lambda name, content: write_bundle(folder / "bundle", {**files, name: content}, facts)


def open_hostile(bundle: Path, first: int, cases: int) -> None:
    """In a process without TensorFlow, which forks one for each case: some interpreters would bring it down."""
    command = [sys.executable, "-m", "tests.device_runtime.hostile", str(bundle)]
    done = subprocess.run(
        [*command, str(first), str(cases)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert "wrong" not in ends, done.stdout
    assert sum(ends.values()) == cases and ends["refused"] > cases / 3 and ends["suggested"] > 0


def test_damaged_files_under_fitting_checksums(bundle_path: Path) -> None:
    open_hostile(bundle_path, 0, 120)


@pytest.mark.slow
def test_ten_thousand_damaged_files(bundle_path: Path) -> None:
    open_hostile(bundle_path, 1_000, 10_000)


@settings(deadline=None)
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"\x1c\0\0\0TFL3"]))
def test_any_bytes_as_model(content: bytes, start: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_step_model(start + content)


@settings(deadline=None)
@given(data=st.data())
def test_any_change_of_the_model_is_harmless_or_refused(model: bytes, data: st.DataObject) -> None:
    """The check itself: nothing but ValueError, whatever it is led to."""
    damaged = bytearray(model)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(model) // 4 - 1)) * 4
        damaged[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    with contextlib.suppress(ValueError):
        check_step_model(bytes(damaged))


@pytest.mark.parametrize("name", ["truecase.tsv", "blocklist.txt"])
@settings(deadline=None, max_examples=50)
@given(lines=st.lists(st.text() | st.sampled_from(["tom\tTom", "i\tİ", "ß\tSS", "\t", "a b"])))
def test_any_lines_of_text(bundle_files: Callable[..., Path], name: str, lines: list[str]) -> None:
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    try:
        keyboard = Keyboard.open(bundle_files(name, content))
    except BundleError as error:
        assert str(error).startswith(f"{name}: ") and "\n" not in str(error)
    else:
        for text in ("", "tom"):
            session = keyboard.session()
            session.commit(text)
            assert all(s.text.isprintable() for s in session.suggest("", 20))
