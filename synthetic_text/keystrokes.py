"""A transcription key by key: slips, the user's own corrections, autocorrect, and the log with times."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.layouts import Layout
from synthetic_text.autocorrect import load_autocorrect
from synthetic_text.slips import Slipped, Thumb, slip
from synthetic_text.typist import Typist, encode, plan_words, split_text

# What happens to errors. DESIGN gives the outcome alone (9.3 backspaces per 100 keys, about 8 % of
# words autocorrected, 2.3 % of characters left wrong), from different studies; these are tuned until
# the output has all three, see typing_check.py.
NOTICED_IN_WORD = 0.155  # slips seen before their word is finished
MEAN_KEYS_TO_NOTICE = 1.0  # typed before they are seen; chosen
AUTOCORRECTED = 0.75  # words the keyboard does not know and has a replacement for
NOTICED_AFTER_WORD = 0.155  # wrong words, by slip or autocorrect, that are typed once more
REWRITTEN = 0.126  # right words that are deleted and typed again: a change of mind

# Intervals: a finger that has keys to cross takes longer (Fitts), another thumb's turn is quicker,
# and the rest is noise. Shapes chosen; the user's mean interval sets the scale.
_TIME_PER_BIT = 0.25
_MEAN_BITS = 2.0  # between keys, and to and from keys that have no place on the letter page
_ALTERNATION_GAIN = 0.85
_INTERVAL_NOISE = 0.35

BACKSPACE = "\b"


@dataclass(frozen=True)
class Replacement:
    """Autocorrect at work: after `keystroke` keys of the log, the last `removed` characters before
    the cursor became `inserted`. It is logged at the word's end, ahead of the blank that causes it.
    """

    keystroke: int
    removed: int
    inserted: str


@dataclass(frozen=True, eq=False)
class KeystrokeLog:
    """Every keystroke in order.

    Attributes:
        messages: [K] index of the message.
        keys: [K] the character it made; BACKSPACE for a deletion. Shift, long press and page changes
            are part of the keystroke that needs them.
        times_ms: [K] since the message's first key.
        touches_mm: [K, 2] from the first key's centre to the right and down; NaN for all but letters.
        replacements: by autocorrect, in order.
    """

    messages: NDArray[np.intp]
    keys: NDArray[np.str_]
    times_ms: NDArray[np.int64]
    touches_mm: NDArray[np.float64]
    replacements: tuple[Replacement, ...]


@dataclass(frozen=True, eq=False)
class Typing:
    """Messages as meant, as they would stand uncorrected, and as they were sent.

    Attributes:
        intended: the given messages.
        first_typed: the first key typed for each place, errors included.
        typed: after all corrections by the user and the keyboard.
        log: None unless asked for.
    """

    intended: list[str]
    first_typed: list[str]
    typed: list[str]
    log: KeystrokeLog | None


@dataclass(frozen=True)
class _Window:
    """Planned characters [start, stop) of a word that are deleted and typed again."""

    start: int
    stop: int


def type_messages(
    typist: Typist, messages: Sequence[str], rng: np.random.Generator, log: bool = False
) -> Typing:
    """One user transcribes messages.

    A message is cut into words at blanks; marks belong to their word and a blank to the word after
    it. Three kinds of error are made: mistakes (misspelt words), lapses (a word twice, no blank) and
    slips. Some slips are seen in the word and deleted; at the word's end the keyboard may replace it;
    then some wrong words, and a few right ones, are deleted and typed again. What is typed again is
    right. Deliberate variants (lol, im, dont) are intended text: conversion.py writes them before.

    The same `rng` state gives the same texts, with the log or without.

    Raises:
        ValueError: a letter that the layout cannot type; see `Layout.can_type`.
    """
    thumb = typist.thumb
    thumb.layout.check_script("".join(messages))
    intended = [" " * (i > 0) + word for text in messages for i, word in enumerate(text.split(" "))]
    message_of = np.repeat(
        np.arange(len(messages)),
        np.fromiter((text.count(" ") + 1 for text in messages), np.intp, len(messages)),
    )
    planned, mistakes = plan_words(intended, typist.key_error_rate, rng)
    codes, owners = encode(planned)
    errors = max(0.0, typist.key_error_rate * len(codes) - mistakes)
    slipped = slip(thumb, codes, owners, errors, rng)
    first = split_text(slipped.codes, owners[slipped.owners], len(planned))
    starts = np.searchsorted(owners, np.arange(len(planned) + 1))

    windows = _find_windows(slipped, owners, starts, rng)
    forms = _repair(first, planned, slipped, starts, windows)
    # A word typed twice is seen as such, a misspelling is what the user means to write.
    wanted = [
        intent if len(plan) > len(intent) + 1 and plan.startswith(intent + " ") else plan
        for intent, plan in zip(intended, planned, strict=True)
    ]
    shown = _autocorrect(thumb, forms, wanted, rng)
    redone = _find_redone(shown, wanted, intended, rng)
    final = list(shown)
    for i in redone:
        final[i] = wanted[i]
    return Typing(
        list(messages),
        _join(first, message_of, len(messages)),
        _join(final, message_of, len(messages)),
        _write_log(
            typist, slipped, codes, owners, message_of, windows, forms, shown, wanted, redone, rng
        )
        if log
        else None,
    )


def type_corpus(
    messages: Iterable[str],
    layout: Layout,
    seed: int,
    messages_a_typist: int = 200,
    log: bool = False,
) -> Iterator[Typing]:
    """Messages typed in turn by users drawn from the population, one `Typing` for each user.

    User i and all that they do come from the random stream (seed, i). Messages are read as they are needed.

    Raises:
        ValueError: a letter that the layout cannot type; see `Layout.can_type`.
    """
    stream = iter(messages)
    for user in itertools.count():
        block = list(itertools.islice(stream, messages_a_typist))
        if not block:
            return
        rng = np.random.default_rng((seed, user))
        typist = Typist.sample(layout, rng)
        yield type_messages(typist, block, rng, log)


def _find_windows(
    slipped: Slipped,
    owners: NDArray[np.intp],
    starts: NDArray[np.intp],
    rng: np.random.Generator,
) -> dict[int, _Window]:
    """Word -> its first slip that is noticed in the word, with what was typed since."""
    keys_since = rng.geometric(1 / (1 + MEAN_KEYS_TO_NOTICE), len(slipped.slips)) - 1
    stops = slipped.slips + slipped.widths + keys_since
    noticed = rng.random(len(slipped.slips)) < NOTICED_IN_WORD
    words = owners[slipped.slips]
    noticed &= stops <= starts[words + 1]
    windows: dict[int, _Window] = {}
    for word, start, stop in zip(
        words[noticed].tolist(),
        slipped.slips[noticed].tolist(),
        stops[noticed].tolist(),
        strict=True,
    ):
        windows.setdefault(word, _Window(start, stop))
    return windows


def _repair(
    first: list[str],
    planned: list[str],
    slipped: Slipped,
    starts: NDArray[np.intp],
    windows: dict[int, _Window],
) -> list[str]:
    """First-typed words with the windows typed again."""
    forms = list(first)
    for word, window in windows.items():
        begin = int(starts[word])
        first_out, start, stop = np.searchsorted(
            slipped.owners, [begin, window.start, window.stop]
        ).tolist()
        again = planned[word][window.start - begin : window.stop - begin]
        forms[word] = first[word][: start - first_out] + again + first[word][stop - first_out :]
    return forms


def _autocorrect(
    thumb: Thumb, forms: list[str], wanted: list[str], rng: np.random.Generator
) -> list[str]:
    """Words after the keyboard's turn; it leaves alone what has no blank before or after it."""
    correct = load_autocorrect(thumb.layout).correct
    acts = (rng.random(len(forms)) < AUTOCORRECTED).tolist()
    for i, (form, want) in enumerate(zip(forms, wanted, strict=True)):
        if form != want and want.startswith(" ") and not form.startswith(" "):
            acts[max(i - 1, 0)] = acts[i] = False
    return [correct(form) if act else form for form, act in zip(forms, acts, strict=True)]


def _find_redone(
    shown: list[str], wanted: list[str], intended: list[str], rng: np.random.Generator
) -> list[int]:
    """Words that are deleted and typed again once they stand there."""
    draws = rng.random(len(shown)).tolist()
    return [
        i
        for i, draw in enumerate(draws)
        if draw < max(NOTICED_AFTER_WORD, REWRITTEN)
        and draw < (REWRITTEN if shown[i] in (wanted[i], intended[i]) else NOTICED_AFTER_WORD)
    ]


def _join(words: list[str], message_of: NDArray[np.intp], count: int) -> list[str]:
    ends = np.searchsorted(message_of, np.arange(1, count + 1)).tolist()
    return ["".join(words[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def _write_log(
    typist: Typist,
    slipped: Slipped,
    codes: NDArray[np.uint32],
    owners: NDArray[np.intp],
    message_of: NDArray[np.intp],
    windows: dict[int, _Window],
    forms: list[str],
    shown: list[str],
    wanted: list[str],
    redone: list[int],
    rng: np.random.Generator,
) -> KeystrokeLog:
    """Put first keys, deletions and second keys in order.

    Extra keystrokes of a word are placed after one of its planned characters: repairs after their
    window's last, words typed again after the word's last.
    """
    ends = np.searchsorted(owners, np.arange(len(message_of)), side="right") - 1
    extra: list[str] = []
    places: list[NDArray[np.intp]] = []
    bounds = np.searchsorted(slipped.owners, np.arange(len(codes) + 1))

    def add(word_place: int, deleted: int, again: str) -> None:
        extra.append(BACKSPACE * deleted + again)
        places.append(np.full(deleted + len(again), word_place))

    text = codes.tobytes().decode("utf-32-le", "surrogatepass")
    for window in windows.values():
        deleted = int(bounds[window.stop] - bounds[window.start])
        add(window.stop - 1, deleted, text[window.start : window.stop])
    for word in redone:
        kept = _kept(shown[word], wanted[word])
        add(int(ends[word]), len(shown[word]) - kept, wanted[word][kept:])

    extra_codes = encode(extra)[0]
    place = np.concatenate([slipped.owners, *places]).astype(np.intp)
    order = np.argsort(place, kind="stable")
    keys = np.concatenate([slipped.codes, extra_codes])
    index = typist.thumb.layout.key_indices(keys)
    touches = np.full((len(keys), 2), np.nan)
    touches[: len(slipped.codes)] = slipped.touches_mm
    again_letters = len(slipped.codes) + np.flatnonzero(index[len(slipped.codes) :] >= 0)
    touches[again_letters] = typist.thumb.touch(index[again_letters], rng)
    keys, place, touches = keys[order], place[order], touches[order]
    messages = message_of[owners[place]]
    return KeystrokeLog(
        messages,
        keys.view("<U1"),
        _draw_times(typist, index[order], messages, rng),
        touches,
        tuple(_find_replacements(forms, shown, wanted, redone, owners[place])),
    )


def _find_replacements(
    forms: list[str],
    shown: list[str],
    wanted: list[str],
    redone: list[int],
    words: NDArray[np.intp],
) -> list[Replacement]:
    """Autocorrect's changes, each after the word's own keys and before it is typed again."""
    again = set(redone)
    found = []
    for i, (form, word) in enumerate(zip(forms, shown, strict=True)):
        if form != word:
            end = int(np.searchsorted(words, i, side="right"))
            if i in again:
                end -= len(word) + len(wanted[i]) - 2 * _kept(word, wanted[i])
            blank = int(form.startswith(" "))
            found.append(Replacement(end, len(form) - blank, word[blank:]))
    return found


def _kept(word: str, wanted: str) -> int:
    """Characters that stand when a word is typed again: its blank, where there is one."""
    return int(word.startswith(" ") and wanted.startswith(" "))


def _draw_times(
    typist: Typist,
    keys: NDArray[np.int64],
    messages: NDArray[np.intp],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Milliseconds since each message's first key, from the way between letter keys."""
    layout = typist.thumb.layout
    centres = np.where(keys[:, None] >= 0, layout.centres_mm[keys], np.nan)
    ways = np.linalg.norm(np.diff(centres, axis=0, prepend=np.nan), axis=1)
    bits = np.log2(ways / layout.key_size_mm[0] + 1)
    intervals = 1 + _TIME_PER_BIT * (np.nan_to_num(bits, nan=_MEAN_BITS) - _MEAN_BITS)
    if typist.two_thumbs:
        left = centres[:, 0] < layout.centres_mm[:, 0].mean()
        intervals[1:][left[1:] != left[:-1]] *= _ALTERNATION_GAIN
    noise = rng.normal(-(_INTERVAL_NOISE**2) / 2, _INTERVAL_NOISE, len(keys))
    intervals *= typist.interval_ms * np.exp(noise)
    times = np.cumsum(intervals)
    first = np.flatnonzero(np.diff(messages, prepend=-1))
    lengths = np.diff(first, append=len(keys))
    return np.rint(times - np.repeat(times[first], lengths)).astype(np.int64)
