"""The keyboard bundle: a folder with all that one keyboard needs, and proof that it is intact."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
MODEL = "model.tflite"
TOKENIZER = "tokenizer.model"
TRUECASE = "truecase.tsv"
BLOCKLIST = "blocklist.txt"
LEXICON = "lexicon.bin"
FILES = (MODEL, TOKENIZER, TRUECASE, BLOCKLIST, LEXICON)
FACTS = ("vocabulary_size", "state_shapes", "quantisation", "training", "licences")

# Far above any phone keyboard (budget 10 MB): whatever claims to be larger is not read into memory.
_MAX_FILE_BYTES = 64 * 2**20
_MAX_MANIFEST_BYTES = 2**20


class BundleError(ValueError):
    """A bundle that must not be used. The message begins with the file at fault."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was checked and whose files were intact when it was opened.

    Attributes:
        directory: the folder.
        manifest: the parsed manifest.json: `schema_version`, the facts, and
            `files` ({name: {"sha256", "bytes"}}).
    """

    directory: Path
    manifest: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """The bytes of one of the manifest's files, verified against size and checksum.

        Raises:
            BundleError: the file is not in the manifest, is missing or unreadable, or was altered.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise BundleError(f"{name}: not listed in {MANIFEST}")
        content = _read_limited(self.directory / name, _MAX_FILE_BYTES)
        if len(content) != entry["bytes"]:
            raise BundleError(
                f"{name}: {len(content)} bytes where the manifest says {entry['bytes']}; "
                "copy the bundle again"
            )
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise BundleError(f"{name}: does not match its checksum; copy the bundle again")
        return content


def write_bundle(directory: Path, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> Path:
    """Writes a bundle in place of whatever bundle is at `directory`, and returns `directory`.

    The folder is complete before it gets its name. An interruption leaves the earlier bundle, or
    none; what else it leaves (hidden siblings) the next write removes.

    Args:
        directory: the bundle's folder; its parents are made.
        files: content by name, at least those of `FILES`.
        facts: further keys of the manifest, at least those of `FACTS`; JSON values.

    Raises:
        BundleError: a name or fact is missing, or no bundle could hold it.
    """
    directory = Path(directory).absolute()
    manifest = {
        **facts,
        "schema_version": SCHEMA_VERSION,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
    }
    _check_manifest(manifest)
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).exists():
        raise BundleError(f"{directory.name}: exists and is no bundle; choose another folder")

    new, old = (directory.with_name(f".{directory.name}.{suffix}") for suffix in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    for name, content in files.items():
        (new / name).write_bytes(content)
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    (new / MANIFEST).write_text(text + "\n", encoding="utf-8")
    if directory.exists():
        os.rename(directory, old)
    os.rename(new, directory)
    shutil.rmtree(old, ignore_errors=True)
    return directory


def open_bundle(directory: Path) -> Bundle:
    """Opens a bundle and verifies every file of it.

    Raises:
        BundleError: the folder or a file is missing, truncated, altered, too large, outside the
            folder, or of another schema version.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise BundleError(f"{directory.name}: no such folder; make a bundle with `keyfed export`")
    try:
        manifest = json.loads(_read_limited(directory / MANIFEST, _MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{MANIFEST}: not valid JSON; copy the bundle again") from error
    _check_manifest(manifest)
    bundle = Bundle(directory, manifest)
    for name in manifest["files"]:
        bundle.read(name)
    return bundle


def _check_manifest(manifest: Any) -> None:
    if not isinstance(manifest, dict):
        raise BundleError(f"{MANIFEST}: must hold one JSON object")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{MANIFEST}: schema version {version!r}, but this runtime reads {SCHEMA_VERSION}; "
            "export the bundle again or update keyfed"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{MANIFEST}: `files` must be an object")
    for name, entry in files.items():
        if name != os.path.basename(name) or name in ("", ".", "..", MANIFEST) or "\\" in name:
            raise BundleError(f"{name!r}: a bundle holds plain file names only")
        if not isinstance(entry, dict) or not _is_size(entry.get("bytes"), _MAX_FILE_BYTES):
            raise BundleError(f"{name}: `bytes` must be an integer from 0 to {_MAX_FILE_BYTES}")
        if not isinstance(entry.get("sha256"), str):
            raise BundleError(f"{name}: `sha256` must be a string")
    for name in FILES:
        if name not in files:
            raise BundleError(f"{name}: not listed in {MANIFEST}")
    for fact in FACTS:
        if fact not in manifest:
            raise BundleError(f"{MANIFEST}: `{fact}` is missing")
    if not _is_size(manifest["vocabulary_size"], 2**31 - 1):
        raise BundleError(f"{MANIFEST}: `vocabulary_size` must be a positive integer")
    shapes = manifest["state_shapes"]
    if not isinstance(shapes, dict) or sorted(shapes) != ["c", "h"]:
        raise BundleError(f"{MANIFEST}: `state_shapes` must give the shapes of h and c")


def _is_size(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def _read_limited(path: Path, largest: int) -> bytes:
    """Content of a regular file inside the bundle's folder, never more than `largest` bytes."""
    try:
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path.name}: missing, or no regular file; copy the bundle again")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise BundleError(f"{path.name}: cannot be read ({error.strerror})") from error
    if len(content) > largest:
        raise BundleError(f"{path.name}: larger than {largest} bytes, which no bundle is")
    return content
