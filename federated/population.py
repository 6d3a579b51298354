"""The private population: real or user-supplied messages, masked, capped and split by user into devices.

Messages are values that functions pass on; no object here keeps one, no error or count quotes one.
"""

import bisect
import collections
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MASK = "▢"  # a symbol, so neither a word to learn nor a target of the metric
MAX_MESSAGE_CHARACTERS = 2_000
SIDES = ("train", "validation", "test")

_PII = re.compile(
    r"[^\s@]+@\S+\.\w+"  # e-mail; a first part with @ in it would take cubic time
    r"|(?:https?://|www\.)\S+|\b[\w-]+\.(?:com|net|org|io|edu|ly|gg|be)\b\S*"  # links
    r"|(?<!\w)@\w+|\b\w+#\d{4}\b"  # handles
    r"|\+?\d[\d\s().-]{6,}\d",  # phone and card numbers
    re.IGNORECASE,
)

UserMessages = dict[str, list[str]]
Fractions = tuple[float, float, float]


class Message(NamedTuple):
    """One message as it was sent; `conversation` and `timestamp`, which sorts as text, are empty where unknown."""

    user: str
    conversation: str
    timestamp: str
    text: str


def mask_pii(text: str) -> str:
    """Text with e-mail addresses, links, handles and phone numbers replaced by MASK."""
    return _PII.sub(MASK, text)


def read_chat_messages() -> Iterator[Message]:
    """Messages of the chitchat-dataset package: 7,168 two-person conversations of 1,315 people (MIT).

    Raises:
        ValueError: the package is not installed.
    """
    package = importlib.util.find_spec("chitchat_dataset")
    if package is None or not package.submodule_search_locations:
        raise ValueError("package chitchat-dataset is missing: run ./scripts/setup")
    path = Path(package.submodule_search_locations[0], "dataset.json")
    for conversation, content in json.loads(path.read_text("utf-8")).items():
        for turn in content["messages"]:
            for message in turn:
                yield Message(
                    message["sender"], conversation, message["timestamp"], message["text"]
                )


def read_message_file(path: Path) -> Iterator[Message]:
    """Messages of a JSONL or Parquet file with `user` and `text`, and if known `timestamp`, `conversation`.

    Raises:
        ValueError: names the file, the line (or row) and the field, and never quotes the text.
    """
    number = 0
    for number, record in _read_records(path):
        for field in ("user", "text"):
            if not isinstance(record.get(field), str) or (field == "user" and not record[field]):
                raise ValueError(
                    f"{path}:{number}: field `{field}` is missing or no text: write it as a string"
                )
        conversation = record.get("conversation")
        timestamp = record.get("timestamp")
        if isinstance(timestamp, int | float):
            timestamp = f"{timestamp:030.6f}"
        yield Message(
            record["user"],
            "" if conversation is None else str(conversation),
            "" if timestamp is None else str(timestamp),
            record["text"],
        )
    if not number:
        raise ValueError(f"{path}: no messages: give at least one line with `user` and `text`")


def _read_records(path: Path) -> Iterator[tuple[int, dict]]:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        number = 0
        try:
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(10_000):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
        except (OSError, UnicodeDecodeError, pyarrow.ArrowException):
            raise ValueError(
                f"{path}:{number + 1}: no readable Parquet from here on: write it again or give JSONL"
            ) from None
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}): give an existing JSONL or Parquet file"
        ) from error
    with file:
        for number, line in enumerate(file, 1):
            # `from None`: a decoding error quotes the bytes it stumbled on, and those are somebody's message.
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise ValueError(f"{path}:{number}: not UTF-8: convert the file to UTF-8") from None
            except (ValueError, RecursionError):  # also numbers and nesting beyond Python's limits
                raise ValueError(f"{path}:{number}: not JSON: write one object a line") from None
            if not isinstance(record, dict):
                raise ValueError(
                    f'{path}:{number}: no JSON object: write {{"user": ..., "text": ...}}'
                )
            yield number, record


def place_user(user: str, rotation: int, fractions: Fractions) -> float:
    """Where in [0, 1) a user stands; the sides follow one another there. Depends on no other user."""
    digest = hashlib.blake2b(f"1:{user}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") / 2**64 + rotation * fractions[2]) % 1


def find_side(place: float, fractions: Fractions) -> int:
    """Index in SIDES of the side that a user at `place` is on."""
    return bisect.bisect_right((fractions[0], fractions[0] + fractions[1]), place)


def find_fault(text: str) -> str | None:
    """Why a message is left out whoever sent it, None if it is not."""
    if not text.strip():
        return "empty"
    return (
        f"over_{MAX_MESSAGE_CHARACTERS}_characters" if len(text) > MAX_MESSAGE_CHARACTERS else None
    )


def check_fractions(fractions: Fractions) -> None:
    """Raises ValueError unless they are three positive shares that sum to 1."""
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise ValueError(f"fractions {fractions}: give three positive shares that sum to 1")


def check_sides(users: Mapping[str, int], total: int) -> None:
    """Raises ValueError if a side has none of the `total` users."""
    for side in SIDES:
        if not users.get(side):
            raise ValueError(
                f"population: no user falls on side `{side}` of {total}: give more users"
            )


def split_population(
    messages: Iterable[Message],
    rotation: int = 0,
    max_messages: int = 500,
    fractions: Fractions = (0.7, 0.1, 0.2),
) -> tuple[dict[str, UserMessages], dict[str, int]]:
    """Messages by side and user, masked and capped, with the counts of everything left out.

    A user's side follows from a hash of the user, so it does not change when other users come or go. Both sides of
    a conversation quote each other: where its users fall on different sides, the side further from the test loses it.

    Args:
        messages: in any order.
        rotation: which users are tested. Each step moves the test on by its share of the users, so that rotations 0
            to 1 / share - 1 test everybody once.
        max_messages: cap of messages a user, the earliest kept.
        fractions: shares of users in train, validation and test; they sum to 1.

    Returns:
        {side: {user: [text, ...]}} with users in hashed order, and {reason: messages}.

    Raises:
        ValueError: fractions do not sum to 1, or a side has no user left.
    """
    check_fractions(fractions)
    counts: collections.Counter[str] = collections.Counter()
    by_user: dict[str, list[Message]] = collections.defaultdict(list)
    conversation_side: dict[str, int] = {}
    places: dict[str, float] = {}
    for message in messages:
        counts["messages"] += 1
        user = message.user
        if user not in places:
            places[user] = place_user(user, rotation, fractions)
        by_user[user].append(message)
        if message.conversation:
            side = find_side(places[user], fractions)
            conversation_side[message.conversation] = max(
                side, conversation_side.get(message.conversation, 0)
            )
    split: dict[str, UserMessages] = {side: {} for side in SIDES}
    for user in sorted(by_user, key=places.__getitem__):
        side = find_side(places[user], fractions)
        kept: list[str] = []
        for message in sorted(by_user[user], key=lambda m: m.timestamp):
            if message.conversation and conversation_side[message.conversation] != side:
                counts[f"{SIDES[side]}_lost_to_shared_conversations"] += 1
            elif fault := find_fault(message.text):
                counts[fault] += 1
            elif len(kept) == max_messages:
                counts["over_cap"] += 1
            else:
                masked = mask_pii(message.text)
                counts["masked"] += masked != message.text
                kept.append(masked)
        if kept:
            split[SIDES[side]][user] = kept
        else:
            counts["users_left_empty"] += 1
    check_sides({side: len(users) for side, users in split.items()}, len(by_user))
    for side_name, users in split.items():
        counts[f"{side_name}_users"] = len(users)
        counts[f"{side_name}_messages"] = sum(map(len, users.values()))
    return split, dict(counts)
