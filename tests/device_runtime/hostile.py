"""Opens bundles whose files were damaged on purpose, each in a process of its own: `python -m ... BUNDLE FIRST CASES`.

The checksums fit, so that every reader meets its damaged file. One line is printed for each case that ended in
anything but suggestions or a `BundleError` that begins with the file's name, and one with the counts.
"""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from importlib.resources import files
from pathlib import Path

from device_runtime.bundle import FILES, BundleError
from device_runtime.keyboard import Keyboard

_SECONDS = 20
_BYTES = 2**31
_SUGGESTED, _REFUSED, _WRONG = range(3)


def damage(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Cut, replaced, or changed in a few places; changes prefer the ends, where binary formats keep their tables."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.choice([0, 1, 7, 100, 5000]))
    if kind < 0.1:
        return content[:8] + rng.randbytes(rng.choice([0, 4, 100, 5000]))
    if kind < 0.2:
        return content[: rng.randrange(len(content) + 1)]
    if kind < 0.25:
        return rng.choice(others)
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        end = min(len(damaged), 9000)
        at = rng.choice([rng.randrange(end + 1), len(damaged) - rng.randrange(end + 1)])
        kind = rng.randrange(6)
        if kind == 0:
            damaged[at : at + 1] = rng.randbytes(1)
        elif kind == 1 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
            damaged[at & ~3 : (at & ~3) + 4] = number.to_bytes(4, "little")
        elif kind == 3:
            del damaged[at : at + rng.randrange(8)]
        elif kind == 4:
            damaged[at:at] = rng.choice([b"\n", b"\t", b"\0", b"\xff", "é\u2028ß\u200b".encode()])
        else:
            start = rng.randrange(len(damaged) + 1)
            damaged[at:at] = damaged[start : start + rng.randrange(40)]
    return bytes(damaged)


def _open(folder: Path, altered: str) -> int:
    """Opens the bundle and types; nothing outside of its folder may be touched."""
    allowed = (str(folder), tempfile.gettempdir(), str(files("device_runtime") / "keyboards"))

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            place = os.fsdecode(arguments[0])
            if not place.startswith(allowed):
                raise AssertionError(f"opens {place}")
        if event.split(".")[0] in ("import", "compile", "exec", "pickle", "subprocess", "socket"):
            raise AssertionError(f"{event} {arguments!r:.100}")

    sys.addaudithook(watch)
    try:
        session = Keyboard.open(folder).session()
        for text, prefix in (("", ""), ("we don't want it", ""), ("zqx 10:30 😂", "to")):
            session.commit(text)
            session.suggest(prefix)
        return _SUGGESTED
    except BundleError as error:
        if str(error).startswith(f"{altered}: ") and str(error).isprintable():
            return _REFUSED
        os.write(1, f"  {altered}: {error!r:.300}\n".encode())
    except BaseException as error:
        os.write(1, f"  {altered}: {error!r:.300}\n".encode("ascii", "backslashreplace"))
    return _WRONG


def main(bundle: str, first: str, cases: str) -> None:
    Keyboard.open(bundle).session().suggest("t")  # imports everything
    manifest = json.loads((Path(bundle) / "manifest.json").read_text("utf-8"))
    sound = {name: (Path(bundle) / name).read_bytes() for name in FILES}
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        for seed in range(int(first), int(first) + int(cases)):
            rng = random.Random(seed)
            altered = rng.choice([*FILES, "model.tflite", "tokenizer.model"])
            content = damage(sound[altered], list(sound.values()), rng)
            for name in FILES:
                (folder / name).write_bytes(content if name == altered else sound[name])
            entries = dict(manifest["files"])
            digest = hashlib.sha256(content).hexdigest()
            entries[altered] = {"sha256": digest, "bytes": len(content)}
            (folder / "manifest.json").write_text(json.dumps({**manifest, "files": entries}))
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
                signal.alarm(_SECONDS)
                os._exit(_open(folder, altered))
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            if code not in (_SUGGESTED, _REFUSED):
                print(f"seed {seed}, {altered}: exit code {code}", flush=True)
            ends[{_SUGGESTED: "suggested", _REFUSED: "refused"}.get(code, "wrong")] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
