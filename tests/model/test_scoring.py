"""Scores equal the equations of the network, one message at a time, in plain numpy."""

import numpy as np
import pytest

from device_runtime.tokenizer import Tokenizer
from model.network import NetworkShape
from model.rows import encode_text
from model.scoring import score_messages
from tests.device_runtime.tiny_model import sentences, train_tokenizer
from tests.model import numpy_network


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer("unigram", 120, suffix=True))


@pytest.fixture(scope="module")
def weights(tokenizer: Tokenizer) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    shapes = NetworkShape(tokenizer.size, 6, 9).weight_shapes()
    return [random.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]


def test_scores_are_mean_log_probabilities(weights, tokenizer: Tokenizer) -> None:
    """Of short and long messages in any order, so that every row length and a part batch are used."""
    lines = sentences()
    messages = ["ok", "", lines[0], " ".join(lines[:4]), "???", *lines[5:9], " ".join(lines[:30])]
    sizes = [encode_text(tokenizer, message).shape[1] for message in messages]
    assert min(sizes) == 1 and any(16 < size <= 64 for size in sizes) and max(sizes) > 64
    scores = score_messages(weights, tokenizer, messages)
    expected = []
    for message in messages:
        row = encode_text(tokenizer, message)[:, :64]
        total, count = numpy_network.sum_losses(weights, row[np.newaxis])
        expected.append(-total / count)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_a_score_does_not_depend_on_the_other_messages(weights, tokenizer: Tokenizer) -> None:
    messages = sentences()[:200]  # more than a batch
    together = score_messages(weights, tokenizer, messages)
    assert len(set(np.round(together, 6))) > 100
    for place in (127, 128):
        alone = score_messages(weights, tokenizer, [messages[place]])
        assert alone[0] == pytest.approx(together[place], rel=1e-5)
    assert score_messages(weights, tokenizer, []).shape == (0,)
