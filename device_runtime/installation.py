"""Installed bundles: a new one is switched to whole or not at all, and the one before is kept to go back to.

A folder of installations holds, under numbers that only grow,

    bundles/<n>/                        an installed bundle
    states/<n>/current, previous        links to bundles
    current -> states/<n>/current       the one link that counts: replaced by a rename, it changes both at once

so `Keyboard.open(folder / "current")` always finds a whole bundle, and what a killed process leaves behind is reached
by nothing and removed by the next installation. What is needed is a file system with symbolic links and `flock`.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from device_runtime.bundle import FILES, MANIFEST, MODEL, BundleError, open_bundle, read_manifest

CURRENT = "current"
_PREVIOUS = "previous"
_BUNDLES, _STATES = "bundles", "states"
_LOCK = ".keyfed-lock"  # also what tells that the folder is ours
_TRIAL_S = 60
_ROOT = Path(__file__).resolve().parent.parent  # the folder this package is imported from


class InstallationError(ValueError):
    """Nothing was installed or switched; the message says why."""


def install(bundle: Path, folder: Path) -> Path:
    """Installs a copy of the bundle in `folder` and returns the link to it, `folder / "current"`.

    Before it is switched to, every byte of the copy is on the disk and verified, and another process has opened it and
    had suggestions from it, so a bundle that brings down its process does not get in. The bundle used until then is
    kept as the previous one, and no other. Installing what is installed changes nothing. Of several installations at
    once each waits for the one before.

    Raises:
        BundleError: the bundle must not be used; begins with the file at fault.
        InstallationError: the folder cannot be written (no space left, for one).
    """
    source = open_bundle(bundle)
    with _locked(folder):
        current, previous = _installed(folder)
        if current is not None and _is_intact(current):
            if read_manifest(current) == read_manifest(source.directory):
                return folder / CURRENT
            previous = current
        new = folder / _BUNDLES / str(_next_number(folder))
        new.mkdir(parents=True)
        for name in FILES:
            _write(new / name, source.read(name))
        _write(new / MANIFEST, read_manifest(source.directory))
        _sync(new)
        open_bundle(new)
        _try_out(new)
        return _switch(folder, new, previous)


def roll_back(folder: Path) -> Path:
    """Switches back to the previous bundle, which is verified first, and returns the link to it.

    The bundle left becomes the previous one: rolling back twice changes nothing.

    Raises:
        BundleError: the previous bundle is damaged; begins with the file at fault.
        InstallationError: there is no previous bundle, or the folder cannot be written.
    """
    if not (folder / _LOCK).is_file():
        raise InstallationError(f"{folder}: nothing is installed there; install a bundle first")
    with _locked(folder):
        current, previous = _installed(folder)
        if previous is None:
            raise InstallationError(f"{folder}: no previous bundle to go back to")
        open_bundle(previous)
        _try_out(previous)
        return _switch(folder, previous, current)


def _installed(folder: Path) -> tuple[Path | None, Path | None]:
    """The current and the previous bundle's folders."""
    try:
        state = (folder / os.readlink(folder / CURRENT)).parent
    except FileNotFoundError:
        return None, None
    return _target(state / CURRENT), _target(state / _PREVIOUS)


def _target(link: Path) -> Path | None:
    return link.resolve() if link.is_symlink() else None


def _is_intact(bundle: Path) -> bool:
    try:
        open_bundle(bundle)
    except BundleError:
        return False
    return True


def _switch(folder: Path, current: Path, previous: Path | None) -> Path:
    """Makes these two the installed ones, in one step."""
    number = str(_next_number(folder))
    state = folder / _STATES / number
    state.mkdir(parents=True)
    for name, target in ((CURRENT, current), (_PREVIOUS, previous)):
        if target is not None:
            (state / name).symlink_to(Path("..", "..", _BUNDLES, target.name))
    for written in (state, state.parent, folder / _BUNDLES):
        _sync(written)
    link = folder / f".{CURRENT}"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(_STATES, number, CURRENT))
    os.replace(link, folder / CURRENT)
    _sync(folder)
    return folder / CURRENT


def _remove_others(folder: Path) -> None:
    """Removes what the current link does not lead to; what cannot be removed now, the next call tries again."""
    kept = [path for path in _installed(folder) if path is not None]
    if kept:
        kept.append((folder / os.readlink(folder / CURRENT)).parent)
    names = {(path.parent.name, path.name) for path in kept}
    for kind in (_BUNDLES, _STATES):
        for path in (folder / kind).glob("*"):
            if (kind, path.name) not in names:
                shutil.rmtree(path, ignore_errors=True)


def _next_number(folder: Path) -> int:
    taken = [0]
    for kind in (_BUNDLES, _STATES):
        taken += [int(path.name) for path in (folder / kind).glob("*") if path.name.isdecimal()]
    return max(taken) + 1


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in the folder, with nothing left over in it before and after; the system's errors get their one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _LOCK).exists() and any(folder.iterdir()):
            raise InstallationError(f"{folder}: holds other things; give a new or empty folder")
        with (folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _remove_others(folder)  # also makes room
            try:
                yield
            finally:
                _remove_others(folder)
    except OSError as error:
        raise InstallationError(
            f"{folder}: cannot be written ({error.strerror}); what was installed stays as it was"
        ) from error


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Puts a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_out(bundle: Path) -> None:
    """Has another process open the bundle and ask it for words.

    Raises:
        BundleError: it could not, in good time and alive.
    """
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "device_runtime.installation", str(bundle)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode == 0:
        return
    if done.returncode > 0 and done.stdout:
        raise BundleError(done.stdout.strip())
    raise BundleError(
        f"{MANIFEST}: the bundle brings down its keyboard (exit code {done.returncode}); do not use it"
    )


def _main(bundle: str) -> int:
    from device_runtime.keyboard import Keyboard

    signal.alarm(_TRIAL_S)  # ends this process, whatever it is in, and whoever started it
    try:
        session = Keyboard.open(bundle).session()
        for text in ("", "i am"):
            session.commit(text)
            if not session.suggest():
                raise BundleError(f"{MODEL}: suggests nothing; export the bundle again")
        session.suggest("t")
    except BundleError as error:
        print(str(error).encode("ascii", "backslashreplace").decode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
