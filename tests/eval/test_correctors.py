"""Keyboards of kebbie's shape both ways: what they are told, and that a bundle answers as a fresh session would."""

import pickle
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from device_runtime.bundle import write_bundle
from device_runtime.keyboard import Keyboard
from device_runtime.layouts import load_layout
from device_runtime.lexicon import write_lexicon
from device_runtime.tokenizer import Tokenizer
from eval.correctors import CorrectorPredictor, KeyboardCorrector, find_touches
from eval.next_word import score_users
from eval.targets import EvaluationVocabulary
from tests.device_runtime.tiny_model import count_words, export_random_model, train_tokenizer

MESSAGES = ["see you tomorrow, ok? 😂", "i don't know...", "at 10:30", "you see you"]
VOCABULARY = EvaluationVocabulary(("you", "see", "don't", "know"))


class TableCorrector:
    """Answers by the last word it is told, and keeps what it was told."""

    ANSWERS: ClassVar = {
        "": ["I", "See", "At"],
        "you": ["See", "tomorrow"],
        "i": ["know", "want", "DON’T"],
    }

    def __init__(self) -> None:
        self.told: list[str] = []

    def predict_next_word(self, context: str) -> list[str]:
        self.told.append(context)
        return [*self.ANSWERS.get(context.split(" ")[-2] if context else "", []), "a", "b", "c"]


def test_another_keyboard_is_told_the_message_up_to_each_word() -> None:
    corrector = TableCorrector()
    for words, at in (
        (
            ["see", "you", "tomorrow", ",", "ok", "?", "😂"],
            [True, True, True, False, True] + [False] * 2,
        ),
        (["😂", "...", "ok"], [False, False, True]),
    ):
        CorrectorPredictor(corrector).predict_words(words, at)
    assert corrector.told == ["", "see ", "see you ", "see you tomorrow, ", "😂... "]


def test_another_keyboard_is_scored_as_ours_is() -> None:
    # By hand: "see" is second of the answers to nothing and "i" its first, "see" after "you" the first; "don't" after
    # "i" the third; "at" the third; the others are not found.
    scores = score_users(lambda: CorrectorPredictor(TableCorrector()), [MESSAGES], VOCABULARY)
    assert scores.targets.tolist() == [4 + 3 + 2 + 3]
    assert scores.top1_all.tolist() == [2]
    assert scores.top3_all.tolist() == [1 + 1 + 2 + 1 + 1]
    assert scores.top3_in.tolist() == [1 + 1 + 1]


def test_kebbies_keys_are_where_ours_are() -> None:
    # kebbie/layouts/en-US.json: keys of 32 x 72 whose rows begin at x = 0, 16 and 48.
    layout = load_layout("qwerty")
    for row, (keys, left) in enumerate((("qwertyuiop", 0), ("asdfghjkl", 16), ("zxcvbnm", 48))):
        centres = [(left + 32 * number + 16.0, 72 * row + 36.0) for number in range(len(keys))]
        ours = layout.centres_mm[[layout.key_index(key) for key in keys]]
        np.testing.assert_allclose(find_touches(centres, keys, layout), ours)
        # A third of a key to the right and up.
        moved = [(x + 32 / 3, y - 72 / 3) for x, y in centres]
        third = np.array(layout.key_size_mm) / (3, -3)
        np.testing.assert_allclose(find_touches(moved, keys, layout), ours + third)


def test_keystrokes_without_a_place_and_of_other_number() -> None:
    layout = load_layout("qwerty")
    assert find_touches([None, (16.0, 36.0)], "Iq", layout) == [None, (0.0, 0.0)]
    assert find_touches([(16.0, 36.0)], "qq", layout) is None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pieces = train_tokenizer("unigram", 90, suffix=True)
    size = Tokenizer(pieces).size
    files = {
        "model.tflite": export_random_model(size, 8, 12),
        "tokenizer.model": pieces,
        "truecase.tsv": b"tom\tTom\nmonday\tMonday\n",
        "blocklist.txt": b"dog\n",
        "lexicon.bin": write_lexicon(*count_words()),
    }
    facts = {
        "vocabulary_size": size,
        "state_shapes": {"h": [1, 8], "c": [1, 12]},
        "quantisation": "mixed",
        "training": {"arm": "random"},
        "licences": {"text": "written for this test"},
    }
    return write_bundle(tmp_path_factory.mktemp("correctors") / "bundle", files, facts)


def test_a_bundle_answers_as_a_fresh_session(bundle: Path) -> None:
    keyboard, corrector = Keyboard.open(bundle), KeyboardCorrector(bundle)
    for context in ("", "we saw the dog ", "we saw tom "):  # back and forth
        session = keyboard.session()
        session.commit(context)
        words = [word.text for word in session.suggest(count=10) if word.text not in ".,!?..."]
        assert corrector.predict_next_word(context) == words[:3]
        # The touches say "some", whatever the letters are.
        touches = [(64.0, 108.0), (272.0, 36.0), (256.0, 180.0), (80.0, 36.0)]
        in_mm = find_touches(touches, "tqpr", keyboard.layout)
        begun = [word.text for word in session.suggest("tqpr", 3, in_mm)]
        assert corrector.auto_complete(context, touches, "tqpr") == begun
        put_in = session.autocorrect("tqpr", in_mm)
        assert put_in == "some"
        corrected = corrector.auto_correct(context, touches, "tqpr")
        assert corrected[0] == put_in and set(begun) <= {*corrected, begun[-1]}
        assert len(corrected) == len(set(corrected)) == 3
        assert corrector.resolve_swipe(context, touches) == []


def test_nothing_typed_stops_it(bundle: Path) -> None:
    corrector = KeyboardCorrector(bundle)
    for typed in (" ", "see you", "?!", "😂", "▢", "x" * 300, "\n", "'"):
        assert corrector.auto_correct("i ", [None] * len(typed), typed)[0] == typed
        assert len(corrector.auto_complete(f"{typed} ", [], typed)) <= 3


def test_it_goes_to_other_processes_unopened(bundle: Path) -> None:
    corrector = KeyboardCorrector(bundle)
    answer = corrector.predict_next_word("we saw ")
    pickled = pickle.dumps(corrector)
    assert len(pickled) < 1_000
    assert pickle.loads(pickled).predict_next_word("we saw ") == answer


def test_kebbie_gets_its_own_class(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stand-in for the package, which lives in an environment of its own (test_kebbie_score.py runs there).
    package, noise_model = ModuleType("kebbie"), ModuleType("kebbie.noise_model")
    package.Corrector = type("Corrector", (), {"profiled_auto_correct": None})  # type: ignore[attr-defined]
    package.noise_model = noise_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kebbie", package)
    monkeypatch.setitem(sys.modules, "kebbie.noise_model", noise_model)
    monkeypatch.delitem(sys.modules, "eval.kebbie_score", raising=False)
    corrector = import_module("eval.kebbie_score").BundleCorrector(bundle)
    monkeypatch.delitem(sys.modules, "eval.kebbie_score")
    plain = KeyboardCorrector(bundle)
    assert isinstance(corrector, package.Corrector)
    touches = [(16.0, 36.0)]
    for task, call in (
        ("predict_next_word", ("we ",)),
        ("auto_complete", ("we ", touches, "s")),
        ("auto_correct", ("we ", touches, "s")),
        ("resolve_swipe", ("we ", touches)),
    ):
        answer = getattr(plain, task)(*call)
        assert getattr(corrector, f"profiled_{task}")(*call) == (answer, -1, -1)
