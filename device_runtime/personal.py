"""What this user writes: words and pairs of words, learnt after repeated sight and forgotten for good.

Everything is in one file that its owner alone may read, in plain lines that can be read, copied and edited:

    # keyfed personal words 1
    Siobhan<TAB>4
    to siobhan<TAB>2

A line is a word as it was written, or two words that stood side by side, and how often; the last seen come last.
"""

import contextlib
import heapq
import logging
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from device_runtime.counts import FORMS, WORD_BYTES, Counts
from device_runtime.tokenizer import is_one_word
from device_runtime.words import normalize

LEARNT_AFTER = 3
"""Times a word must have been seen to count for anything."""

WORDS, PAIRS = 5_000, 10_000
"""Most words and pairs kept; which ones make room is told in `Counts`."""

_HEADER = "# keyfed personal words 1"
# The largest file that is written: every line at its longest, with a tab or blank, nine digits and a line feed.
_MOST_BYTES = len(_HEADER) + 1 + WORDS * FORMS * (WORD_BYTES + 11) + PAIRS * (2 * WORD_BYTES + 12)
_PAIR_AFTER = 2  # times a pair must have been seen
# Shares of a user's own words are of what was seen and so much more, so that the first ones do not weigh too much.
# Tuned on validation users of a quick run.
_UNSEEN_WORDS = 500.0
_UNSEEN_FOLLOWERS = 5.0

_MOST_LIKELY = 20  # words looked at before a word
_log = logging.getLogger(__name__)


class PersonalError(ValueError):
    """A file of personal words that cannot be used; names file and line, never what is in it."""


@dataclass(frozen=True)
class Sight:
    """A word that stands in a message.

    Attributes:
        end: number of the message's tokens up to its end.
        word: normalised.
        form: as it is written.
        previous: the word right before it, if that may be learnt as well.
    """

    end: int
    word: str
    form: str
    previous: str | None


class PersonalHistory:
    """A user's own words, for any threads and sessions.

    Several processes may have the same file: each takes over what another one wrote before it writes.

    Args:
        path: the file, which need not exist; None keeps everything in memory.

    Attributes:
        version: another number whenever a word was learnt or forgotten.

    Raises:
        PersonalError: the file is malformed or cannot be read.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self._path = None if path is None else Path(path).resolve()
        self._lock = threading.RLock()
        self._messages: weakref.WeakSet[Sights] = weakref.WeakSet()
        self._stamp: tuple[int, int, int] | None = None
        self.version = 0
        # What follows from the counts; None where it is to be found when asked for.
        self._seen: int | None
        self._frequent: list[str] | None
        self._clear()
        if self._path is not None:
            with contextlib.suppress(OSError):  # whatever a crash left
                self._unfinished().unlink(missing_ok=True)
        with self._lock:
            self._refresh()

    def learnt_words(self) -> list[str]:
        """All words, normalised, that were seen often enough to count."""
        with self._lock:
            return self._counts.words(LEARNT_AFTER)

    def is_learnt(self, word: str) -> bool:
        """Whether `word`, normalised, is one of them."""
        with self._lock:
            return self._counts.count(word) >= LEARNT_AFTER

    def form(self, word: str) -> str | None:
        """How the user mostly writes a learnt word; None for others."""
        with self._lock:
            if not self.is_learnt(word):
                return None
            forms = self._counts.forms(word)
            return max(forms, key=lambda form: (forms[form], form != word, form))

    def shares(self, words: Iterable[str], previous: str | None) -> dict[str, float]:
        """Of each word the probability in [0, 1) that it is what the user writes after `previous`; all normalised."""
        with self._lock:
            if self._seen is None:
                self._seen = self._counts.total(LEARNT_AFTER)
            before = self._counts.count(previous or "")
            before = before if before >= LEARNT_AFTER else 0
            followers = self._followers(previous)
            shares = {}
            for word in words:
                count = self._counts.count(word)
                alone = count / (self._seen + _UNSEEN_WORDS)
                share = followers.get(word, 0) + _UNSEEN_FOLLOWERS * alone
                share /= before + _UNSEEN_FOLLOWERS
                shares[word] = share if count >= LEARNT_AFTER else 0.0
            return shares

    def likely_words(self, previous: str | None) -> list[str]:
        """Learnt words that followed `previous`, and the most frequent ones: a few dozen, in no order."""
        with self._lock:
            if self._frequent is None:
                counts = [(word, self._counts.count(word)) for word in self.learnt_words()]
                top = heapq.nsmallest(_MOST_LIKELY, counts, _by_count)
                self._frequent = [word for word, _ in top]
            followers = self._followers(previous)
            likely = heapq.nsmallest(_MOST_LIKELY, followers.items(), _by_count)
            words = [word for word, _ in likely if self.is_learnt(word)]
            return list(dict.fromkeys(words + self._frequent))

    def begin_message(self) -> "Sights":
        """Collects what a message holds; nothing is learnt before it is settled."""
        with self._lock:
            self._try(self._refresh)
            message = Sights(self, self._lock)
            self._messages.add(message)
            return message

    def learn(self, sights: Sequence[Sight]) -> None:
        """Counts these words.

        If the file cannot be read or written, which is logged, memory has them, and the next write takes them along.
        """
        with self._lock:
            is_current = self._try(self._refresh)
            for sight in sights:
                was_learnt = self.is_learnt(sight.word)
                self._counts.see(sight.word, sight.form)
                self.version += self.is_learnt(sight.word) and not was_learnt
                if sight.previous is not None:
                    self._counts.see_pair(sight.previous, sight.word)
            self._forget_conclusions()
            if is_current:
                self._try(self._write)

    def forget(self, word: str) -> None:
        """Removes `word` in all its forms, with its pairs, from memory, file and messages not finished.

        Raises:
            OSError: the file cannot be written; memory no longer holds the word.
        """
        word = normalize(word)
        with self._lock:
            self._refresh()
            for message in self._messages:
                message.remove(word)
            self._counts.remove(word)
            self._forget_conclusions()
            self.version += 1
            self._write()

    def forget_all(self) -> None:
        """Removes everything, the file included.

        Raises:
            OSError: the file cannot be removed; memory holds nothing any more.
        """
        with self._lock:
            for message in self._messages:
                message.remove(None)
            self._clear()
            if self._path is not None:
                self._unfinished().unlink(missing_ok=True)
                self._path.unlink(missing_ok=True)
            self._stamp = None

    def export(self) -> str:
        """All of it as text, in the file's format."""
        with self._lock:
            return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{_HEADER}\n"
        for form, times in self._counts.written():
            yield f"{form}\t{times}\n"
        for before, after, times in self._counts.pairs():
            yield f"{before} {after}\t{times}\n"

    def _clear(self) -> None:
        self._counts = Counts(WORDS, PAIRS, LEARNT_AFTER, _PAIR_AFTER)
        self._forget_conclusions()
        self.version += 1

    def _forget_conclusions(self) -> None:
        self._seen = self._frequent = None

    def _followers(self, word: str | None) -> dict[str, int]:
        """Words that followed this one often enough, and how often."""
        return self._counts.followers(word or "", _PAIR_AFTER)

    def _unfinished(self) -> Path:
        """Where the file is written before it gets its name."""
        assert self._path is not None
        return self._path.with_name(f".{self._path.name}.new")

    def _try(self, act: Callable[[], None]) -> bool:
        """Whether it could be done; a file at fault is no reason to keep anybody from typing."""
        try:
            act()
        except (OSError, PersonalError) as error:
            _log.warning("personal words: %s", error)
            return False
        return True

    def _refresh(self) -> None:
        """Reads the file if another process wrote it."""
        if self._path is None:
            return
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        words, pairs = _read(self._path) if stamp else ([], [])
        self._clear()
        for word, form, count in words:
            self._counts.see(word, form, count)
        self._counts.load_pairs(pairs)
        self._stamp = stamp

    def _write(self) -> None:
        if self._path is None:
            return
        new = self._unfinished()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(self._lines())
            os.replace(new, self._path)
        except OSError as error:
            raise OSError(f"{self._path.name}: cannot be written ({error.strerror})") from error
        self._stamp = _stamp(self._path)


class Sights:
    """What may be learnt of one message, as long as it may still be deleted. For any threads.

    Args:
        history: what learns.
        lock: its lock, so that nothing is learnt while it is being forgotten.
    """

    def __init__(self, history: PersonalHistory, lock: threading.RLock) -> None:
        self._history = history
        self._lock = lock
        self._sights: list[Sight] = []

    def add(self, sight: Sight) -> None:
        """A word was committed."""
        with self._lock:
            self._sights.append(sight)

    def last_word(self, length: int) -> str | None:
        """The word that ends the message's first `length` tokens, if it may be learnt and is not yet."""
        with self._lock:
            last = self._sights[-1] if self._sights else None
            return last.word if last is not None and last.end == length else None

    def drop(self, length: int) -> None:
        """What stands beyond the message's first `length` tokens was deleted."""
        with self._lock:
            while self._sights and self._sights[-1].end > length:
                self._sights.pop()

    def settle(self, length: int, at_least: int = 1) -> None:
        """What stands within the message's first `length` tokens is learnt, if it is `at_least` so many words."""
        with self._lock:
            count = sum(sight.end <= length for sight in self._sights)
            if count >= at_least:
                settled, self._sights = self._sights[:count], self._sights[count:]
                self._history.learn(settled)

    def remove(self, word: str | None) -> None:
        """The word, or if None everything, is not to be learnt."""
        with self._lock:
            self._sights = [
                replace(sight, previous=None) if sight.previous == word else sight
                for sight in self._sights
                if word is not None and sight.word != word
            ]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file is written; None if there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None


def _read(
    path: Path,
) -> tuple[list[tuple[str, str, int]], list[tuple[str, str, int]]]:
    """Words with forms, and pairs, with their counts as the file has them; it is made its owner's alone."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
            if content.startswith(
                _HEADER.encode()
            ):  # else it is not one of ours, and left as it is
                os.fchmod(file.fileno(), 0o600)
    except OSError as error:
        raise PersonalError(f"{path.name}: cannot be read ({error.strerror})") from error
    if len(content) > _MOST_BYTES:
        raise PersonalError(f"{path.name}: larger than {_MOST_BYTES} bytes; remove lines")
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise PersonalError(f"{path.name}: line {number}: not UTF-8; save it as UTF-8") from None
    if lines[0].rstrip("\r") != _HEADER:
        raise PersonalError(f"{path.name}: line 1: write {_HEADER!r}, or remove the file")
    words, pairs = [], []
    for number, line in enumerate(lines[1:], start=2):
        form, tab, times = line.rstrip("\r").partition("\t")
        if not form and not tab:
            continue
        parts = [normalize(part) for part in form.split(" ")]
        count = int(times) if re.fullmatch("[0-9]{1,9}", times) else 0
        too_long = any(len(text.encode()) > WORD_BYTES for text in (*parts, *form.split(" ")))
        if count < 1 or len(parts) > 2 or too_long or not all(map(is_one_word, parts)):
            raise PersonalError(
                f"{path.name}: line {number}: write one word or two of at most {WORD_BYTES} bytes, a tab and how "
                "often, or delete the line"
            )
        if len(parts) == 1:
            words.append((parts[0], form, count))
        else:
            pairs.append((parts[0], parts[1], count))
    return words, pairs


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    """Most frequent first, ties by text."""
    return -item[1], item[0]
