"""The keyboard bundle: a folder with all that one keyboard needs, and proof that it is intact.

The checksums prove that the files are those the manifest was written for. They do not prove who wrote it: a bundle is
data from a stranger, and whatever reads a file of it has to refuse what it does not understand.
"""

import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_runtime.card import describe_model

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
MODEL = "model.tflite"
TOKENIZER = "tokenizer.model"
TRUECASE = "truecase.tsv"
BLOCKLIST = "blocklist.txt"
LEXICON = "lexicon.bin"
CARD = "card.md"
FILES = (MODEL, TOKENIZER, TRUECASE, BLOCKLIST, LEXICON, CARD)
FACTS = ("vocabulary_size", "state_shapes", "quantisation", "training", "licences")

# Far above any phone keyboard (budget 10 MB): whatever claims to be larger is not read into memory.
_MAX_BYTES = {name: 2**22 for name in FILES} | {MODEL: 2**26, MANIFEST: 2**20, CARD: 2**20}
_MAX_VOCABULARY, _MAX_STATE = 2**20, 2**16
_SHA256 = re.compile("[0-9a-f]{64}")


class BundleError(ValueError):
    """A bundle that must not be used. The message begins with the file at fault."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was checked and whose files were intact when it was opened.

    Attributes:
        directory: the folder, links to it resolved: it stays the same when an installation moves on.
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
        content = _read_file(self.directory, name, entry["bytes"])
        if len(content) < entry["bytes"]:
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
    none; what else it leaves (hidden siblings) the next write removes. The model card is made here,
    from the facts.

    Args:
        directory: the bundle's folder; its parents are made.
        files: content by name, those of `FILES` without the card.
        facts: further keys of the manifest, at least those of `FACTS`; JSON values.

    Raises:
        BundleError: a name or fact is missing, or no bundle could hold it.
    """
    directory = Path(directory).absolute()
    _check_facts(facts)
    files = {**files, CARD: describe_model(facts).encode()}
    manifest = {
        **facts,
        "schema_version": SCHEMA_VERSION,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    encoded = (text + "\n").encode()
    parse_manifest(encoded)
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).exists():
        raise BundleError(f"{directory.name}: exists and is no bundle; choose another folder")

    new, old = (directory.with_name(f".{directory.name}.{suffix}") for suffix in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    for name, content in {**files, MANIFEST: encoded}.items():
        (new / name).write_bytes(content)
    if directory.exists():
        os.rename(directory, old)
    os.rename(new, directory)
    shutil.rmtree(old, ignore_errors=True)
    return directory


def open_bundle(directory: Path) -> Bundle:
    """Opens a bundle and verifies every file of it.

    The folder holds the manifest and the files of this schema and nothing else. `directory` itself may be a link;
    the files may not. Hard links are files like others: the checksum vouches for what they hold.

    Raises:
        BundleError: the folder or a file is missing, truncated, altered, too large, no regular file, not of a bundle,
            or of another schema version.
    """
    try:
        directory = Path(directory).resolve(strict=True)
        with os.scandir(directory) as entries:
            foreign = next((e.name for e in entries if e.name not in (*FILES, MANIFEST)), None)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name with a NUL
        raise BundleError(
            f"{_printable(Path(directory).name)}: no such folder; make a bundle with `keyfed export`"
        ) from error
    bundle = Bundle(directory, parse_manifest(read_manifest(directory)))
    if foreign is not None:
        raise BundleError(f"{_printable(foreign)}: not a file of a bundle; remove it")
    for name in FILES:
        bundle.read(name)
    return bundle


def read_manifest(directory: Path) -> bytes:
    """The manifest of the bundle in `directory` as it is, which says all that its files hold; not checked.

    Raises:
        BundleError: it is missing, too large, or no regular file.
    """
    return _read_file(directory, MANIFEST)


def parse_manifest(content: bytes) -> dict[str, Any]:
    """The manifest in `content`.

    Raises:
        BundleError: it is not one of this schema version.
    """
    try:
        manifest = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST}: not valid JSON; copy the bundle again") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{MANIFEST}: must hold one JSON object")
    version = manifest.get("schema_version")
    if not _is_integer(version, SCHEMA_VERSION, SCHEMA_VERSION):
        raise BundleError(
            f"{MANIFEST}: schema version {ascii(version)[:40]}, but this runtime reads "
            f"{SCHEMA_VERSION}; export the bundle again or update keyfed"
        )
    _check_files(manifest.get("files"))
    _check_facts(manifest)
    return manifest


def _check_files(files: Any) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{MANIFEST}: `files` must be an object")
    for name in FILES:
        if name not in files:
            raise BundleError(f"{name}: not listed in {MANIFEST}")
    for name, entry in files.items():
        # Names are known ones, so none can lead out of the folder or collide with another.
        if name not in FILES:
            raise BundleError(f"{_printable(name)}: not a file of a bundle")
        if not isinstance(entry, dict) or not _is_integer(entry.get("bytes"), 0, _MAX_BYTES[name]):
            raise BundleError(f"{name}: `bytes` must be an integer from 0 to {_MAX_BYTES[name]}")
        if not isinstance(entry.get("sha256"), str) or not _SHA256.fullmatch(entry["sha256"]):
            raise BundleError(f"{name}: `sha256` must be 64 hexadecimal digits")


def _check_facts(manifest: Mapping[str, Any]) -> None:
    for fact in FACTS:
        if fact not in manifest:
            raise BundleError(f"{MANIFEST}: `{fact}` is missing")
    if not _is_integer(manifest["vocabulary_size"], 1, _MAX_VOCABULARY):
        raise BundleError(f"{MANIFEST}: `vocabulary_size` must be from 1 to {_MAX_VOCABULARY}")
    shapes = manifest["state_shapes"]
    if (
        not isinstance(shapes, dict)
        or sorted(shapes) != ["c", "h"]
        or not all(isinstance(shape, list) and len(shape) == 2 for shape in shapes.values())
        or not all(_is_integer(n, 1, _MAX_STATE) for shape in shapes.values() for n in shape)
    ):
        raise BundleError(f"{MANIFEST}: `state_shapes` must give the shapes [1, n] of h and c")
    if not isinstance(manifest["quantisation"], str):
        raise BundleError(f"{MANIFEST}: `quantisation` must be a string")
    for fact in ("training", "licences"):
        if not isinstance(manifest[fact], dict):
            raise BundleError(f"{MANIFEST}: `{fact}` must be an object")


def _is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key comes twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _printable(name: str) -> str:
    """A stranger's name in one line that any terminal can take."""
    return name[:200] if name.isascii() and name.isprintable() else ascii(name)[1:200]


def _read_file(directory: Path, name: str, size: int | None = None) -> bytes:
    """Content of a regular file of the folder, no larger than `size` or than any such file is."""
    size = _MAX_BYTES[name] if size is None else size
    path = os.path.join(directory, name)
    try:
        # Asked before it is opened: opening a device may do things, opening a pipe may wait.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise BundleError(f"{name}: no regular file; copy the bundle again")
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"{name}: no regular file; copy the bundle again")
            content = file.read(size + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{name}: missing; copy the bundle again") from error
    except OSError as error:
        raise BundleError(f"{name}: cannot be read ({error.strerror})") from error
    if len(content) > size:
        raise BundleError(f"{name}: larger than {size} bytes, which it must not be")
    return content
