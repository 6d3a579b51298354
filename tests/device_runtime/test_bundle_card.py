import html
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.card import describe_model, list_sections

# Mitchell et al. 2019, section 4, in their order.
HEADINGS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]
FACTS: dict[str, Any] = {
    "vocabulary_size": 4000,
    "state_shapes": {"h": [1, 96], "c": [1, 256]},
    "quantisation": "dynamic-range int8",
    "licences": {"web text": "Apache-2.0"},
    "training": {
        "arm": "synthetic",
        "words_read": 1010665,
        "accuracy": {"top1": 0.187, "low": 0.166, "high": 0.21, "users": 40, "people": "testers"},
        "privacy": {
            "rho": 250.0,
            "epsilon": 391.364,
            "delta": 1e-10,
            "projected": {"rho": 0.00606, "epsilon": 0.635, "delta": 1e-10, "cohort": 6500},
        },
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def rows(card: str) -> dict[str, list[str]]:
    """Cells after the first of every table row, by the first."""
    cells = [[c.strip() for c in x.strip("|").split("|")] for x in card.splitlines() if "|" in x]
    return {row[0]: row[1:] for row in cells}


def headings(card: str) -> list[str]:
    return [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]


def test_it_has_the_headings_of_a_model_card() -> None:
    assert headings(describe_model(FACTS)) == HEADINGS


def test_it_gives_the_manifests_figures() -> None:
    found = rows(describe_model(FACTS))
    assert found["rho"] == ["250", "0.00606"]  # honest, projected
    assert found["epsilon"] == ["391.4", "0.635"]
    assert found["delta"] == ["1e-10", "1e-10"]
    assert found["cohort"] == ["not measured", "6,500"]
    assert (found["pieces"], found["recurrent units"]) == (["4,000"], ["256"])
    assert found["words read"] == ["1,010,665"]
    assert (found["top1"], found["low"], found["high"]) == (["0.187"], ["0.166"], ["0.21"])
    assert found["licence of web text"] == ["Apache-2.0"]


def test_what_was_not_measured_is_said() -> None:
    card = describe_model({**FACTS, "training": {}, "licences": {}})
    assert headings(card) == HEADINGS
    assert "accuracy not measured" in card and "no privacy figures" in card


@settings(deadline=None)
@given(key=st.text(), value=JSON, privacy=JSON, accuracy=JSON)
def test_foreign_text_marks_nothing_up(key: str, value: Any, privacy: Any, accuracy: Any) -> None:
    """Whatever a stranger's manifest says, the card has the same headings, and as HTML no tag."""
    training = {key: value, "arm": key, "privacy": privacy, "accuracy": accuracy}
    card = describe_model(
        {**FACTS, "quantisation": key, "training": training, "licences": {key: value}}
    )
    assert headings(card) == HEADINGS
    card.encode()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(card)
    assert not tags


def test_markdown_holds_every_section_with_its_values_and_sentences() -> None:
    card = describe_model(FACTS)
    sections = list_sections(FACTS)
    assert [section.title for section in sections] == HEADINGS
    values = {row[0]: row[1:] for x in sections for table in x.tables for row in table.rows}
    assert values["epsilon"] == (391.364, 0.635)  # as measured, not yet rounded
    assert values["top1"] == (0.187,)
    assert set(values) <= set(rows(card))
    for section in sections:
        for sentence in section.sentences:
            assert f"* {html.unescape(sentence)}" in html.unescape(card)
