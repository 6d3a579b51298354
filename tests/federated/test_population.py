"""The population: whoever is held out stays unread, every message is counted, no error quotes one."""

import collections
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.words import is_word
from federated.population import (
    MASK,
    MAX_MESSAGE_CHARACTERS,
    SIDES,
    Message,
    mask_pii,
    read_chat_messages,
    read_message_file,
    split_population,
)

LOST = [
    "empty",
    f"over_{MAX_MESSAGE_CHARACTERS}_characters",
    "over_cap",
    *(f"{side}_lost_to_shared_conversations" for side in SIDES),
]
FRACTIONS = (0.5, 0.2, 0.3)
SECRET = "meet me at the harbour"


def fill_sides() -> list[Message]:
    """Somebody on every side, in no conversation: a population must have that."""
    return [Message(f"filler {i}", "", "", "hello") for i in range(60)]


@st.composite
def populations(draw) -> list[Message]:
    """A few users in a few conversations, in any order, and fillers."""
    texts = st.sampled_from(
        ["hi", "see you", "", " ", "x" * (MAX_MESSAGE_CHARACTERS + 1), "a@b.com"]
    )
    messages = draw(
        st.lists(
            st.builds(
                Message,
                st.integers(0, 9).map(lambda i: f"user {i}"),
                st.integers(0, 8).map(lambda i: f"conversation {i}" if i else ""),
                st.integers(100, 999).map(str),
                texts,
            ),
            max_size=60,
        )
    )
    return fill_sides() + messages


def is_kept(text: str) -> bool:
    return bool(text.strip()) and len(text) <= MAX_MESSAGE_CHARACTERS


@given(populations(), st.integers(0, 100), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_split_equals_the_rules_applied_one_by_one(messages, rotation, cap) -> None:
    """User by user, message by message, conversation by conversation, from the rules as they are written."""
    everybody = fill_sides() + [Message(m.user, "", "", "hello") for m in messages]
    alone, _ = split_population(everybody, rotation, 10_000, FRACTIONS)
    side_of = {user: SIDES.index(side) for side, users in alone.items() for user in users}

    split, counts = split_population(messages, rotation, cap, FRACTIONS)
    reasons: collections.Counter[str] = collections.Counter()
    for user, side in side_of.items():
        expected: list[str] = []
        for message in sorted((m for m in messages if m.user == user), key=lambda m: m.timestamp):
            in_it = [
                side_of[m.user]
                for m in messages
                if message.conversation and m.conversation == message.conversation
            ]
            if any(other > side for other in in_it):
                reasons[f"{SIDES[side]}_lost_to_shared_conversations"] += 1
            elif not message.text.strip():
                reasons["empty"] += 1
            elif not is_kept(message.text):
                reasons[f"over_{MAX_MESSAGE_CHARACTERS}_characters"] += 1
            elif len(expected) == cap:
                reasons["over_cap"] += 1
            else:
                expected.append(MASK if message.text == "a@b.com" else message.text)
        assert split[SIDES[side]].get(user, []) == expected
        assert all(user not in split[other] for other in SIDES if other != SIDES[side])
    assert {name: counts.get(name, 0) for name in LOST} == {name: reasons[name] for name in LOST}


@given(populations(), st.integers(0, 100), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_every_message_is_kept_or_counted(messages, rotation, cap) -> None:
    split, counts = split_population(messages, rotation, cap, FRACTIONS)
    kept = sum(len(texts) for users in split.values() for texts in users.values())
    assert counts["messages"] == len(messages)
    assert counts["messages"] == kept + sum(counts.get(name, 0) for name in LOST)
    assert kept == sum(counts[f"{side}_messages"] for side in SIDES)
    people = sum(counts[f"{side}_users"] for side in SIDES) + counts.get("users_left_empty", 0)
    assert people == len({message.user for message in messages})
    masked = sum(
        text == MASK for users in split.values() for texts in users.values() for text in texts
    )
    assert counts["masked"] == masked


def test_the_side_of_a_user_depends_on_nobody_else() -> None:
    users = [Message(f"user {i}", "", "", "hi") for i in range(1000)]
    everybody, _ = split_population(users, rotation=5, fractions=FRACTIONS)
    some, _ = split_population(users[::-3], rotation=5, fractions=FRACTIONS)
    for side in SIDES:
        assert set(some[side]) == {m.user for m in users[::-3]} & set(everybody[side])
    shares = [len(everybody[side]) / 1000 for side in SIDES]
    assert shares == pytest.approx(FRACTIONS, abs=0.08)  # 5 sigma
    other, _ = split_population(users, rotation=6, fractions=FRACTIONS)
    assert set(other["test"]) != set(everybody["test"])


def test_rotations_test_everybody_once() -> None:
    users = [Message(f"user {i}", "", "", "hi") for i in range(1000)]
    fractions = (0.65, 0.1, 0.25)
    tested = [
        set(split_population(users, rotation, 5, fractions)[0]["test"]) for rotation in range(4)
    ]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 1000
    again, _ = split_population(users, 4, 5, fractions)
    assert set(again["test"]) == tested[0]


def test_the_earliest_messages_stay_under_the_cap() -> None:
    messages = fill_sides() + [Message("anna", "", f"2018-0{m}", f"{m}") for m in (5, 2, 9, 1)]
    split, counts = split_population(messages, rotation=0, max_messages=2, fractions=FRACTIONS)
    kept = next(users["anna"] for users in split.values() if "anna" in users)
    assert kept == ["1", "2"] and counts["over_cap"] == 2


def test_the_chat_corpus_is_split_without_a_message_missing() -> None:
    """All 258,112 messages, and 33 empty ones; no conversation has users of two sides left, checked on the raw data."""
    messages = list(read_chat_messages())
    split, counts = split_population(messages)
    assert counts["messages"] == len(messages)
    assert sum(bool(message.text) for message in messages) == 258_112
    kept = sum(counts[f"{side}_messages"] for side in SIDES)
    assert kept + sum(counts.get(name, 0) for name in LOST) == len(messages)
    assert counts["train_lost_to_shared_conversations"] > 0
    held_out = {m.conversation for m in messages if m.user in split["test"]}
    lost = sum(m.user in split["train"] and m.conversation in held_out for m in messages)
    assert 0 < lost <= counts["train_lost_to_shared_conversations"]
    assert max(len(texts) for users in split.values() for texts in users.values()) == 500


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (1.0, 0.0, 0.0), (1.2, -0.4, 0.2)])
def test_shares_must_be_shares(fractions) -> None:
    with pytest.raises(ValueError, match="give three positive shares that sum to 1"):
        split_population(fill_sides(), 0, fractions=fractions)


@pytest.mark.parametrize("messages", [[], [Message("anna", "", "", SECRET)]])
def test_a_side_without_users_is_refused(messages) -> None:
    with pytest.raises(ValueError, match="population: no user falls on side") as caught:
        split_population(messages, 0)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to anna.b+c@mail.example.org now", f"write to {MASK} now"),
        ("a@b@c.com", MASK),
        ("see https://example.com/a?b=c ok", f"see {MASK} ok"),
        ("www.example.com/x and youtu.be/abc", f"{MASK} and {MASK}"),
        ("@anna and Anna#1234", f"{MASK} and {MASK}"),
        ("call +1 (555) 123-4567 tonight", f"call {MASK} tonight"),
        ("at 10:30 on 24/12, 3.50 each, 2018", "at 10:30 on 24/12, 3.50 each, 2018"),
        ("so... me@home", "so... me@home"),
    ],
)
def test_masking(text, expected) -> None:
    assert mask_pii(text) == expected
    assert mask_pii(expected) == expected


def test_the_mask_is_no_word() -> None:
    assert not is_word(MASK)


@pytest.mark.parametrize("part", ["@", "a@", "a", "1.", "a-", "@a.", "www", "#1"])
def test_masking_the_longest_message_takes_a_moment(part) -> None:
    """Cubic time would be minutes on such input, and the tests would not end in time."""
    text = part * (MAX_MESSAGE_CHARACTERS // len(part))
    for _ in range(3):
        mask_pii(text)


# Files of a user's own


def write_lines(path: Path, *lines: bytes | str | dict) -> Path:
    encoded = [
        line
        if isinstance(line, bytes)
        else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def good(text: str = SECRET, **more: object) -> dict:
    return {"user": "anna", "text": text, **more}


def test_numeric_timestamps_order_as_numbers(tmp_path) -> None:
    times = [10, 9, 2.5, 100]
    path = write_lines(tmp_path / "messages.jsonl", *(good(timestamp=time) for time in times))
    read = [message.timestamp for message in read_message_file(path)]
    assert sorted(range(4), key=read.__getitem__) == sorted(range(4), key=times.__getitem__)


def test_jsonl_is_read_as_it_is(tmp_path) -> None:
    lines = [
        good(),
        good("", conversation="c", timestamp="t"),
        good("x" * 1_000_000, conversation=7, timestamp=1537, other=[1]),
        good("ça va? 😀 \u2028 \ud800"),
    ]
    path = write_lines(tmp_path / "messages.jsonl", *lines)
    assert list(read_message_file(path)) == [
        Message("anna", "", "", SECRET),
        Message("anna", "c", "t", ""),
        Message("anna", "7", f"{1537:030.6f}", "x" * 1_000_000),
        Message("anna", "", "", "ça va? 😀 \u2028 \ud800"),
    ]


def test_a_last_line_may_be_open_and_a_first_may_have_a_byte_order_mark(tmp_path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(good()).encode() for _ in range(2)))
    assert [message.text for message in read_message_file(path)] == [SECRET] * 2


def test_a_broken_user_name_is_a_user_all_the_same() -> None:
    messages = [*fill_sides(), Message("\ud800", "", "", "hi")]
    _, counts = split_population(messages, 0, fractions=FRACTIONS)
    assert sum(counts[f"{side}_users"] for side in SIDES) == 61


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"", "not JSON: write one object a line"),
        (b"   ", "not JSON: write one object a line"),
        (SECRET, "not JSON"),
        ('{"user": "anna", "text": "' + SECRET, "not JSON"),
        ('{"text": "' + SECRET + '", "timestamp": ' + "1" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (json.dumps([SECRET]), "no JSON object"),
        (json.dumps(SECRET), "no JSON object"),
        ({"text": SECRET}, "field `user` is missing or no text"),
        ({"user": "", "text": SECRET}, "field `user` is missing or no text"),
        ({"user": 7, "text": SECRET}, "field `user` is missing or no text"),
        ({"user": "anna"}, "field `text` is missing or no text"),
        ({"user": "anna", "text": None}, "field `text` is missing or no text"),
        ({"user": "anna", "text": [SECRET]}, "field `text` is missing or no text"),
        (json.dumps(good(SECRET + " café"), ensure_ascii=False).encode("latin-1"), "not UTF-8"),
        (json.dumps(good()).encode("utf-16"), "not UTF-8"),
        (json.dumps(good()).encode("utf-16-le"), "not JSON"),
    ],
)
def test_a_bad_line_is_named_and_never_quoted(tmp_path, line, fault) -> None:
    path = write_lines(tmp_path / "messages.jsonl", good("fine"), good("fine"), line)
    messages = read_message_file(path)
    assert [next(messages).text, next(messages).text] == ["fine", "fine"]
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: {fault}")) as caught:
        next(messages)
    assert_says_nothing(caught.value)


def assert_says_nothing(error: BaseException) -> None:
    """No part of the message in the error or in what a traceback would print of its causes."""
    shown: BaseException | None = error
    while shown is not None:
        assert "harbour" not in str(shown) and not isinstance(shown, UnicodeError)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


@pytest.mark.parametrize("name", ["messages.jsonl", "messages.parquet"])
def test_files_that_are_no_files(tmp_path, name) -> None:
    path = tmp_path / name
    with pytest.raises(ValueError, match=re.escape(str(path))):
        list(read_message_file(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        list(read_message_file(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=re.escape(str(path))):
        list(read_message_file(path))


def write_parquet(path: Path, **columns: object) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_is_read_like_jsonl(tmp_path) -> None:
    users, texts = [f"user {i % 7}" for i in range(12_345)], [f"text {i}" for i in range(12_345)]
    path = write_parquet(
        tmp_path / "messages.parquet", user=users, text=texts, timestamp=list(range(12_345))
    )
    lines = [
        {"user": user, "text": text, "timestamp": i}
        for i, (user, text) in enumerate(zip(users, texts, strict=True))
    ]
    same = write_lines(tmp_path / "messages.jsonl", *lines)
    assert list(read_message_file(path)) == list(read_message_file(same))


@pytest.mark.parametrize(
    ("columns", "row", "fault"),
    [
        ({"user": ["a", "b"], "text": ["fine", None]}, 2, "field `text` is missing or no text"),
        ({"user": ["a", ""], "text": ["fine", SECRET]}, 2, "field `user` is missing or no text"),
        ({"name": ["a"], "text": [SECRET]}, 1, "field `user` is missing or no text"),
        ({"user": ["a"], "text": [SECRET.encode()]}, 1, "field `text` is missing or no text"),
    ],
)
def test_a_bad_parquet_row_is_named(tmp_path, columns, row, fault) -> None:
    path = write_parquet(tmp_path / "messages.parquet", **columns)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{row}: {fault}")) as caught:
        list(read_message_file(path))
    assert_says_nothing(caught.value)


def test_parquet_without_rows_is_refused(tmp_path) -> None:
    path = write_parquet(tmp_path / "messages.parquet", user=[], text=[])
    with pytest.raises(ValueError, match="no messages"):
        list(read_message_file(path))


def test_parquet_in_another_encoding_is_refused(tmp_path) -> None:
    import pyarrow

    latin = (SECRET + " café").encode("latin-1")
    offsets = np.array([0, len(latin)], np.int32).tobytes()
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(latin)]
    text = pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)
    path = write_parquet(tmp_path / "messages.parquet", user=["anna"], text=text)
    with pytest.raises(ValueError, match=re.escape(f"{path}:1: no readable Parquet")) as caught:
        list(read_message_file(path))
    assert_says_nothing(caught.value)


def test_a_damaged_parquet_file_is_refused(tmp_path) -> None:
    texts = [f"{SECRET} {i}" for i in range(50_000)]
    path = write_parquet(tmp_path / "messages.parquet", user=texts, text=texts)
    content = bytearray(path.read_bytes())
    content[2_000:100_000] = bytes(98_000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}:")) as caught:
        list(read_message_file(path))
    assert_says_nothing(caught.value)
