import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import personal
from device_runtime.keyboard import Keyboard
from device_runtime.learnable import learnable_forms
from device_runtime.personal import LEARNT_AFTER, PersonalError, PersonalHistory, Sight
from device_runtime.session import Session
from device_runtime.words import normalize, split_words

NAME = "siobhan"  # no word of the lexicon, nor one piece


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "personal.tsv"


def write_messages(session: Session, *messages: str) -> None:
    for message in messages:
        for word in message.split():
            session.commit(word)
        session.reset()


def texts(session: Session, prefix: str = "", count: int = 3) -> list[str]:
    return [s.text for s in session.suggest(prefix, count)]


def share(history: PersonalHistory, word: str, previous: str | None) -> float:
    return history.shares([word], previous)[word]


def test_a_word_is_learnt_after_repeated_sight_and_then_suggested(
    keyboard: Keyboard, path: Path
) -> None:
    for sights in range(1, LEARNT_AFTER + 1):
        history = PersonalHistory(path)  # each time as after a new start
        session = keyboard.session(history)
        assert NAME.title() not in texts(session, "siob", 20)
        assert session.autocorrect(f"{NAME[:-1]}m") != NAME.title()
        write_messages(session, "we saw Siobhan")
        assert history.is_learnt(NAME) == (sights == LEARNT_AFTER)
    session.commit("we saw")
    assert NAME.title() in texts(session, count=15)  # after a word it often follows
    assert texts(session, "siob")[0] == NAME.title()
    assert NAME.title() in texts(session, "sibh")  # mistyped
    assert session.autocorrect(NAME) == NAME
    assert session.autocorrect("siobhsn") == NAME.title()
    assert texts(keyboard.session(), "siob", 20).count(NAME.title()) == 0


def test_a_learnt_word_is_never_corrected_away(keyboard: Keyboard) -> None:
    history = PersonalHistory()
    session = keyboard.session(history)
    typo = "tomprrow"
    assert session.autocorrect(typo) == "tomorrow"
    write_messages(session, *[f"the {typo} cafe"] * LEARNT_AFTER)
    assert session.autocorrect(typo) == typo and session.autocorrect(typo.title()) == typo.title()


def test_private_sessions_teach_nothing(keyboard: Keyboard, path: Path) -> None:
    history = PersonalHistory(path)
    write_messages(keyboard.session(history, private=True), *["we saw Siobhan"] * 9)
    assert not path.exists() and history.learnt_words() == []


def test_what_was_deleted_or_corrected_is_not_learnt(keyboard: Keyboard) -> None:
    history = PersonalHistory()
    session = keyboard.session(history)
    for _ in range(LEARNT_AFTER):
        session.commit("we")
        session.commit("swa")
        session.set_context("we")
        session.commit("saw nobody tho")
        session.set_context("we saw nobody")
        session.commit("again")
        session.reset()
    assert sorted(history.learnt_words()) == ["again", "nobody", "saw", "we"]


def test_text_that_was_there_already_is_not_learnt(keyboard: Keyboard) -> None:
    history = PersonalHistory()
    session = keyboard.session(history)
    for _ in range(LEARNT_AFTER):
        session.set_context("dear siobhan")
        session.commit("hello")
        session.reset()
    assert history.learnt_words() == ["hello"]


def test_an_endless_message_is_learnt_as_well(keyboard: Keyboard, path: Path) -> None:
    session = keyboard.session(PersonalHistory(path))
    for _ in range(200):
        session.commit("we saw Siobhan again")
    assert PersonalHistory(path).is_learnt(NAME)
    assert session._sights is not None and len(session._sights._sights) < 400


@pytest.mark.parametrize(
    "text",
    [
        "10:30", "2nd", "4711", "x2y", "me@home.org", "@siobhan", "www.home.org", "http://home.org/a",
        "and/or", "hunter2", "P@ssword", "correct_horse", "qWeRtY", "aBcDeF", "xkcdqwrt", "a" * 25,
        "...", "😂", "😂siobhan😂x", "dog", "DOG!", "Forgot", "t0m",
    ],
)  # fmt: skip
def test_what_may_not_be_learnt(keyboard: Keyboard, text: str) -> None:
    history = PersonalHistory()
    write_messages(keyboard.session(history), *[f"saw {text} again"] * LEARNT_AFTER)
    assert sorted(history.learnt_words()) == ["again", "saw"]
    assert text.lower() not in history.export().lower().replace("again", "")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Siobhan", "Siobhan"), ("(Siobhan)!", "Siobhan"), ("don’t", "don't"), ("o'clock.", "o'clock"),
        ("McDonald", "McDonald"), ("iPhone", "iPhone"), ("NASA", "NASA"), ("cafe\u0301", "café"),
        ("Şule", "Şule"), ("привет", "привет"),
    ],
)  # fmt: skip
def test_forms_that_may_be_learnt(text: str, form: str) -> None:
    assert [f for _, f in learnable_forms(text, ()) if f] == [form]


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
def test_forms_go_with_the_words_of_any_text(text: str) -> None:
    forms = learnable_forms(text, ())
    assert [word for word, _ in forms] == split_words(text)
    assert all(form is None or normalize(form) == word for word, form in forms)


def test_words_are_written_as_the_user_does(keyboard: Keyboard) -> None:
    session = keyboard.session(PersonalHistory())
    write_messages(session, *["we saw Siobhan on monday", "Siobhan saw it", "Nobody saw it"] * 3)
    session.commit("we saw")
    assert texts(session, "siob")[0] == "Siobhan"
    assert "monday" in texts(session, "monda")  # unlike the bundle
    assert "nobody" in texts(session, "nobod")  # a sentence's capital says nothing
    session.reset()
    assert "Nobody" in texts(session, "nobod")


def test_forgetting_leaves_no_trace(keyboard: Keyboard, path: Path, tmp_path: Path) -> None:
    history = PersonalHistory(path)
    session = keyboard.session(history)
    write_messages(session, *["we saw Siobhan again"] * 5)
    session.commit("we saw Siobhan")  # of a message that is not finished
    other = keyboard.session(history)
    history.forget("SIOBHAN")
    session.commit("again")
    session.reset()
    for place in (path.read_text("utf-8"), history.export(), repr(vars(history))):
        assert not re.search(NAME, place, re.IGNORECASE)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert not history.is_learnt(NAME) and history.is_learnt("again")
    for asked in (session, other, keyboard.session(PersonalHistory(path))):
        asked.set_context("we saw")
        assert "Siobhan" not in texts(asked, count=30) + texts(asked, "siob", 30)
    assert share(history, "again", "saw") > 0

    history.forget_all()
    assert list(tmp_path.iterdir()) == [] and history.learnt_words() == []
    assert history.export().count("\n") == 1


def test_another_process_does_not_bring_back_what_was_forgotten(path: Path) -> None:
    one = PersonalHistory(path)
    one.learn([Sight(1, NAME, NAME, None)] * 3)
    other = PersonalHistory(path)
    one.forget(NAME)
    other.learn([Sight(1, "taxi", "taxi", None)] * 3)
    assert one.begin_message() is not None  # it looks what is there
    assert one.learnt_words() == other.learnt_words() == ["taxi"]
    assert NAME not in path.read_text("utf-8")


def test_the_file_is_readable_private_whole_and_what_is_exported(path: Path) -> None:
    history = PersonalHistory(path)
    history.learn([Sight(1, "saw", "saw", None), Sight(2, "tom", "Tom", "saw")] * 2)
    assert (
        path.read_text("utf-8")
        == history.export()
        == ("# keyfed personal words 1\nsaw\t2\nTom\t2\nsaw tom\t2\n")
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert PersonalHistory(path).export() == history.export()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text("of a crash")
    PersonalHistory(path)
    assert not unfinished.exists()


def test_a_file_that_cannot_be_written_keeps_nobody_from_typing(
    keyboard: Keyboard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocking = tmp_path / "file"
    blocking.write_text("")
    history = PersonalHistory(blocking / "personal.tsv")
    write_messages(keyboard.session(history), *["we saw Siobhan"] * 3)
    assert history.is_learnt(NAME)
    assert "cannot be written" in caplog.text and NAME not in caplog.text.lower()
    with pytest.raises(OSError):
        history.forget(NAME)
    assert not history.is_learnt(NAME)


def test_a_file_broken_meanwhile_is_left_as_it_is_and_keeps_nobody_from_typing(
    keyboard: Keyboard, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = PersonalHistory(path)
    session = keyboard.session(history)
    write_messages(session, "we saw Siobhan")
    path.write_text("# keyfed personal words 1\nbroken\n")
    write_messages(session, *["we saw Siobhan"] * 2)
    assert history.is_learnt(NAME) and path.read_text().endswith("broken\n")
    assert "personal.tsv: line 2: write" in caplog.text
    with pytest.raises(PersonalError, match="line 2"):
        history.forget(NAME)


HEADER = "# keyfed personal words 1\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1), (b"tom\t3\n", 1), (b"# keyfed personal words 2\n", 1),
        (HEADER + "tom 3\n", 2), (HEADER + "tom\t3\n\nsaw\t0\n", 4), (HEADER + "tom\t-3\n", 2),
        (HEADER + "tom\t3.5\n", 2), (HEADER + "tom\t" + "9" * 5000, 2), (HEADER + "...\t3\n", 2),
        (HEADER + "a b c\t3\n", 2), (HEADER + "tom\t3\tx\n", 2), (HEADER + "a  b\t3\n", 2),
        (HEADER.encode() + b"tom\t3\n\xff\t3\n", 3),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named_with_its_line(
    path: Path, content: str | bytes, line: int
) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PersonalError, match=rf"^personal\.tsv: line {line}: ") as caught:
        PersonalHistory(path)
    assert "tom" not in str(caught.value) and "\n" not in str(caught.value)
    assert path.exists()


def test_another_programs_file_is_left_as_it_is(path: Path) -> None:
    path.write_text("shared notes\n", "utf-8")
    path.chmod(0o644)
    with pytest.raises(PersonalError, match="line 1"):
        PersonalHistory(path)
    assert (stat.S_IMODE(path.stat().st_mode), path.read_text("utf-8")) == (0o644, "shared notes\n")


def test_a_file_may_be_edited_by_hand(path: Path) -> None:
    path.write_text(HEADER + "Tom\t2\r\ntom\t1\n\nsaw tom\t7\nsaw\t9", "utf-8")
    history = PersonalHistory(path)
    assert sorted(history.learnt_words()) == ["saw", "tom"] and history.form("tom") == "Tom"
    assert share(history, "tom", "saw") > share(history, "tom", None) > 0


def test_a_blocked_word_written_into_the_file_is_not_suggested(
    keyboard: Keyboard, path: Path
) -> None:
    path.write_text(HEADER + "dog\t90\nsaw\t90\nsaw dog\t80\n", "utf-8")
    session = keyboard.session(PersonalHistory(path))
    session.commit("we saw")
    for prefix in ("", "d", "do", "dog", "dgo"):
        assert "dog" not in texts(session, prefix, 50)
    assert session.autocorrect("dgo") != "dog"


def test_a_huge_file_is_refused(path: Path) -> None:
    path.write_bytes(b" " * (2**22))
    with pytest.raises(PersonalError, match="larger than"):
        PersonalHistory(path)


def letters(number: int) -> str:
    return "".join("aeioubdkmt"[int(digit)] for digit in str(number))


def test_size_is_bounded_and_what_was_seen_longest_ago_goes_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal, "WORDS", 50)
    monkeypatch.setattr(personal, "PAIRS", 30)
    history = PersonalHistory(path)
    for number in range(300):
        word, before = letters(number), letters(number - 1) if number else None
        history.learn([Sight(1, "often", "often", None), Sight(2, word, word, before)] * 2)
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == 1 + 50 + 30 and "often\t600" in lines
    assert f"{letters(299)}\t2" in lines and f"{letters(249)}\t2" not in lines
    assert lines[-1] == f"{letters(298)} {letters(299)}\t2"
    assert history.learnt_words() == ["often"] == PersonalHistory(path).learnt_words()
    assert share(history, "often", None) == pytest.approx(600 / (600 + personal._UNSEEN_WORDS))


def test_the_largest_history_is_a_file_that_is_still_read(path: Path) -> None:
    history = PersonalHistory(path)
    lower = [chr(0x10428 + n) for n in range(40)]  # letters with capitals, of four bytes each
    words = [
        lower[0] * 21 + lower[n // 1600] + lower[n // 40 % 40] + lower[n % 40]
        for n in range(personal.WORDS)
    ]
    counts = history._counts
    for word in words:
        for form in (word, word.upper(), word[0].upper() + word[1:], word.upper()):
            counts.see(word, form, 999_999_999)
    pairs = [(words[n % len(words)], words[n // 2], 10**9) for n in range(personal.PAIRS)]
    counts.load_pairs(pairs)
    history._write()
    assert path.stat().st_size == personal._MOST_BYTES
    assert PersonalHistory(path).export() == history.export()


SIGHTS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.none() | st.sampled_from("abcde")), max_size=60
)


@settings(max_examples=100, deadline=None)
@given(first=SIGHTS, forgotten=st.sampled_from("abcde"), second=SIGHTS)
def test_shares_are_those_of_what_was_seen(
    first: list[tuple[str, str | None]], forgotten: str, second: list[tuple[str, str | None]]
) -> None:
    history = PersonalHistory()
    history.learn([Sight(0, word, word, before) for word, before in first])
    history.forget(forgotten)
    history.learn([Sight(0, word, word, before) for word, before in second])

    # A pair is one of words that were seen by then, and not forgotten since.
    known, kept = set[str](), list[tuple[str, str | None]]()
    for sights in (first, second):
        known.discard(forgotten)
        kept = [(w, None if b == forgotten else b) for w, b in kept if w != forgotten]
        for word, before in sights:
            known.add(word)
            kept.append((word, before if before in known else None))
    for word in "abcde":
        for previous in (None, *"abcde"):
            count = {w: sum(k == w for k, _ in kept) for w in "abcde"}
            learnt = {w: n for w, n in count.items() if n >= LEARNT_AFTER}
            pairs = sum(pair == (word, previous) for pair in kept)
            alone = learnt.get(word, 0) / (sum(learnt.values()) + personal._UNSEEN_WORDS)
            weight = personal._UNSEEN_FOLLOWERS
            pair = pairs if previous and pairs >= 2 else 0
            expected = (pair + weight * alone) / (learnt.get(previous or "", 0) + weight)
            got = share(history, word, previous)
            assert got == pytest.approx(expected if word in learnt else 0)
            assert 0 <= got < 1 or count.get(previous or "", 0) < pairs


def test_reading_back_gives_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("personal") / "personal.tsv"

    @settings(max_examples=50, deadline=None)
    @given(sights=SIGHTS)
    def check(sights: list[tuple[str, str | None]]) -> None:
        history = PersonalHistory(path)
        history.learn([Sight(0, word, word.upper(), before) for word, before in sights])
        again = PersonalHistory(path)
        assert again.export() == history.export()
        for word in "abcde":
            assert again._followers(word) == history._followers(word)

    check()


def test_many_threads_learn_and_forget(keyboard: Keyboard, path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    history = PersonalHistory(path)
    work: list[Callable[[], None]] = []
    for number in range(8):
        session = keyboard.session(history)
        messages = ["we saw Siobhan again", f"tom found {letters(number + 10)}"] * 5
        work.append(lambda s=session, m=messages: write_messages(s, *m))  # type: ignore[misc]
    work += [lambda: history.forget(NAME)] * 4
    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(job) for job in work]:
            done.result()
    history.forget(NAME)
    assert NAME not in path.read_text("utf-8").lower()
    assert f"we\t{8 * 5}\n" in path.read_text("utf-8")
