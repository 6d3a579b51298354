import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.bundle import CARD, FACTS, FILES, BundleError, open_bundle, write_bundle
from device_runtime.card import describe_model

FACTS_GIVEN: dict[str, Any] = {
    "vocabulary_size": 3,
    "state_shapes": {"h": [1, 2], "c": [1, 2]},
    "quantisation": "none",
    "training": {},
    "licences": {},
}
CONTENT = {name: name.encode() * 3 for name in FILES if name != CARD}
WRITTEN = {**CONTENT, CARD: describe_model(FACTS_GIVEN).encode()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", CONTENT, FACTS_GIVEN)


def edit_manifest(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_written_is_read(path: Path) -> None:
    bundle = open_bundle(path)
    assert {name: bundle.read(name) for name in FILES} == WRITTEN
    assert {fact: bundle.manifest[fact] for fact in FACTS} == FACTS_GIVEN


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_missing_file(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"^{name}: missing"):
        open_bundle(path)


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_altered_file(path: Path, name: str) -> None:
    content = WRITTEN[name]
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
    "name",
    [
        "../outside",
        "/etc/hostname",
        "a/b",
        "..",
        "",
        "a\\b",
        "a\0b",
        "x" * 999,
        "\ud800",
        "MODEL.tflite",
        "model.tflite/",
        "./model.tflite",
        "model.tflite\n",
        "manifest.json",
        "more",
    ],
)
def test_names_that_are_no_plain_file_of_the_bundle(path: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 0}
    edit_manifest(path, lambda m: m["files"].update({name: entry}))
    with pytest.raises(BundleError, match="not a file of a bundle") as refused:
        open_bundle(path)
    assert str(refused.value).isprintable() and str(refused.value).isascii()


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
        lambda m: m["files"]["model.tflite"].update(sha256="0" * 63),
        lambda m: m["files"]["model.tflite"].update(bytes=True),
        lambda m: m["files"]["model.tflite"].update(bytes=3.0),
        lambda m: m.update(vocabulary_size="many"),
        lambda m: m.update(vocabulary_size=0),
        lambda m: m.update(vocabulary_size=2**31),
        lambda m: m.update(state_shapes={"h": [1, 2]}),
        lambda m: m.update(state_shapes={"h": [1, 2], "c": [1, -2]}),
        lambda m: m.update(state_shapes={"h": [1, 2], "c": "12"}),
        lambda m: m.update(quantisation=8),
        lambda m: m.update(training=[]),
        lambda m: m.update(licences="all"),
        lambda m: m.pop("licences"),
    ],
)
def test_manifests_that_do_not_follow_the_schema(path: Path, edit: Callable[..., Any]) -> None:
    edit_manifest(path, edit)
    with pytest.raises(BundleError):
        open_bundle(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 9999,
        b"null",
        b"\0",
        b"{}" * 2,
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
    ],
)
def test_manifests_that_are_no_json_object(path: Path, text: bytes) -> None:
    (path / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"^manifest\.json: "):
        open_bundle(path)


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_as_manifest(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError):
        open_bundle(path)


@pytest.mark.parametrize(
    "number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 5000]
)
def test_numbers_that_are_none(path: Path, number: bytes) -> None:
    manifest = (path / "manifest.json").read_bytes()
    broken = manifest.replace(b'"training": {}', b'"training": {"loss": ' + number + b"}")
    assert broken != manifest
    (path / "manifest.json").write_bytes(broken)
    with pytest.raises(BundleError, match=r"^manifest\.json: "):
        open_bundle(path)


def test_a_key_that_comes_twice_could_mean_either(path: Path) -> None:
    manifest = (path / "manifest.json").read_bytes()
    for key in (b'"schema_version": 2,', b'"training": {},'):
        assert key in manifest
        (path / "manifest.json").write_bytes(manifest.replace(key, key * 2))
        with pytest.raises(BundleError, match=r"^manifest\.json: "):
            open_bundle(path)


def test_files_that_are_not_listed(path: Path) -> None:
    for name in ("model.py", "Model.tflite", ".hidden", os.fsdecode(b"\xff\n")):
        (path / name).write_bytes(b"")
        with pytest.raises(BundleError, match="not a file of a bundle; remove it") as refused:
            open_bundle(path)
        assert str(refused.value).isascii() and str(refused.value).isprintable()
        (path / name).unlink()
    (path / "folder").mkdir()
    with pytest.raises(BundleError, match=r"^folder: not a file of a bundle"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["truecase.tsv", "manifest.json"])
def test_what_is_no_regular_file_is_not_even_opened(path: Path, name: str, tmp_path: Path) -> None:
    """A pipe would wait for a writer, a device could do anything; a link to the intact file leads out of the folder."""
    outside = tmp_path / "outside"
    outside.write_bytes((path / name).read_bytes())
    makers: list[Callable[[Path], Any]] = [
        os.mkfifo,
        Path.mkdir,
        lambda place: place.symlink_to(outside),
        lambda place: place.symlink_to("/dev/zero"),
        lambda place: place.symlink_to(place.name),
    ]
    for make in makers:
        if (path / name).is_dir():
            (path / name).rmdir()
        else:
            (path / name).unlink()
        make(path / name)
        with pytest.raises(BundleError, match=f"^{name}: no regular file"):
            open_bundle(path)


def test_a_hard_link_is_a_file(path: Path, tmp_path: Path) -> None:
    os.link(path / "truecase.tsv", tmp_path / "same")
    assert open_bundle(path).read("truecase.tsv") == CONTENT["truecase.tsv"]


def test_no_more_is_read_than_the_manifest_says(path: Path) -> None:
    """A file of a terabyte (of holes) is refused at once, and none of it is in the process afterwards."""
    for name in (*FILES, "manifest.json"):
        whole = (path / name).read_bytes()
        os.truncate(path / name, 2**40)
        with pytest.raises(BundleError, match=f"^{name}: larger than "):
            open_bundle(path)
        (path / name).write_bytes(whole)
    open_bundle(path)


def test_a_folder_may_be_a_link_and_stays_what_it_was(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    bundle = open_bundle(link)
    link.unlink()
    link.symlink_to(tmp_path)
    assert bundle.read("truecase.tsv") == CONTENT["truecase.tsv"]
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for wrong in ("circle", "nowhere", "bundle/manifest.json", "a\0b", "x" * 999):
        with pytest.raises(BundleError):
            open_bundle(tmp_path / wrong)


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
        if name != CARD:
            with pytest.raises(BundleError, match=name):
                write_bundle(tmp_path / "bundle", files, FACTS_GIVEN)
    for fact in FACTS:
        facts = {key: value for key, value in FACTS_GIVEN.items() if key != fact}
        with pytest.raises(BundleError, match=fact):
            write_bundle(tmp_path / "bundle", CONTENT, facts)
    assert not (tmp_path / "bundle").exists()
