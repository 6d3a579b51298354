import hashlib
import json
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.card import NOT_MEASURED, Source, build_card, describe_card, write_card
from synthetic_text.contamination import check_contamination
from synthetic_text.filters import HEURISTIC_FILTERS, apply_filters

LINES = ["on my way", "", "<b>hi</b>", "ok, see you", "did you eat", "ha" * 40]


def create_card(**changes):
    result = apply_filters(LINES, HEURISTIC_FILTERS)
    kept = [LINES[i] for i in result.kept]
    fields = {
        "name": "chats",
        "description": "Lines of a test.",
        "file": "chats.jsonl.gz",
        "data": b"bytes of the file",
        "sources": [
            Source("small model", "terms", len(kept), 9, is_generated=True, details={"seed": 3})
        ],
        "models": [{"name": "small | tiny", "sha256": "ab"}, {"name": "judge"}],
        "prompts": {"topics": 1613},
        "settings": {"temperatures": [0.9, 1.0]},
        "lines_in": len(LINES),
        "rejected": result.counts,
        "diversity": {"words": 9, "distinct_1": 0.123456},
        "error_statistics": [
            {"name": "adjacent keys", "published": 0.5, "measured": 0.48, "within": True}
        ],
        "contamination": None,
        "known_gaps": ["English only."],
        "samples": {"small model": kept},
    }
    return build_card(**fields | changes)


def read_tables(markdown):
    """Rows of every table by its heading."""
    tables, title = {}, ""
    for line in markdown.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        elif line.startswith("| "):
            cells = line.strip("| ").replace("\\|", "\0").split(" | ")
            tables.setdefault(title, []).append([c.strip().replace("\0", "|") for c in cells])
    return tables


def test_counts_of_each_filter_lead_from_the_lines_in_to_the_lines_out():
    card = create_card()
    steps = card["filters"]
    assert [step["reason"] for step in steps] == [f.reason for f in HEURISTIC_FILTERS]
    assert steps[0]["in"] == len(LINES) and steps[-1]["out"] == card["lines"] == 3
    assert all(step["in"] - step["rejected"] == step["out"] for step in steps)
    assert all(a["out"] == b["in"] for a, b in pairwise(steps))
    assert sum(step["rejected"] for step in steps) == 3


def test_the_file_is_named_by_its_hash():
    card = create_card()
    assert card["sha256"] == hashlib.sha256(b"bytes of the file").hexdigest()
    assert card["bytes"] == 17


def test_markdown_says_what_the_card_says():
    tables = read_tables(describe_card(create_card()))
    rows = tables["Filters, in the order they were tried"]
    assert ["markup", "5", "1", "4"] in rows
    assert ["words", "9"] in tables["Data"]
    assert ["topics", "1,613"] in tables["Prompts"]
    assert ["small model", "terms", "yes", "3", "9", '{"seed": 3}'] in tables["Sources"]
    assert ["judge", NOT_MEASURED] in tables["Models"]
    assert ["small | tiny", "ab"] in tables["Models"]
    assert ["distinct_1", "0.1235"] in tables["Diversity"]
    assert ["adjacent keys", "0.5", "0.48", "yes"] in tables[
        "Typing errors against published figures"
    ]


def test_what_was_not_measured_is_said():
    text = describe_card(create_card(diversity=None, error_statistics=None))
    for title in ("Diversity", "Typing errors against published figures", "Contamination"):
        assert f"## {title}\n\n{NOT_MEASURED}\n" in text


def test_a_certificate_is_a_table_of_sets_and_measures_without_their_text():
    secret = "the quick purple hedgehog jumped over nine sleepy alligators at dawn today"
    certificate = check_contamination(["on my way", secret], {"held-out": [secret, "see you"]})
    card = create_card(contamination=asdict(certificate))
    text = describe_card(card)
    rows = read_tables(text)["Contamination: sets"]
    assert len(rows) - 2 == len(certificate.sets[0].overlaps)  # less header and rule
    whole = dict(zip(rows[0], rows[2], strict=True))
    assert whole["name"] == "held-out" and whole["found"] == "1"
    assert ["passed", "no"] in read_tables(text)["Contamination"]
    assert "hedgehog" not in text + json.dumps(card)


def test_samples_are_taken_literally():
    samples = ["| a | b |", "# no heading\nor second line", "<script>"]
    text = describe_card(create_card(samples={"small model": samples}))
    for sample in samples:
        assert f"\n    {' '.join(sample.split())}\n" in text


def test_samples_come_from_generated_sources_only():
    sources = [
        Source("news", "Apache-2.0", 1, 4, is_generated=False),
        Source("small model", "terms", 2, 5, is_generated=True),
    ]
    assert create_card(sources=sources, samples={"small model": ["ok"]})["words"] == 9
    with pytest.raises(ValueError, match=r"samples of 'news'.*small model"):
        create_card(sources=sources, samples={"news": ["A headline."]})
    with pytest.raises(ValueError, match="50 samples"):
        create_card(samples={"small model": ["ok"] * 51})


@pytest.mark.parametrize("changes", [{"lines_in": 7}, {"rejected": {"empty": 1, "other": -1}}])
def test_lines_that_do_not_add_up_are_refused(changes):
    with pytest.raises(ValueError, match=r"card of chats.*count every line once"):
        create_card(**changes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"card of chats.*JSON values and finite numbers"):
        create_card(settings={"limit": value})


def test_the_written_card_is_the_built_one(tmp_path):
    card = create_card()
    write_card(card, tmp_path / "new", "chats")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["chats.card.json", "chats.card.md"]
    assert json.loads((tmp_path / "new/chats.card.json").read_text("utf-8")) == card
    assert (tmp_path / "new/chats.card.md").read_text("utf-8") == describe_card(card)


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(0, 9)), max_size=6), st.integers(0, 99))
def test_any_counts_that_add_up_are_accepted_and_no_others(counts, kept):
    rejected = dict(counts)
    sources = [Source("small model", "terms", kept, 0, is_generated=True)]
    total = kept + sum(rejected.values())
    card = create_card(lines_in=total, rejected=rejected, sources=sources, samples={})
    assert [(s["reason"], s["rejected"]) for s in card["filters"]] == list(rejected.items())
    with pytest.raises(ValueError, match="count every line once"):
        create_card(lines_in=total + 1, rejected=rejected, sources=sources, samples={})
