"""The page holds the figures of its results, needs no network and trusts nothing it is given."""

import copy
import json
import math
import re
from html.parser import HTMLParser
from typing import ClassVar
from xml.etree import ElementTree

import pytest

from eval.report import PUBLISHED_LIFT, describe_epsilon, describe_lift, notation, write_report
from eval.report.study import describe_study, render_study
from tests.eval.test_memorisation_page import FIGURES as MEMORISATION


def _interval(value, half, low=None):
    return {"value": value, "low": low if low is not None else value - half, "high": value + half}


def _arm(top1, top3, half=0.005):
    return {
        "top1": _interval(top1, half),
        "top3": _interval(top3, half * 1.5),
        "top1_all": _interval(top1 * 0.962, half),
        "top3_all": _interval(top3 * 0.963, half * 1.5),
        "oov_rate": _interval(0.0381, 0.0022),
    }


RESULTS = {
    "preset": "quick",
    "created": "2025-03-14 09:26 UTC",
    "arms": {
        "web": {"pretrained": _arm(0.0714, 0.1402), "federated": _arm(0.0987, 0.1811)},
        "synthetic": {"pretrained": _arm(0.1221, 0.2264), "federated": _arm(0.1348, 0.2433)},
    },
    "lift": {
        "pretrained": {"relative": 0.7101, "low": 0.6378, "high": 0.7893},
        "federated": {"relative": 0.3658, "low": 0.3163, "high": 0.4177},
    },
    "curve": {
        "web": [
            {"round": r, "top1": t, "low": t - 0.005, "high": t + 0.0052}
            for r, t in [
                (0, 0.0714),
                (20, 0.0802),
                (40, 0.0871),
                (60, 0.0931),
                (80, 0.0962),
                (100, 0.0987),
            ]
        ],
        "synthetic": [
            {"round": r, "top1": t, "low": t - 0.005, "high": t + 0.0052}
            for r, t in [
                (0, 0.1221),
                (20, 0.1259),
                (40, 0.1289),
                (60, 0.1317),
                (80, 0.1336),
                (100, 0.1348),
            ]
        ],
    },
    "privacy": {
        "rho": 112.4,
        "epsilon": 207.9,
        "epsilon_rdp": 213.6,
        "delta": 1e-5,
        "mechanism": "tree",
        "noise_multiplier": 0.054,
        "clip_norm": 0.5,
        "rounds": 100,
        "cohort": 50,
        "min_separation": 8,
        "max_participations": 12,
        "population": 412,
        "projected": {
            "epsilon": 8.53,
            "rho": 0.81,
            "delta": 1e-10,
            "cohort": 6_500,
            "population": 2_041_000,
            "noise_multiplier": 7.0,
            "min_separation": 314,
            "max_participations": 6,
            "rounds": 2_000,
        },
    },
    "device": {
        "bytes": 2_583_104,
        "p50_ms": 0.147,
        "p99_ms": 0.312,
        "suggest_p50_ms": 3.84,
        "cold_start_ms": 41.7,
        "peak_rss_bytes": 58_720_256,
    },
    "parity": {"top3_agreement": 0.9965, "positions": 2_000},
    "examples": [
        {
            "context": "see you",
            "web": ["in", "at", "the"],
            "synthetic": ["tomorrow", "later", "soon"],
        },
        {
            "context": "i'm so",
            "web": ["far", "much", "many"],
            "synthetic": ["sorry", "tired", "excited"],
        },
        {
            "context": "do you want to",
            "web": ["be", "the", "make"],
            "synthetic": ["go", "come", "watch"],
        },
        {
            "context": "happy",
            "web": ["to", "with", "and"],
            "synthetic": ["birthday 🎂", "to", "for"],
        },
        {"context": "", "web": ["The", "In", "He"], "synthetic": ["I", "Hey", "What"]},
    ],
    "evaluation": {"users": 236, "targets": 48_217, "vocabulary_words": 10_000},
    "data": {
        "web": {
            "documents_read": 3_824,
            "sentences_kept": 71_204,
            "words": 1_003_311,
            "duplicates_dropped": 5_127,
        },
        "synthetic": {"messages": 148_093, "words": 1_003_298, "copies_of_examples_dropped": 884},
        "population": {
            "messages_read": 258_112,
            "training_devices": 412,
            "held_out_users": 236,
            "messages_over_the_cap": 91_224,
            "messages_lost_to_the_split": 63_077,
            "handles_masked": 1_906,
            "malformed_lines": 0,
        },
    },
    "config": {
        "model": {"vocabulary_size": 10_000, "embedding": 96, "hidden": 670, "clip": None},
        "federated": {
            "cohort": 50,
            "rounds": 100,
            "learning_rates": [0.5, 1.0],
            "noise_multiplier": 0.054,
        },
    },
    "environment": {
        "python": "3.11.9",
        "tensorflow": "2.14.1",
        "processor": "2 x x86_64",
        "commit": "4f2a9c1e",
    },
    "seeds": {"run": 20250314, "bootstrap": 7},
    "timings_s": {"corpora": 41.3, "pretrain": 252.4, "federate": 188.0, "evaluate": 96.2},
    "commands": ["./scripts/setup", "keyfed run --preset quick --out runs/quick"],
    "hashes": {
        "text/web.jsonl": "4e00fbb8" * 8,
        "exported/synthetic-federated/bundle/model.tflite": "d1ce77a0" * 8,
    },
    "data_cards": {
        "web_text": {
            "description": "Sentences of public text.",
            "lines": 42_928,
            "words": 1_000_025,
            "sha256": "9a1b" * 16,
            "sources": [
                {"name": "news", "licence": "Apache-2.0", "lines": 42_928, "words": 1_000_025}
            ],
            "filters": [
                {"reason": "short", "in": 90_935, "rejected": 1_070, "out": 89_865},
                {"reason": "not needed", "in": 89_865, "rejected": 46_937, "out": 42_928},
            ],
            "diversity": {"words": 50_000, "vocabulary": 9_301, "distinct_1": 0.186},
            "known_gaps": ["No private messages."],
        },
        "synthetic_text": {
            "description": "Messages that the synthetic arm read.",
            "lines": 82_324,
            "words": 997_545,
            "sha256": "77c3" * 16,
            "sources": [
                {"name": "llm", "licence": "Terms of a model", "lines": 58_376, "words": 619_586},
                {
                    "name": "web_converted",
                    "licence": "As the web text",
                    "lines": 23_948,
                    "words": 377_959,
                },
            ],
            "models": [{"name": "small-model", "sha256": "0b0b" * 16}],
            "error_statistics": [
                {"name": "wrong characters, p50 of users", "published": 0.0064, "measured": 0.0058}
            ],
            "known_gaps": ["English only.", "Typing is simulated."],
        },
    },
    "model_card": [
        {
            "title": "Model details",
            "tables": [
                {"header": [], "rows": [["kind", "recurrent"], ["pieces", 4_001]]},
                {"header": [], "rows": []},
            ],
            "sentences": [],
        },
        {
            "title": "Intended use",
            "tables": [],
            "sentences": ["Suggesting words.", "Not for more."],
        },
        {
            "title": "Training data",
            "tables": [
                {
                    "header": ["privacy", "honest", "projected, as told by the card"],
                    "rows": [["rho of all", 249.7, 0.00606], ["noise", None, 7.02]],
                }
            ],
            "sentences": ["Arithmetic, not a run."],
        },
    ],
}
AUDIT = {
    "preset": "audit",
    "arm": "synthetic",
    "rounds": 12,
    "cohort": 96,
    "noise_multiplier": 8.25,
    "audits": [
        {
            "seed": seed,
            "violated": False,
            "epsilon": 1.53,
            "delta": 1e-5,
            "canaries_in": 1_502,
            "canaries_out": 1_498,
            "lower_bound": bound,
            "largest_bound": 7.93,
            "estimate_every": 1.17,
            "estimate_final": 0.64,
            "confidence": 0.95,
        }
        for seed, bound in ((1, 0.11), (2, 0.24))
    ],
}


class _Page(HTMLParser):
    """Visible text, attributes and the nesting of a page."""

    _VOID: ClassVar = {"meta", "br", "hr", "img", "link", "input"}

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.words, self.attributes, self.ids = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).replace("\u202f", " ").split())

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture
def render(tmp_path):
    def render_results(results):
        path = write_report(results, tmp_path)
        assert path == tmp_path / "report.html" and [path] == list(tmp_path.iterdir())
        return path.read_text(encoding="utf-8")

    return render_results


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]


def _spellings(leaf):
    """Every way a figure of the results may be written in the page."""
    if isinstance(leaf, str):
        return {leaf, leaf.replace("_", " ")}
    if leaf is None:
        return {notation.MISSING}
    if isinstance(leaf, int):
        return {f"{leaf:,}", str(leaf), f"{leaf / 1e6:.2f} MB"}
    seconds = f"{leaf:.1f} s" if leaf < 100 else f"{round(leaf) // 60} min {round(leaf) % 60} s"
    exponent = str(math.floor(math.log10(leaf))).translate(
        str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    )
    mantissa = f"{leaf / 10 ** math.floor(math.log10(leaf)):.3g} · 10{exponent}"
    percent, signed = f"{100 * leaf:.1f}", f"{100 * leaf:+.1f}"
    return {
        percent,
        signed,
        mantissa,
        f"{100 * leaf:.2f}",
        f"{leaf:.2f}",
        f"{leaf:,.0f}",
        f"{leaf:.3g}",
        f"10{exponent}",
        seconds,
    }


def test_every_figure_of_the_results_is_in_the_page(render):
    text = _Page(render(WHOLE)).text
    # of the ablation's study the table alone is shown, of exposures the charts
    results = {key: value for key, value in WHOLE.items() if key not in ("config", "ablation")}
    results["audit"] = {key: WHOLE["audit"][key] for key in ("canaries", "canaries_without_noise")}
    results["contamination"] = CERTIFICATE | {"passed": "over a limit", "name": "text of both arms"}
    for leaf in _leaves(results):
        if isinstance(leaf, bool):
            continue  # told in words, see below
        assert any(spelling in text for spelling in _spellings(leaf)), leaf
    headline = text[: text.index("Accuracy by arm")]
    for figure in ("+71.0 %", "+63.8 to +78.9 %", "+36.6 %", "+31.6 to +41.8 %", "12.2 %", "7.1 %"):
        assert figure in headline
    assert "embedding 96" in text and "learning_rates 0.5, 1.0" in text and "clip not set" in text


def test_page_needs_no_network_and_no_script(render):
    page = render(WHOLE)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|<iframe|<img", page)
    for _, name, _ in _Page(page).attributes:
        assert name not in {"src", "srcset", "data", "action"} and not name.startswith("on")


def test_page_is_well_formed_even_as_xml(render):
    page = render(WHOLE)
    root = ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    ids = _Page(page).ids
    assert len(ids) == len(set(ids))
    for _, name, value in _Page(page).attributes:
        if name == "aria-labelledby":
            assert set(value.split()) <= set(ids)
    for table in root.iter("table"):
        assert all(header.get("scope") for header in table.iter("th"))
        widths = {sum(int(cell.get("colspan", 1)) for cell in row) for row in table.iter("tr")}
        assert len(widths) == 1


def test_every_chart_says_its_figures_in_words(render):
    charts = list(ElementTree.fromstring(render(WHOLE).removeprefix("<!doctype html>")).iter("svg"))
    assert len(charts) == 5 + len(MEMORISATION["plantings"])
    for chart in charts:
        assert chart.get("role") == "img"
        title, description = chart.find("title"), chart.find("desc")
        assert chart.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
        assert title.text and re.search(r"\d.*(%|bits)", description.text)
    described = " ".join(chart.find("desc").text for chart in charts).replace("\u202f", " ")
    for figure in (
        "+71.0 % (+63.8 to +78.9 %)",
        "web text, pretrained: 7.1 % (6.6–7.6)",
        "round 60 13.2 %",
    ):
        assert figure in described


def test_taps_saved_are_told_where_they_were_counted(render):
    results = copy.deepcopy(RESULTS)
    results["arms"]["web"]["pretrained"]["keystroke_savings"] = _interval(0.4011, 0.01)
    results["arms"]["synthetic"]["federated"]["keystroke_savings"] = _interval(0.4567, 0.0125)
    told = " ".join(_Page(render(results)).words).replace("\u202f", " ")
    for figure in ("retrained 40.1 % (39.1–41.1).", "ederated 45.7 % (44.4–46.9)."):
        assert figure in " ".join(told.split())
    assert "Taps saved" not in render(RESULTS)


def test_bars_are_as_long_as_their_figures(render):
    root = ElementTree.fromstring(render(RESULTS).removeprefix("<!doctype html>"))
    lengths, shares = [], []
    for metric in ("top1", "top3", "top1_all"):
        chart = next(
            svg for svg in root.iter("svg") if svg.find("title").get("id") == f"bars-{metric}-title"
        )
        lengths += [float(bar.get("width")) for bar in chart.iter("rect")]
        shares += [
            RESULTS["arms"][arm][stage][metric]["value"]
            for arm in RESULTS["arms"]
            for stage in ("pretrained", "federated")
        ]
    ratios = [length / share for length, share in zip(lengths, shares, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * 12, rel=1e-3)


def test_private_looking_markup_is_escaped_everywhere(render):
    hostile = "</style><script>alert('x')</script>\"&{{7*7}}"

    def poison(tree):
        if isinstance(tree, dict):
            return {key: poison(value) for key, value in tree.items()} | {hostile: hostile}
        if isinstance(tree, list):
            return [poison(value) for value in tree]
        return hostile if isinstance(tree, str) else tree

    page = render(poison(WHOLE))
    ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    assert "<script" not in page and _Page(page).text.count(hostile) > 10


def test_sections_appear_with_their_keys_and_unknown_keys_change_nothing(render):
    whole = render(RESULTS)
    assert render(RESULTS | {"rounds_to_match": None, "of the future": {"a": [1]}}) == whole
    assert "reaches after 7 rounds" in render(RESULTS | {"rounds_to_match": 7})
    assert "Before any round" in render(RESULTS | {"rounds_to_match": 0})
    core = {"arms": {arm: {"pretrained": _arm(0.1, 0.2)} for arm in ("web", "synthetic")}}
    core["lift"] = {"pretrained": {"relative": 0.01, "low": -0.02, "high": 0.03}}
    page = render(core)
    ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    assert "No clear difference" in page and 'id="accuracy"' in page
    for section in ("rounds", "privacy", "audits", "device", "examples", "data", "cards", "model"):
        assert f'id="{section}"' in whole and f'id="{section}"' not in page
    beside = {"ablation", "contamination"}
    assert not any(f'id="{section}"' in whole for section in beside)
    assert all(f'id="{section}"' in render(WHOLE) for section in beside)
    for key in ("curve", "privacy", "device", "parity", "evaluation", "timings_s"):
        results = copy.deepcopy(RESULTS)
        for name in list(results[key]):
            del results[key][name]
            ElementTree.fromstring(render(results).removeprefix("<!doctype html>"))


def test_contents_lead_to_every_section_in_its_order(render):
    page = ElementTree.fromstring(render(WHOLE).removeprefix("<!doctype html>"))
    linked = [link.get("href") for link in page.iter("a")]
    assert linked == [f"#{title.get('id')}" for title in page.iter("h2")] and len(linked) > 10
    assert [link.text for link in page.iter("a")] == [title.text for title in page.iter("h2")]


def test_audits_are_told_beside_the_ledger_or_how_to_get_them(render):
    assert "keyfed audit --run RUN" in _Page(render(RESULTS)).text
    text = _Page(render(WHOLE)).text
    assert "keyfed audit --run" not in text
    assert "2 runs with canaries: ε is at least 0.24, the ledger says 1.53 (δ = 10⁻⁵, 95 %" in text
    assert "No run contradicts the ledger." in text
    assert (
        "at least 7.31, the ledger says 1.53" in text
        and "The ledger is contradicted in 2 of 2." in text
    )
    weak = copy.deepcopy(WHOLE)
    for row in weak["audit"]["canaries"]["audits"]:
        row["epsilon"] = 391.4
    assert "No attack could have contradicted so large an ε" in _Page(render(weak)).text


def test_the_ablation_of_a_study_is_in_the_runs_page(render):
    text = _Page(render(WHOLE)).text
    part = text[text.index("Of a study of preset full") :]
    assert "mix, no human floor 11.9 %" in part
    assert "−4.3 to −1.6 %" in part and "+1.8 to ∞" in part
    assert "Not shown to help: typing noise" in part


def test_unbounded_and_absent_figures_are_drawn(render):
    results = copy.deepcopy(RESULTS)
    results["lift"]["federated"] = {"relative": 1.5, "low": -1.0, "high": math.inf}
    results["device"]["p50_ms"] = None
    results["curve"]["web"][1]["low"] = math.nan
    page = render(json.loads(json.dumps(results)))
    assert "−100.0 to ∞" in _Page(page).text and not re.search(
        r"[\d\s\"(L]nan", page, re.IGNORECASE
    )


@pytest.mark.parametrize("missing", ["arms", "lift"])
def test_results_without_their_point_are_refused(tmp_path, missing):
    with pytest.raises(ValueError, match=missing):
        write_report({key: value for key, value in RESULTS.items() if key != missing}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_finding_follows_the_interval():
    low, high = PUBLISHED_LIFT
    assert "beats web text by 20.9" in describe_lift({"relative": 0.209, "low": low, "high": high})
    assert "12.0\u202f% behind" in describe_lift({"relative": -0.12, "low": -0.2, "high": -0.01})
    assert "No clear difference" in describe_lift({"relative": 0.05, "low": 0, "high": 0.1})


def test_epsilon_is_said_in_words():
    assert "strong promise" in describe_epsilon(1.0)
    assert "about 2.72," in describe_epsilon(1.0) and "about 5,064," in describe_epsilon(8.53)
    assert "the range that deployed keyboards publish" in describe_epsilon(8.53)
    assert "10⁹⁰" in describe_epsilon(207.9) and "promises nothing" in describe_epsilon(207.9)
    assert "promises nothing" in describe_epsilon(10.1)
    assert "no finite ε" in describe_epsilon(None) and "no finite ε" in describe_epsilon(math.inf)


def test_figures_are_written_one_way():
    thin = "\u202f"
    assert notation.percent(0.12345) == f"12.3{thin}%"
    assert notation.percent(-0.01, signed=True) == f"−1.0{thin}%"
    assert [notation.number(x) for x in (2_041_000, 207.9, 8.5, 0.054, 1.08e-3, 0.0, -3)] == [
        "2,041,000", "208", "8.50", "0.054", f"1.08{thin}·{thin}10⁻³", "0", "−3",
    ]  # fmt: skip
    assert notation.scientific(1e-10) == "10⁻¹⁰"
    assert notation.megabytes(2_583_104) == f"2.58{thin}MB"
    assert (
        notation.seconds(252.4) == f"4{thin}min 12{thin}s"
        and notation.seconds(9.96) == f"10.0{thin}s"
    )
    for write in (notation.percent, notation.number, notation.scientific, notation.seconds):
        assert write(None) == write(math.nan) == notation.MISSING


def _study_row(top1, seeds=("1", "2", "3")):
    return {
        **_arm(top1, 1.9 * top1),
        "seeds": [int(seed) for seed in seeds],
        "top1_by_seed": {seed: top1 + 0.0011 * place for place, seed in enumerate(seeds)},
        "top1_seed_sd": 0.00137,
        "words_read": 5_000_123,
        "distinct_words": 1_234_567,
        "seconds": 912.4,
    }


def _study_lift(arm, over, relative, low, high):
    by_seed = {"1": relative - 0.011, "2": relative, "3": relative + 0.012}
    figures = {"relative": relative, "low": low, "high": high, "seeds": [1, 2, 3]}
    return {"arm": arm, "over": over, **figures, "by_seed": by_seed}


STUDY = {
    "seeds": [1, 2, 3],
    "users": 236,
    "targets": 48_217,
    "arms": {
        "web_news": _study_row(0.0703),
        "web_all": _study_row(0.0842),
        "synthetic": _study_row(0.1225),
        "synthetic_no_typing": _study_row(0.1231),
        "synthetic_no_floor": _study_row(0.1189),
        "synthetic_adapted": _study_row(0.1263),
        "real_chat": _study_row(0.1349),
    },
    "lifts": [
        _study_lift("synthetic", "web_news", 0.7425, 0.6813, 0.8074),
        _study_lift("synthetic", "web_all", 0.4548, 0.4012, 0.5121),
        _study_lift("synthetic_adapted", "web_all", 0.4999, 0.4412, 0.5533),
        _study_lift("synthetic_no_typing", "synthetic", 0.0049, -0.0071, 0.0164),
        _study_lift("synthetic_no_floor", "synthetic", -0.0293, -0.0411, -0.0182),
        _study_lift("synthetic_adapted", "synthetic", 0.0310, 0.0201, None),
    ],
    "gap_closed": {
        "web_all": {
            "value": 0.7554,
            "low": 0.6871,
            "high": 0.8312,
            "seeds": [1, 2, 3],
            "by_seed": {"1": 0.7441, "2": 0.7552, "3": 0.7669},
        }
    },
    "bars": {
        "lifts": [
            {"over": "web_all", "relative": 0.35, "low": 0.228, "reached": True},
            {"over": "web_news", "relative": 0.60, "low": 0.45, "reached": True},
        ],
        "gap_closed": [
            {"over": "web_all", "value": 0.80, "reached": False},
            {"over": "web_news", "value": 0.80, "reached": None},
        ],
    },
    "ablations": [
        {
            "arm": "synthetic_no_typing",
            "part": "typing noise",
            "relative": 0.0049,
            "low": -0.0107,
            "high": 0.0152,
            "effect": "no clear difference",
        },
        {
            "arm": "synthetic_no_floor",
            "part": "the floor of human text",
            "relative": -0.0293,
            "low": -0.0434,
            "high": -0.0159,
            "effect": "helps",
        },
        {
            "arm": "synthetic_adapted",
            "part": "private adaptation",
            "relative": 0.0310,
            "low": 0.0176,
            "high": None,
            "effect": "helps",
        },
    ],
    "cost": {
        "web_news": {"gain": -0.0139, "seconds_per_point": None, "words_per_point": None},
        "synthetic": {"gain": 0.0383, "seconds_per_point": 238.2, "words_per_point": 322_341.4},
    },
}
CERTIFICATE = {
    "name": "training text of the mix",
    "corpus_sha256": "5f3c" * 16,
    "corpus_lines": 312_077,
    "sets": [
        {
            "name": "chat users",
            "sha256": "ab12" * 16,
            "lines": 8_731,
            "overlaps": [
                {
                    "measure": "8-grams",
                    "checked": 20_011,
                    "found": 613,
                    "share": 0.03063,
                    "limit": 0.005,
                }
            ],
        }
    ],
    "passed": False,
}


def _without_noise(audit):
    rows = [row | {"violated": True, "lower_bound": 7.31} for row in audit["audits"]]
    return audit | {"audits": rows}


WHOLE = RESULTS | {
    "contamination": CERTIFICATE,
    "audit": {
        "canaries": AUDIT,
        "canaries_without_noise": _without_noise(AUDIT),
        "memorisation": MEMORISATION,
    },
    "ablation": {
        "preset": "full",
        **{
            name: STUDY[name]
            for name in ("seeds", "users", "targets", "arms", "lifts", "ablations")
        },
    },
}
"""RESULTS and all that a run may have beside: every section of the page."""
WHOLE["device"] = RESULTS["device"] | {
    "suggest_p95_ms": 4.13,
    "word_p50_ms": 0.33,
    "keystroke_p50_ms": 1.21,
    "keystroke_p95_ms": 2.61,
    "files_bytes": {"model.tflite": 1_201_337, "lexicon.bin": 190_211},
}


def _loop(floor, vocabulary, crossed):
    generations = [
        {
            "generation": number,
            "written_words": 400_311,
            "kept_words": 310_027,
            "kept_share": 0.7745,
            "rejected": {"near duplicate": 41, "language": 2},
            "diversity": {"words": 100_009, "vocabulary": size, "human_share": floor},
            "score": {"top1": 0.1177, "seconds": 301.4, "words": 999_321},
            "cost_per_point": {"seconds": 77.31, "words": None},
        }
        for number, size in enumerate(vocabulary)
    ]
    return {
        "config": {"human_floor": floor},
        "limits": [{"monitor": "vocabulary", "ratio": 0.85}],
        "generations": generations,
        "crossed": crossed,
    }


LOOPS = [
    _loop(0.3, [9_031, 9_017, 9_008], []),
    _loop(
        0.0, [9_032, 8_007, 6_003], [{"monitor": "vocabulary", "value": 6_003, "limit": 6_805.95}]
    ),
]
STUDY_PAGE = {
    "second": STUDY | {"users": 61, "targets": 12_777},
    "privacy": {"rho": 0.517, "epsilon": 4.86, "delta": 1e-5, "devices": 409},
    "certificates": [CERTIFICATE],
    "loops": LOOPS,
    "environment": {"python": "3.11.9"},
    "commands": ["keyfed study --out runs/study"],
}


def test_every_figure_of_a_study_is_in_its_page():
    text = _Page(render_study(STUDY, **STUDY_PAGE)).text
    own = {key: value for key, value in STUDY.items() if key not in ("bars", "ablations")}
    del own["arms"]
    shown = [
        *_leaves(own),
        *_leaves(STUDY_PAGE["privacy"]),
        61,
        12_777,
        9_017,
        6_003,
        0.1177,
        41 + 2,
    ]
    for leaf in shown:  # negative ones are among the words below
        if leaf is not None and not isinstance(leaf, str):
            assert leaf < 0 or any(spelling in text for spelling in _spellings(leaf)), leaf
    for row in STUDY["arms"].values():
        for metric in ("top1", "top3", "top1_all"):
            assert f"{100 * row[metric]['value']:.1f} %" in text
    for words in (
        "beats all public web text by 45.5 %",
        "+40.1 to +51.2 %",
        "+35.0 %, interval above +22.8 %",
        "closes 75.5 % of the gap",
        "68.7–83.1 %",
        "+3.1 % +1.8 to ∞",
        "−2.9 % −4.3 to −1.6 %",
        "typing noise no clear difference",
        "the floor of human text helps",
        "Not shown to help: typing noise.",
        "ε = 4.86 at δ = 10⁻⁵",
        "−1.39",
        "322,341",
        "Human floor 30 %: ran to generation 2, no limit crossed.",
        "No human floor: stopped after generation 2, vocabulary at 6,003, limit 6,806.",
        "training text of the mix: over a limit",
        "3.06 % 613 of 20,011 0.50 %",
        "ab12" * 16,
        "keyfed study --out runs/study",
        "Every arm read 5,000,123 words",
    ):
        assert words in text, words


def test_goals_are_called_reached_or_not_plainly():
    root = ElementTree.fromstring(render_study(STUDY).removeprefix("<!doctype html>"))
    section = next(part for part in root.iter("section") if part.get("aria-labelledby") == "goals")
    rows = [["".join(cell.itertext()) for cell in row] for row in section.iter("tr")][1:]
    assert [row[0] for row in rows] == [
        "lift over all public web text",
        "lift over news alone",
        "gap closed, from all public web text to other users’ real chat",
        "gap closed, from news alone to other users’ real chat",
    ]
    assert [row[-1] for row in rows] == ["reached", "reached", "not reached", "not measured"]


def test_study_page_stands_alone_and_is_well_formed():
    for page in (render_study(STUDY, **STUDY_PAGE), render_study(STUDY)):
        assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|<iframe|<img", page)
        assert not re.search(r"\w\)?\.[A-Z]", _Page(page).text)  # a blank between sentences
        root = ElementTree.fromstring(page.removeprefix("<!doctype html>"))
        ids = _Page(page).ids
        assert len(ids) == len(set(ids))
        for _, name, value in _Page(page).attributes:
            if name == "aria-labelledby":
                assert set(value.split()) <= set(ids)
        for table in root.iter("table"):
            assert all(header.get("scope") for header in table.iter("th"))
            widths = {sum(int(cell.get("colspan", 1)) for cell in row) for row in table.iter("tr")}
            assert len(widths) == 1


def test_study_page_escapes_what_it_is_given():
    hostile = "</style><script>alert('x')</script>\"&{{7*7}}"

    def poison(tree):
        if isinstance(tree, dict):
            return {key: poison(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [poison(value) for value in tree]
        return hostile if isinstance(tree, str) else tree

    poisoned = poison({key: STUDY_PAGE[key] for key in ("certificates", "environment", "commands")})
    poisoned |= {"privacy": STUDY_PAGE["privacy"] | {hostile: hostile}}
    page = render_study(STUDY, **(STUDY_PAGE | poisoned), names=(hostile, hostile))
    ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    assert "<script" not in page and _Page(page).text.count(hostile) >= 8


def test_sections_of_a_study_appear_with_what_they_show():
    whole, bare = render_study(STUDY, **STUDY_PAGE), render_study(STUDY)
    for name in ("second", "monitors", "contamination", "reproduce"):
        assert f'id="{name}"' in whole and f'id="{name}"' not in bare
    core = {key: STUDY[key] for key in ("seeds", "users", "targets", "bars")} | {
        "arms": {"synthetic": _study_row(0.12, seeds=("2",)) | {"top1_seed_sd": None}},
        "lifts": [],
        "gap_closed": {},
        "ablations": [],
        "cost": {},
    }
    page = render_study(core)
    ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    text = _Page(page).text
    assert "Not compared" in text and "not measured" in text and "None" not in text
    for name in ("ablations", "privacy", "cost"):
        assert f'id="{name}"' in whole and f'id="{name}"' not in page
    with pytest.raises(ValueError, match="no arms"):
        render_study(core | {"arms": {}})


def test_finding_of_a_study_follows_its_interval():
    def finding(low, high, over="web_all"):
        return describe_study({"lifts": [_study_lift("synthetic", over, 0.1, low, high)]})

    assert finding(0.01, 0.2) == "Synthetic typing text beats all public web text by 10.0\u202f%"
    assert finding(0.01, None, "web_news").endswith("beats news text by 10.0\u202f%")
    assert finding(-0.01, 0.2).startswith("No clear difference")
    assert finding(-0.01, None).startswith("No clear difference")
    behind = {"lifts": [_study_lift("synthetic", "web_all", -0.1, -0.2, -0.05)]}
    assert (
        describe_study(behind)
        == "Synthetic typing text falls 10.0\u202f% behind all public web text"
    )


def test_dots_stand_where_their_shares_are():
    root = ElementTree.fromstring(render_study(STUDY).removeprefix("<!doctype html>"))
    chart = next(
        svg for svg in root.iter("svg") if svg.find("title").get("id") == "first-arms-title"
    )
    groups = list(chart.iter("g"))
    dots = [float(group.findall("circle")[-1].get("cx")) for group in groups]
    shares = [row["top1"]["value"] for row in STUDY["arms"].values()]
    scale = (dots[-1] - dots[0]) / (shares[-1] - shares[0])
    for group, dot, row in zip(groups, dots, STUDY["arms"].values(), strict=True):
        assert dot == pytest.approx(dots[0] + scale * (row["top1"]["value"] - shares[0]), abs=0.1)
        seeds = [float(circle.get("cx")) for circle in group.findall("circle")[:-1]]
        assert seeds == pytest.approx(
            [dots[0] + scale * (top1 - shares[0]) for top1 in row["top1_by_seed"].values()], abs=0.1
        )
    assert "the mix: 12.2 % (11.8–12.8)" in chart.find("desc").text.replace("\u202f", " ")
