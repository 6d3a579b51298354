"""The search for the best words against scoring every word, by KenLM where it is installed, and by its definition."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest

from eval.baselines import replace_unknown
from eval.kenlm_model import KenlmModel, measure_trie_bytes
from eval.kneser_ney import estimate_kneser_ney, read_arpa, write_arpa
from eval.next_word import score_user
from eval.targets import EvaluationVocabulary
from tests.eval.slow_kenlm import make_package

WORDS = [f"w{i}" for i in range(30)]
VOCABULARY = EvaluationVocabulary(tuple([*WORDS[:24], "unread"]))
HAS_KENLM = importlib.util.find_spec("kenlm") is not None


@pytest.fixture(
    params=[
        "definition",
        pytest.param("kenlm", marks=pytest.mark.skipif(not HAS_KENLM, reason="needs setup bench")),
    ]
)
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "definition":
        monkeypatch.setitem(sys.modules, "kenlm", make_package())


def _talk(source: random.Random) -> list[str]:
    words = [WORDS[int(30 * source.random() ** 2)] for _ in range(int(9 * source.random()))]
    return [word if source.random() < 0.9 else source.choice([",", "😂", "?"]) for word in words]


def _write_model(path: Path, cutoffs: tuple[int, ...]) -> Path:
    source = random.Random(3)
    messages = [replace_unknown(_talk(source), VOCABULARY) for _ in range(150)]
    write_arpa(estimate_kneser_ney(messages, len(cutoffs), cutoffs), path)
    return path


@pytest.mark.parametrize("cutoffs", [(0, 0), (0, 0, 0), (0, 1, 1), (0, 0, 1, 2)])
def test_suggestions_are_the_best_of_the_whole_vocabulary(package, tmp_path: Path, cutoffs):
    import kenlm

    path = _write_model(tmp_path / "model.arpa", cutoffs)
    model = KenlmModel(path, VOCABULARY)
    scorer = kenlm.Model(str(path), kenlm.Config())
    source = random.Random(8)
    for _ in range(40):
        words = [*_talk(source), "unread", "🦩", *_talk(source)]
        at = [source.random() < 0.7 for _ in words]
        suggested = model.predict_words(words, at, 4)
        state, after = kenlm.State(), kenlm.State()
        scorer.BeginSentenceWrite(state)
        for word, asked, found in zip(words, at, suggested, strict=True):
            scores = {
                w: scorer.BaseScore(state, w, after) for w in VOCABULARY.words if w != "unread"
            }
            best = sorted(scores.values(), reverse=True)[: 4 * asked]
            assert [s.score for s in found] == pytest.approx(best, abs=1e-5)
            assert [scores[s.text] for s in found] == pytest.approx(best, abs=1e-5)
            scorer.BaseScore(state, *replace_unknown([word], VOCABULARY), after)
            state, after = after, state


def test_scores_are_the_tables_probabilities(package, tmp_path: Path):
    path = _write_model(tmp_path / "model.arpa", (0, 0, 0))
    listed = dict(read_arpa(path))
    model = KenlmModel(path, VOCABULARY)
    [[best, *_]] = model.predict_words(["w0"], [True])
    assert best.score == pytest.approx(listed["<s>", best.text], abs=1e-5)
    assert best.score == pytest.approx(
        max(
            p
            for (first, *rest), p in listed.items()
            if first == "<s>" and len(rest) == 1 and rest[0] in VOCABULARY
        ),
        abs=1e-5,
    )
    assert score_user(model, ["w0 w1", "unread"], VOCABULARY).targets == [3]


@pytest.mark.parametrize(
    ("counts", "word_bytes", "size"),
    [  # build_binary -a 64 -q 8 -b 8 trie of KenLM 0.3.0, on text of ours
        ((1402, 239, 57), 7552, 45_587),
        ((1402, 2900, 2782), 7552, 63_397),
        ((10_089, 217_532, 600_743, 841_389), 78_011, 6_491_503),
        ((10_089, 80_089, 115_271, 68_697), 78_011, 1_410_745),
    ],
)
def test_bytes_are_those_of_kenlms_file(counts, word_bytes, size):
    assert measure_trie_bytes(counts, word_bytes) == size


def test_a_bigger_model_takes_more_bytes_and_a_broken_file_is_named(package, tmp_path: Path):
    sizes = [
        KenlmModel(_write_model(tmp_path / "model.arpa", cutoffs), VOCABULARY).size_bytes
        for cutoffs in ((0, 1), (0, 0), (0, 0, 1), (0, 0, 0))
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    (tmp_path / "broken.arpa").write_text("none", "utf-8")
    with pytest.raises(ValueError, match=r"broken.arpa: KenLM cannot read it"):
        KenlmModel(tmp_path / "broken.arpa", VOCABULARY)


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ValueError, match=r"setup bench .* --without kenlm"):
        KenlmModel(tmp_path / "model.arpa", VOCABULARY)
