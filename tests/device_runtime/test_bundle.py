import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.bundle import FACTS, FILES, BundleError, open_bundle, write_bundle

FACTS_GIVEN: dict[str, Any] = {
    "vocabulary_size": 3,
    "state_shapes": {"h": [1, 2], "c": [1, 2]},
    "quantisation": "none",
    "training": {},
    "licences": {},
}
CONTENT = {name: name.encode() * 3 for name in FILES}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", CONTENT, FACTS_GIVEN)


def edit_manifest(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_written_is_read(path: Path) -> None:
    bundle = open_bundle(path)
    assert {name: bundle.read(name) for name in FILES} == CONTENT
    assert {fact: bundle.manifest[fact] for fact in FACTS} == FACTS_GIVEN


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_missing_file(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"^{name}: missing"):
        open_bundle(path)


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_altered_file(path: Path, name: str) -> None:
    content = CONTENT[name]
    for wrong in (content[:-1], content + b"!", content[:-1] + b"!", b""):
        (path / name).write_bytes(wrong)
        with pytest.raises(BundleError, match=f"^{name}: "):
            open_bundle(path)


def test_file_altered_after_opening(path: Path) -> None:
    bundle = open_bundle(path)
    (path / "model.tflite").write_bytes(b"x" * len(CONTENT["model.tflite"]))
    with pytest.raises(BundleError, match=r"^model\.tflite: .*checksum"):
        bundle.read("model.tflite")


def test_link_out_of_the_bundle(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(CONTENT["truecase.tsv"])
    (path / "truecase.tsv").unlink()
    (path / "truecase.tsv").symlink_to(outside)
    with pytest.raises(BundleError, match=r"^truecase\.tsv: "):
        open_bundle(path)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "a/b", "..", "", "a\\b", "a\0b", "x" * 999, "\ud800"]
)
def test_names_that_are_no_plain_file_of_the_bundle(path: Path, name: str) -> None:
    edit_manifest(path, lambda m: m["files"].update({name: {"sha256": "", "bytes": 0}}))
    with pytest.raises(BundleError):
        open_bundle(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(schema_version=1),
        lambda m: m.pop("schema_version"),
        lambda m: m.update(files=[]),
        lambda m: m["files"].pop("blocklist.txt"),
        lambda m: m["files"].update({"model.tflite": 3}),
        lambda m: m["files"]["model.tflite"].update(bytes=2**40),
        lambda m: m["files"]["model.tflite"].update(bytes=-1),
        lambda m: m["files"]["model.tflite"].update(sha256=None),
        lambda m: m.update(vocabulary_size="many"),
        lambda m: m.update(state_shapes={"h": [1, 2]}),
        lambda m: m.pop("licences"),
    ],
)
def test_manifests_that_do_not_follow_the_schema(path: Path, edit: Callable[..., Any]) -> None:
    edit_manifest(path, edit)
    with pytest.raises(BundleError):
        open_bundle(path)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 9999])
def test_manifests_that_are_no_json_object(path: Path, text: bytes) -> None:
    (path / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"^manifest\.json: "):
        open_bundle(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_as_manifest(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError):
        open_bundle(path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^nowhere: no such folder"):
        open_bundle(tmp_path / "nowhere")


def test_writing_replaces_the_whole_bundle(path: Path, tmp_path: Path) -> None:
    (path / "left.over").write_bytes(b"old")
    write_bundle(path, {**CONTENT, "blocklist.txt": b"new"}, FACTS_GIVEN)
    assert open_bundle(path).read("blocklist.txt") == b"new"
    assert sorted(p.name for p in path.iterdir()) == sorted([*FILES, "manifest.json"])
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_interrupted_write_keeps_the_old_bundle(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="power cut"):
            write_bundle(path, {**CONTENT, "blocklist.txt": b"new"}, FACTS_GIVEN)
    assert open_bundle(path).read("blocklist.txt") == CONTENT["blocklist.txt"]
    write_bundle(path, {**CONTENT, "blocklist.txt": b"new"}, FACTS_GIVEN)
    assert open_bundle(path).read("blocklist.txt") == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        write_bundle(tmp_path, CONTENT, FACTS_GIVEN)
    assert (tmp_path / "thesis.txt").exists()


def test_incomplete_bundles_are_not_written(tmp_path: Path) -> None:
    for name in FILES:
        files = {key: value for key, value in CONTENT.items() if key != name}
        with pytest.raises(BundleError, match=name):
            write_bundle(tmp_path / "bundle", files, FACTS_GIVEN)
    assert not (tmp_path / "bundle").exists()
