"""Planted sentences: where they go, how likely they are by single steps, and what a trained model betrays."""

import math

import numpy as np
import pytest
import tensorflow as tf

from device_runtime.tokenizer import BOS, EOS, Tokenizer
from federated.exposure import (
    Planting,
    generate_sentences,
    log_perplexities,
    measure_exposures,
    plant_sentences,
)
from federated.local_training import LocalTraining, train_shard
from federated.store import DeviceStore
from model.network import NetworkShape, initial_weights, step
from model.rows import encode_text, pack_rows
from tests.device_runtime.tiny_model import train_tokenizer

WORDS = [
    "red",
    "blue",
    "green",
    "tree",
    "house",
    "road",
    "river",
    "stone",
    "bird",
    "fish",
    "sun",
    "moon",
    "rain",
]
PLANTINGS = (Planting(1, 3), Planting(4, 1))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer("unigram", 120, suffix=True))


@pytest.fixture(scope="module")
def weights(tokenizer):
    return initial_weights(NetworkShape(tokenizer.size, 12, 16), seed=2)


def test_sentences_are_all_different_words_of_the_list() -> None:
    planted, references = generate_sentences(WORDS, PLANTINGS, 5, 50, seed=4)
    texts = [*references, *(text for own in planted.values() for text in own)]
    assert list(planted) == list(PLANTINGS) and all(len(own) == 5 for own in planted.values())
    assert len(references) == 50 and len(set(texts)) == 60
    assert all(len(text.split()) == 5 and set(text.split()) <= set(WORDS) for text in texts)
    assert generate_sentences(WORDS, PLANTINGS, 5, 50, seed=4) == (planted, references)
    assert generate_sentences(WORDS, PLANTINGS, 5, 50, seed=5)[1] != references


def test_each_sentence_goes_to_its_own_devices_before_their_messages() -> None:
    devices = [[f"own {i}"] for i in range(40)]
    planted, _ = generate_sentences(WORDS, PLANTINGS, 5, 50, seed=4)
    messages = plant_sentences(devices, planted, seed=1)
    assert [device[-1] for device in messages] == [device[0] for device in devices]
    for planting, texts in planted.items():
        for text in texts:
            holders = [device for device in messages if text in device]
            assert len(holders) == planting.users
            assert all(device[:-1] == [text] * planting.repetitions for device in holders)
    assert sum(len(device) > 1 for device in messages) == 5 * (1 + 4)
    assert devices == [[f"own {i}"] for i in range(40)]


def test_log_perplexity_by_single_steps(tokenizer, weights) -> None:
    """The network fed piece by piece as on a device, its log-softmax summed in bits."""
    sentences = ["red house road", "wind", "moon tree fish bird sun"]
    expected = []
    for sentence in sentences:
        h, c, bits = tf.zeros([1, 12]), tf.zeros([1, 16]), 0.0
        pieces = encode_text(tokenizer, sentence)[1]
        for read, said in zip([BOS, *pieces[:-1]], pieces, strict=True):
            logits, h, c = step(weights, tf.constant([read]), h, c)
            bits -= float(tf.nn.log_softmax(logits)[0, said]) / math.log(2)
        assert pieces[-1] == EOS
        expected.append(bits)
    np.testing.assert_allclose(log_perplexities(weights, tokenizer, sentences), expected, rtol=1e-4)


def test_exposure_is_the_rank_among_the_references(tokenizer, weights) -> None:
    planted, references = generate_sentences(WORDS, PLANTINGS, 5, 64, seed=4)
    exposures = measure_exposures(weights, tokenizer, planted, references)
    surprise = log_perplexities(weights, tokenizer, references)
    for planting, texts in planted.items():
        own = log_perplexities(weights, tokenizer, texts)
        ranks = [1 + int(np.sum(surprise <= value)) for value in own]
        np.testing.assert_allclose(exposures[planting], sorted(6 - np.log2(ranks)), atol=1e-9)


def test_what_a_device_repeats_is_exposed_in_full(tokenizer, weights) -> None:
    """A model trained on one device's sentence finds it likelier than all references, and others' no likelier."""
    planted, references = generate_sentences(WORDS, PLANTINGS, 4, 128, seed=4)
    secret = planted[PLANTINGS[0]][0]
    rows = pack_rows([encode_text(tokenizer, secret)] * 400, 40)
    batches, steps = DeviceStore.build([rows]).shard([0], batch_rows=4, max_batches=100)
    updates, _ = train_shard(weights, batches, steps, LocalTraining(0.5, 1e9))
    trained = [w + u.numpy() for w, u in zip(weights, updates, strict=True)]
    known = measure_exposures(trained, tokenizer, {PLANTINGS[0]: [secret]}, references)
    others = measure_exposures(
        trained, tokenizer, {PLANTINGS[1]: planted[PLANTINGS[1]]}, references
    )
    assert known[PLANTINGS[0]] == pytest.approx([7.0])
    assert np.median(others[PLANTINGS[1]]) < 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Planting(0, 1), "users is 0"),
        (lambda: Planting(1, 0), "repetitions is 0"),
        (lambda: generate_sentences(WORDS[:2], PLANTINGS, 5, 50, 1), "2 words are too few for 60"),
        (
            lambda: plant_sentences([["a"]] * 3, {Planting(2, 1): ["b", "c"]}, 1),
            "4 devices are needed to plant on, and there are 3",
        ),
    ],
)
def test_what_cannot_be_planted_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
