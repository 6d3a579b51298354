"""A real keyboard bundle, tiny and untrained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_runtime.bundle import write_bundle
from device_runtime.decoder import Decoder
from device_runtime.keyboard import Keyboard
from device_runtime.lexicon import write_lexicon
from device_runtime.tokenizer import Tokenizer
from tests.device_runtime.tiny_model import count_words, export_random_model, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    return train_tokenizer("unigram", 90, suffix=True)


@pytest.fixture(scope="session")
def tokenizer(tokenizer_model: bytes) -> Tokenizer:
    return Tokenizer(tokenizer_model)


@pytest.fixture(scope="session")
def word_tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer("word", 60, suffix=False))


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> bytes:
    return export_random_model(tokenizer.size, 8, 12)


@pytest.fixture(scope="session")
def decoder(model: bytes) -> Decoder:
    return Decoder(model)


@pytest.fixture(scope="session")
def bundle_parts(
    model: bytes, tokenizer: Tokenizer, tokenizer_model: bytes
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files and facts of a sound bundle."""
    files = {
        "model.tflite": model,
        "tokenizer.model": tokenizer_model,
        "truecase.tsv": b"tom\tTom\nmonday\tMonday\n",
        "blocklist.txt": b"dog\n\nforgot\n",
        "lexicon.bin": write_lexicon(*count_words()),
    }
    facts = {
        "vocabulary_size": tokenizer.size,
        "state_shapes": {"h": [1, 8], "c": [1, 12]},
        "quantisation": "dynamic-range",
        "training": {"preset": "test", "arm": "random"},
        "licences": {"text": "written for this test"},
    }
    return files, facts


@pytest.fixture(scope="session")
def bundle_path(
    bundle_parts: tuple[dict[str, bytes], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", *bundle_parts)


@pytest.fixture(scope="session")
def keyboard(bundle_path: Path) -> Keyboard:
    return Keyboard.open(bundle_path)


@pytest.fixture
def altered_bundle(
    bundle_parts: tuple[dict[str, bytes], dict[str, Any]], tmp_path: Path
) -> Callable[..., Path]:
    """Writes a sound bundle with some files replaced, checksums matching."""
    files, facts = bundle_parts

    def write(**replaced: bytes) -> Path:
        by_name = {name.replace("__", "."): content for name, content in replaced.items()}
        return write_bundle(tmp_path / "altered", {**files, **by_name}, facts)

    return write
