"""The page of the four-arm figure: well-formed, and with the figures it was given."""

from xml.etree import ElementTree

from eval.report.memorisation import ARM_LABELS, render_memorisation

PLANTINGS = [{"users": 1, "repetitions": 16}, {"users": 16, "repetitions": 1}]
MEDIANS = {"central": (9.0, 2.5), "central_by_user": (5.6, 2.1), "fedavg": (2.2, 1.4)}
MEDIANS |= {"dp_ftrl": (1.1, 0.9)}
FIGURES = {
    "plantings": PLANTINGS,
    "references": 2_000,
    "largest_exposure": 10.97,
    "loss_before": 4.62,
    "settings": {"preset": "audit", "devices": 816},
    "arms": {
        arm: {
            "loss": 4.1,
            "epsilon": 1.53 if arm == "dp_ftrl" else None,
            "exposures": [
                {"value": m, "low": m - 0.5, "high": m + 0.5, "all": [m]} for m in medians
            ],
        }
        for arm, medians in MEDIANS.items()
    },
}


def test_every_planting_has_a_chart_with_every_arms_figures() -> None:
    page = ElementTree.fromstring(render_memorisation(FIGURES).removeprefix("<!doctype html>"))
    charts = list(page.iter("svg"))
    assert [chart.find("title").text for chart in charts] == [
        "1 device, 16 copies on each",
        "16 devices, 1 copy on each",
    ]
    for index, chart in enumerate(charts):
        described = chart.find("desc").text.replace("\u202f", " ")
        lengths = [float(bar.get("width")) for bar in chart.iter("rect")]
        for (arm, label), length in zip(ARM_LABELS.items(), lengths, strict=True):
            median = MEDIANS[arm][index]
            assert f"{label}: {median} bits ({median - 0.5:.1f}–{median + 0.5:.1f})" in described
            assert abs(length / lengths[0] - median / MEDIANS["central"][index]) < 1e-3


def test_what_the_arms_cost_is_beside_what_they_remember() -> None:
    page = ElementTree.fromstring(render_memorisation(FIGURES).removeprefix("<!doctype html>"))
    rows = ["".join(row.itertext()).split("\n") for row in page.iter("tr")]
    cells = {row[0]: row for row in rows if row}
    assert "1.53" in "".join(next(row for name, row in cells.items() if "DP-FTRL" in name))
    text = "".join(page.itertext())
    assert "2,000 references" in text and "816" in text and "4.62" in text
