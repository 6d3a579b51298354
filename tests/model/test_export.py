"""The TFLite file is the float network: exactly where it is not quantised, closely where it is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_runtime.bundle import write_bundle
from device_runtime.decoder import Decoder, Interpreter
from device_runtime.keyboard import Keyboard
from device_runtime.lexicon import write_lexicon
from device_runtime.tokenizer import BOS, EOS, Tokenizer
from eval.parity import FloatDecoder, measure_parity
from model.config import PretrainingConfig
from model.export import export_tflite
from model.network import NetworkShape, initial_weights
from model.pretraining import pretrain
from model.quantisation import TwoPartMatrix, split_matrix, split_weights
from model.rows import encode_text, pack_rows
from tests.device_runtime.tiny_model import sentences, train_tokenizer
from tests.model import numpy_network

STREAM = [BOS, 7, 30, 30, 4, 11, EOS, 5, 5, 22, 3, 18]


def worst_error(weights: list[np.ndarray], model: bytes) -> float:
    """Largest difference of logits from the equations along STREAM, with the state carried on."""
    run_step = Interpreter(model_content=model).get_signature_runner("step")
    h, c = np.zeros(weights[0].shape[1]), np.zeros(weights[3].shape[0])
    state = {"h": h[None].astype(np.float32), "c": c[None].astype(np.float32)}
    worst = 0.0
    for token in STREAM:
        out = run_step(token=np.array([token], np.int32), **state)
        state = {"h": out["h"], "c": out["c"]}
        exact, h, c = numpy_network.run_step(weights, token, h, c)
        worst = max(worst, float(np.abs(out["logits"][0] - exact).max()))
    return worst


def rounded(weights: list[np.ndarray]) -> list[np.ndarray]:
    """The float weights that the file's integers and scales stand for."""
    embedding, kernel, projection = map(whole_matrix, split_weights(weights))
    return [embedding, kernel.T, weights[2], projection.T, weights[4]]


def whole_matrix(parts: TwoPartMatrix) -> np.ndarray:
    matrix = parts.coarse * parts.coarse_scale[:, None]
    matrix[: len(parts.fine)] += parts.fine * parts.fine_scale[:, None]
    return matrix


def test_parts_are_whole_127ths_and_lose_little() -> None:
    """A row loses at most 1 / 254 of its largest value, and 1 / 254 of that where it has a second part."""
    matrix = np.random.default_rng(5).normal(size=(30, 12)).astype(np.float32)
    matrix[3] = 0
    parts = split_matrix(matrix, fine_rows=10)
    for values in (parts.coarse, parts.fine):
        assert (
            np.abs(values * 127 - np.rint(values * 127)).max() < 1e-4 and np.abs(values).max() <= 1
        )
    lost = np.abs(whole_matrix(parts) - matrix).max(axis=1)
    largest = np.abs(matrix).max(axis=1)
    assert (lost[10:] <= largest[10:] / 253).all() and (lost[:10] <= largest[:10] / 60_000).all()
    assert lost[10:].min() > lost[:10].max()


@pytest.mark.parametrize("shape", [NetworkShape(40, 8, 10), NetworkShape(200, 16, 64)])
def test_the_file_is_close_to_the_network(shape) -> None:
    """To its own rounded weights, and through them to the float ones, whose logits spread by about 1.

    Inputs of a product go in twice, first to 1 / 255 of their range and then what is lost: 1 / 65,025 each. At most 64
    of them below 1 in size give 1e-3 a product, and there are three in a row. Weights are rounded to 1 / 254 of their
    range: a logit sums 16 products of |h| < 1 and |e| < 1, so 0.06 is the worst of the last product alone.
    """
    weights = initial_weights(shape, seed=1)
    model = export_tflite(weights)
    assert worst_error(rounded(weights), model) < 3e-3
    assert 1e-4 < worst_error(weights, model) < 0.06


def test_matrices_take_a_byte_a_value() -> None:
    weights = initial_weights(NetworkShape(vocabulary=2000, embedding=64, units=128), seed=1)
    parts = split_weights(weights)
    values = sum(part.coarse.size + part.fine.size for part in parts)
    floats = sum(part.coarse_scale.size + part.fine_scale.size for part in parts)
    floats += weights[2].size + weights[4].size
    assert 0 < len(export_tflite(weights)) - values - 4 * floats < 40_000  # the graph itself


def test_signature() -> None:
    model = export_tflite(initial_weights(NetworkShape(40, 8, 10), seed=1))
    interpreter = Interpreter(model_content=model)
    assert interpreter.get_signature_list() == {
        "step": {"inputs": ["c", "h", "token"], "outputs": ["c", "h", "logits"]}
    }
    runner = interpreter.get_signature_runner("step")
    details = {
        side: {n: (d["shape"].tolist(), d["dtype"]) for n, d in tensors.items()}
        for side, tensors in (
            ("in", runner.get_input_details()),
            ("out", runner.get_output_details()),
        )
    }
    state = {"h": ([1, 8], np.float32), "c": ([1, 10], np.float32)}
    assert details == {
        "in": {"token": ([1], np.int32)} | state,
        "out": {"logits": ([1, 40], np.float32)} | state,
    }
    assert Decoder(model).state_shapes == {"h": (1, 8), "c": (1, 10)}


@pytest.fixture(scope="module")
def tokenizer_model() -> bytes:
    return train_tokenizer("unigram", 90, suffix=True)


@pytest.fixture(scope="module")
def rows(tokenizer_model) -> np.ndarray:
    tokenizer = Tokenizer(tokenizer_model)
    return pack_rows((encode_text(tokenizer, text) for text in sentences()), 24)


@pytest.fixture(scope="module")
def trained(tokenizer_model, rows, tmp_path_factory) -> list[np.ndarray]:
    """Weights that know our few hundred sentences a little."""

    def batches(first: int) -> Iterator[np.ndarray]:
        while True:
            yield np.random.default_rng(first).permutation(rows)[:16]
            first += 1

    return pretrain(
        batches,
        NetworkShape(Tokenizer(tokenizer_model).size, 16, 32),
        80,
        PretrainingConfig(learning_rate=0.02, warmup_steps=10),
        seed=4,
        checkpoint=tmp_path_factory.mktemp("pretraining") / "checkpoint.npz",
        after_step=lambda _step, _loss: None,
    )


@pytest.fixture(scope="module")
def keyboard(trained, rows, tokenizer_model, tmp_path_factory) -> Keyboard:
    folder: Path = write_bundle(
        tmp_path_factory.mktemp("bundles") / "bundle",
        {
            "model.tflite": export_tflite(trained),
            "tokenizer.model": tokenizer_model,
            "truecase.tsv": b"",
            "blocklist.txt": b"",
            "lexicon.bin": write_lexicon({}, {}),
        },
        {
            "vocabulary_size": trained[0].shape[0],
            "state_shapes": {"h": [1, 16], "c": [1, 32]},
            "quantisation": "dynamic-range",
            "training": {"preset": "test", "arm": "test"},
            "licences": {"text": "written for this test"},
        },
    )
    return Keyboard.open(folder)


def test_float_decoder_equals_the_equations(trained) -> None:
    decoder = FloatDecoder(trained)
    assert decoder.vocabulary_size == trained[0].shape[0]
    state = decoder.start(BOS)
    logits, h, c = numpy_network.run_step(trained, BOS, np.zeros(16), np.zeros(32))
    for token in [5, 40, 12, EOS]:
        state = decoder.step(token, state)
        logits, h, c = numpy_network.run_step(trained, token, h, c)
        np.testing.assert_allclose(state.h[0], h, atol=1e-5)
        np.testing.assert_allclose(state.c[0], c, atol=1e-5)
        log_probs = logits - np.log(np.exp(logits).sum())
        np.testing.assert_allclose(state.log_probs, log_probs, atol=1e-4)


def test_trained_model_and_its_file_agree(trained, keyboard) -> None:
    """Nine in ten, since our sentences choose evenly among nine words, which makes near-ties everywhere.

    The acceptance asks the real model for 99 % of its top-3 at 2,000 positions.
    """
    parity = measure_parity(trained, keyboard, sentences(), 150)
    assert parity.positions == 150
    assert 0.85 <= parity.top1_agreement <= 1
    assert 0.9 <= parity.top3_agreement <= 1


def test_another_model_does_not_agree(trained, keyboard) -> None:
    others = initial_weights(NetworkShape(trained[0].shape[0], 16, 32), seed=9)
    assert measure_parity(others, keyboard, sentences(), 20).top3_agreement < 0.5


def test_parity_counts_targets_and_needs_one(trained, keyboard) -> None:
    assert measure_parity(trained, keyboard, ["!", "saw tom ...", "lol 😂"], 99).positions == 3
    with pytest.raises(ValueError, match="parity: the messages hold no word to predict"):
        measure_parity(trained, keyboard, ["!", "😂"], 5)
