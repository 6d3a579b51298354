"""The declared tables, and that draws keep their quotas."""

import json
import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic_text.message_prompts import load_message_family
from synthetic_text.personas import (
    FLOOR_SHARE,
    draw_cell,
    draw_group,
    draw_pair,
    load_tables,
    quotas,
)

TABLES = load_tables()
DRAWS = 2500


def draw(number, seed=1):
    dialect, style = draw_group(TABLES, seed, number)
    return draw_cell(TABLES, seed, number, dialect, style)


CELLS = [draw(number) for number in range(DRAWS)]


def test_the_tables_are_as_large_as_promised_and_name_nobody_twice():
    assert len(TABLES.personas) >= 200
    assert len(set(map(str, TABLES.personas))) == len(TABLES.personas)
    assert len(TABLES.relationships) >= 40
    assert len({s.about for s in TABLES.situations}) == len(TABLES.situations) >= 150
    assert len(set(TABLES.tones)) == len(TABLES.tones) >= 25
    shown = {example.persona for example in load_message_family(TABLES).prompts.examples}
    assert not shown & set(map(str, TABLES.personas))


@pytest.mark.parametrize("name", ["dialect", "domain"])
def test_strata_get_their_quota_and_small_ones_the_floor(name):
    total = sum(TABLES.shares[name].values())
    # Teens have no part in some domains.
    cells = CELLS if name == "dialect" else [c for c in CELLS if c.persona.age_band != "teen"]
    drawn = Counter(
        cell.persona.dialect if name == "dialect" else cell.situation.domain for cell in cells
    )
    lifted = {key: max(share / total, FLOOR_SHARE) for key, share in TABLES.shares[name].items()}
    for key, share in lifted.items():
        expected = share / sum(lifted.values())
        assert drawn[key] / len(cells) == pytest.approx(expected, rel=0.15, abs=0.003), key
    assert min(TABLES.shares[name].values()) / total < FLOOR_SHARE


def test_ages_and_typists_all_have_their_part():
    ages = Counter(cell.persona.age_band for cell in CELLS)
    assert ages.keys() == {"teen", "young", "adult", "middle", "senior"}
    assert min(ages.values()) > 0.05 * DRAWS
    typists = Counter(cell.persona.typist for cell in CELLS)
    rows = Counter(persona.typist for persona in TABLES.personas)
    assert typists["heavy"] / typists["light"] > 1.2 * rows["heavy"] / rows["light"]


def test_cells_fit_together():
    for cell in CELLS:
        assert cell.relationship.circle in cell.situation.circles
        assert cell.persona.age_band in cell.relationship.ages
    used = {cell.situation.about for cell in CELLS}
    assert len(used) > 0.95 * len(TABLES.situations)


def test_teens_write_nothing_about_love_and_chat_with_teens():
    teens = [cell for cell in CELLS if cell.persona.age < 18]
    assert len(teens) > 100
    assert {cell.persona.age_band for cell in teens} == {"teen"}
    for cell in teens:
        assert cell.situation.domain != "love"
        assert cell.relationship.circle not in ("partner", "dating")
        assert cell.tone != "flirty"
    for number in range(0, DRAWS, 3):
        adults = number % 5 == 0
        first, second = draw_pair(TABLES, 1, number, *draw_group(TABLES, 1, number), adults)
        assert first != second
        assert (first.age < 18) == (second.age < 18)
        assert not adults or first.age >= 18


def test_draws_follow_from_seed_and_number():
    assert [draw(number) for number in range(50)] == CELLS[:50]
    assert [draw(number, seed=2) for number in range(50)] != CELLS[:50]


@given(
    st.dictionaries(st.text(max_size=3), st.floats(1e-3, 1e3), min_size=1, max_size=20),
    st.floats(0, 0.2),
)
def test_quotas_sum_to_one_keep_their_order_and_are_lifted(shares, floor):
    lifted = quotas(shares, floor)
    assert sum(lifted.values()) == pytest.approx(1)
    total = sum(shares.values())
    for a in shares:
        assert lifted[a] >= floor / (1 + floor * len(shares)) - 1e-9
        for b in shares:
            if shares[a] / total >= floor and shares[b] / total >= floor:
                assert lifted[a] / lifted[b] == pytest.approx(shares[a] / shares[b])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "personas",
            lambda rows: [*rows, {"name": "Bo"}],
            r"personas.json: row 215: needs name, age, role",
        ),
        ("personas", lambda rows: [*rows, 3], "row 215: needs name"),
        (
            "situations",
            lambda rows: [*rows, {**rows[0], "circles": ["space"]}],
            r"situations\.json: row 252: circles: .*'space'",
        ),
        ("shares", lambda shares: {**shares, "dialect": {"US": 1}}, "field dialect: needs a share"),
        ("shares", lambda shares: {**shares, "typist": {"heavy": 0, "light": 1}}, "field typist"),
        ("tones", lambda rows: {}, "needs a JSON array"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path, name, change, message):
    folder = tmp_path / "tables"
    shutil.copytree(Path(str(files("synthetic_text") / "tables")), folder)
    assert load_tables(folder) == TABLES
    path = folder / f"{name}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        load_tables(folder)
