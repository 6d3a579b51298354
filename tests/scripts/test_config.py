"""A configuration is checked once, where it comes in, and every fault is named in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.config import PRESETS, load_config

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def write_changed(path: Path, field: str, value: Any) -> Path:
    """The test preset with one dotted field set, or left out where the value is None."""
    content = yaml.safe_load((PRESETS / "test.yaml").read_text("utf-8"))
    *parents, last = field.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    if value is None:
        del section[last]
    else:
        section[last] = value
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_the_presets_load() -> None:
    assert {"quick", "test"} <= set(NAMES)
    for name in NAMES:
        config = load_config(name)
        assert config == load_config(str(PRESETS / f"{name}.yaml"))
        assert config.federated.engine == ("local" if name == "audit" else "tff")
        assert not config.text.files and config.population.messages is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("federated.cohorts", 6, "Extra inputs"),
        ("speed", 1, "Extra inputs"),
        ("text.layuot", "qwerty", "Extra inputs"),
        ("federated", None, "required"),
        ("text.words", None, "required"),
        ("text.words", "many", "integer"),
        ("text.words", 999, "greater than or equal to 1000"),
        ("text.typing_noise", "perhaps", "boolean"),
        ("text.llm_share", 1.2, "less than or equal to 1"),
        (
            "text",
            {"words": 9000, "batch_words": 90, "register_words": 9000, "llm_share": 0.8},
            "0.3",
        ),
        ("population.train_share", 1.0, "less than 1"),
        ("population", {"train_share": 0.8, "validation_share": 0.2}, "nobody to test on"),
        ("tokenizer.kind", "bpe", "'unigram' or 'word'"),
        ("network.units", 2, "greater than or equal to 8"),
        ("pretraining.learning_rate", float("nan"), ""),
        ("federated.engine", "spark", "'tff', 'local' or 'ray'"),
        ("federated.noise_multiplier", 0, "greater than 0"),
        ("federated.noise_multiplier", float("inf"), "finite"),
        ("federated.delta", 1, "less than 1"),
        ("federated.rounds", 2.5, "integer"),
        ("seed", -1, "greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_file_and_field(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    path = write_changed(tmp_path / "mine.yaml", field, value)
    with pytest.raises(ValueError) as raised:
        load_config(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: {field}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content", [b"", b"- a list", b"text: [", b"text: \xff", b"a: *nowhere", b"[" * 5_000]
)
def test_a_file_that_holds_no_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as raised:
        load_config(str(path))
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_the_preset_of_a_shipping_keyboards_size_reads_the_full_presets_text() -> None:
    """One file says so and two hold it."""
    full, gboard = load_config("full"), load_config("gboard")
    sizes = {"tokenizer": gboard.tokenizer, "network": gboard.network}
    assert full.model_copy(update=sizes) == gboard


@pytest.mark.parametrize("name", ["nope", "", ".", "../presets", "x" * 5_000])
def test_an_unknown_preset_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        load_config(name)
