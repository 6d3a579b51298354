"""What the benchmark's table claims against sums by hand; what its protocol and its leaderboard refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.benchmark import FLOAT, PROTOCOL, Contestant, Protocol, build_table, describe_claims
from eval.leaderboard import LEADERBOARD, extend_leaderboard, load_leaderboard
from eval.next_word import CLASSES, WordScores
from eval.statistics import paired_difference

USERS = 40
ASKED = np.random.default_rng(1).integers(20, 60, USERS)
FACTS = {
    "date": "2026-11-26",
    "version": "0.1.0",
    "commit": None,
    "environment": {"cores": 2, "kenlm": "0.3.0"},
}


def _scores(share: float, seed: int = 2) -> WordScores:
    """Users who get about this share of their words among three suggestions."""
    top3 = np.random.default_rng(seed).binomial(ASKED, share)
    none = np.zeros((USERS, len(CLASSES), 3), np.int64)
    return WordScores(ASKED + 1, ASKED, top3 // 2, top3, top3 // 2, top3, none)


def _contestants(shares: dict[str, float], sizes: dict[str, int]) -> list[Contestant]:
    kinds = {"web": "arm", "synthetic": "arm", "float": "float"}
    return [
        Contestant(
            name,
            f"the {name}",
            kinds.get(name.split("_")[0], "ngram"),
            _scores(share, seed),
            sizes.get(name, 1_000),
            0.2,
        )
        for seed, (name, share) in enumerate(shares.items())
    ]


ARMS = {
    "web_pretrained": 0.2,
    "web_federated": 0.3,
    "synthetic_pretrained": 0.32,
    "synthetic_federated": 0.5,
    FLOAT: 0.5,
}


def test_differences_are_ours_less_the_other_and_hold_all_together():
    contestants = _contestants(ARMS | {"kenlm": 0.3}, {"kenlm": 1_000})
    table = build_table(contestants, seed=1)
    assert (table["users"], table["targets"]) == (USERS, ASKED.sum() + USERS)
    assert 0.95 < table["level"] < 1 - 0.05 / 6  # six differences, some alike
    ours = contestants[3].scores.top3_in.sum() / ASKED.sum()
    for row, contestant in zip(table["rows"], contestants, strict=True):
        share = contestant.scores.top3_in.sum() / ASKED.sum()
        assert row["top3"]["value"] == pytest.approx(share)
        assert row["top3_all"]["value"] == pytest.approx(share * ASKED.sum() / table["targets"])
        if contestant.name == "synthetic_federated":
            assert row["difference"] is None
            continue
        wanted = paired_difference(
            contestant.scores.top3_in,
            contestants[3].scores.top3_in,
            ASKED,
            seed=1,
            level=table["level"],
        )
        assert row["difference"] == vars(wanted)
        assert row["difference"]["value"] == pytest.approx(ours - share)


@pytest.mark.parametrize(
    ("rival", "before", "after"),
    [
        (0.2, "better in top-3 than each of 1", "better in top-3 than each of 1"),
        (0.33, "not better in top-3 than the kenlm (−", "better in top-3 than each of 1"),
        (0.9, "not better in top-3 than the kenlm (−", "not better in top-3 than the kenlm (−"),
    ],
)
def test_the_finding_says_better_or_not_better(rival, before, after):
    table = build_table(_contestants(ARMS | {"kenlm": rival}, {}), seed=1)
    first, second, rest = (
        table["finding"].split("n-gram, is ")[1:],
        table["claims"],
        table["finding"],
    )
    assert rest.startswith("The synthetic_pretrained, at no more bytes than the n-gram, is ")
    assert first[0].startswith(before) and first[1].startswith(after)
    assert [claim["better"] for claim in second] == ["not" not in before, "not" not in after]
    assert [claim["difference"]["low"] > 0 for claim in second] == [c["better"] for c in second]
    worst = 100 * second[-1]["difference"]["value"]
    assert (f"(−{-worst:.1f} points, " in rest) == (not second[-1]["better"])


def test_nothing_is_claimed_over_an_ngram_of_fewer_bytes():
    rivals = {"kenlm": 0.1, "kenlm_cut": 0.1, "backoff": 0.9}
    sizes = {"kenlm": 999, "kenlm_cut": 1_000, "backoff": 1_200, "synthetic_federated": 1_100}
    table = build_table(_contestants(ARMS | rivals, sizes), seed=1)
    pairs = {(claim["ours"], claim["rival"]): claim["better"] for claim in table["claims"]}
    assert pairs == {
        ("synthetic_pretrained", "kenlm_cut"): True,
        ("synthetic_pretrained", "backoff"): False,
        ("synthetic_federated", "backoff"): False,
    }
    small = build_table(_contestants(ARMS | {"kenlm": 0.1}, {"kenlm": 1}), seed=1)
    assert small["claims"] == [] and small["finding"] == describe_claims([], {})
    assert small["finding"].startswith("No n-gram model here takes as many bytes as ours")


def test_models_asked_other_words_are_refused():
    [*others, last] = _contestants(ARMS, {})
    fewer = WordScores(*(column[:-1] for column in vars(last.scores).values()))
    with pytest.raises(ValueError, match="differ in users"):
        build_table([*others, Contestant("x", "x", "ngram", fewer, 1, None)], seed=1)


def test_the_protocol_has_its_hash_and_names_the_field_that_does_not_fit(tmp_path: Path):
    protocol = Protocol.load()
    assert len(protocol.sha256) == 64 and protocol.sha256 == Protocol.load(PROTOCOL).sha256
    assert {"web_pretrained", "synthetic_federated", FLOAT, "kenlm_synthetic", "backoff_web"} < set(
        protocol.rows
    )
    for section, facts in protocol.facts.items():
        protocol.require(section, facts | {"more": 1})
        for name in facts:
            with pytest.raises(
                ValueError, match=rf"protocol {protocol.version}: {section}\.{name} is .* and other"
            ):
                protocol.require(section, facts | {name: "other"})
    content = json.loads(PROTOCOL.read_text("utf-8"))
    path = tmp_path / "protocol.json"
    path.write_text(json.dumps(content), "utf-8")
    assert Protocol.load(path).facts == protocol.facts
    assert Protocol.load(path).sha256 != protocol.sha256  # other bytes, other protocol
    for change, said in (
        ({"version": 0}, "version"),
        ({"extra": 1}, "extra"),
        ({"ngrams": 1}, "ngrams"),
        ({"facts": {"test": {}}}, "facts: .*sections population, split"),
    ):
        path.write_text(json.dumps(content | change), "utf-8")
        with pytest.raises(ValueError, match=f"protocol.json: {said}"):
            Protocol.load(path)
    with pytest.raises(ValueError, match="cannot be read"):
        Protocol.load(tmp_path / "none.json")


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    content = json.loads(PROTOCOL.read_text("utf-8"))
    content["facts"]["test"] = {"users": USERS, "targets": int(ASKED.sum()) + USERS}
    path = tmp_path / "protocol.json"
    path.write_text(json.dumps(content), "utf-8")
    return Protocol.load(path)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "leaderboard.json"
    path.write_text('{"entries": []}', "utf-8")
    return path


def _complete(protocol: Protocol) -> dict:
    shares = {name: ARMS.get(name, 0.2) for name in protocol.rows}
    mark = {"version": protocol.version, "sha256": protocol.sha256}
    return build_table(_contestants(shares, {}), seed=1) | {"protocol": mark}


def test_complete_tables_are_added_and_earlier_entries_stay(protocol: Protocol, board: Path):
    table = _complete(protocol)
    first = extend_leaderboard(board, "first", table, protocol, FACTS)
    before = json.loads(board.read_text("utf-8"))["entries"]
    extend_leaderboard(board, "second", table, protocol, FACTS | {"commit": "abc+"})
    entries = json.loads(board.read_text("utf-8"))["entries"]
    assert entries[:1] == before and [entry["name"] for entry in entries] == ["first", "second"]
    assert entries[0]["rows"] == table["rows"] and entries[0]["protocol"] == table["protocol"]
    assert load_leaderboard(board, protocol).entries[0] == first
    assert [path.name for path in board.parent.iterdir() if path.name.startswith(".")] == []


def test_other_tables_are_refused_and_the_file_stays_as_it_was(protocol: Protocol, board: Path):
    table = _complete(protocol)
    extend_leaderboard(board, "first", table, protocol, FACTS)
    content = board.read_bytes()
    other = {"version": protocol.version, "sha256": "0" * 64}
    for name, change, said in (
        ("first", {}, "first is in the leaderboard already"),
        ("a\nb", {}, "name"),
        ("next", {"protocol": other}, "another hash"),
        ("next", {"rows": table["rows"][:-1]}, f"no {protocol.rows[-1]}"),
        ("next", {"users": USERS - 1}, r"test\.users"),
        ("next", {"targets": 5}, r"test\.targets"),
        ("next", {"finding": None}, "finding"),
    ):
        with pytest.raises(ValueError, match=said):
            extend_leaderboard(board, name, table | change, protocol, FACTS)
        assert board.read_bytes() == content


def test_a_changed_leaderboard_is_refused(protocol: Protocol, board: Path):
    table = _complete(protocol)
    for name in ("first", "second"):
        extend_leaderboard(board, name, table, protocol, FACTS)
    content = json.loads(board.read_text("utf-8"))

    def refuse(change, said):
        changed = json.loads(json.dumps(content))
        change(changed["entries"])
        board.write_text(json.dumps(changed), "utf-8")
        with pytest.raises(ValueError, match=said):
            load_leaderboard(board, protocol)

    refuse(
        lambda e: e[0]["rows"][0]["top1"].update(value=0.9), r"entries\.0\.sha256: .* was changed"
    )
    refuse(lambda e: e.pop(0), r"entries\.0\.sha256")
    refuse(lambda e: e.reverse(), r"entries\.0\.sha256")
    refuse(lambda e: e.append(e[0]), r"entries\.2\.name: first is there")
    refuse(lambda e: e[1].pop("date"), r"entries\.1\.date")
    refuse(lambda e: e[1].update(more=1), r"entries\.1\.more")
    refuse(lambda e: e[1]["rows"][0].update(bytes=-1), r"entries\.1\.rows\.0\.bytes")
    board.write_text(json.dumps(content), "utf-8")
    assert len(load_leaderboard(board, protocol).entries) == 2
    changed = protocol.model_copy(update={"sha256": "1" * 64})
    with pytest.raises(ValueError, match=r"entries\.0\.protocol\.sha256: .* never changes without"):
        load_leaderboard(board, changed)
    load_leaderboard(board, changed.model_copy(update={"version": protocol.version + 1}))
    board.write_text("[", "utf-8")
    with pytest.raises(ValueError, match=r"leaderboard\.json: the file"):
        load_leaderboard(board, protocol)


def test_the_committed_leaderboard_is_whole():
    load_leaderboard(LEADERBOARD, Protocol.load())
