"""`keyfed bench quantisation`: what each kind of stored weights keeps of the float model, and what it costs."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.progress import show_progress
from scripts.training import quieten_tensorflow

if TYPE_CHECKING:
    from scripts.pipeline import Run

_KEYSTROKES = 1_000


def measure_quantisation(run: "Run", arm: str, step: str, positions: int) -> dict[str, Any]:
    """Every kind's accuracy, size and latency, of an arm that is trained already.

    Args:
        run: its run.
        arm, step: which weights.
        positions: words of the test users' messages, at which each file is compared with the float model.

    Returns:
        `positions`, `float_top1`, `float_top3` and, by kind, `top1`, `top3`, `top1_agreement`, `top3_agreement`,
        `top1_lost` (float less TFLite, in points of a hundred), `model_bytes`, `step_p50_ms`, `keystroke_p95_ms`.
    """
    quieten_tensorflow()
    from device_runtime.bundle import MODEL
    from device_runtime.keyboard import Keyboard
    from device_runtime.latency import measure_latency
    from eval.parity import measure_parity
    from model.checkpoint import load_weights
    from model.quantisation import QUANTISATIONS
    from scripts.scoring import build_lexicon, write_bundle_files

    weights = load_weights(run.out / run.trained(arm, step).name / "weights.npz")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, show_progress("quantisation", 6) as advance:
        bundles = {kind: Path(folder) / kind for kind in QUANTISATIONS}
        lexicon = build_lexicon(run, arm)
        for done, (kind, bundle) in enumerate(bundles.items()):
            advance(done, f"size and latency of {kind}")
            write_bundle_files(run, bundle, weights, {"arm": arm, "step": step}, lexicon, kind)
            latency = measure_latency(bundle, _KEYSTROKES)
            figures[kind] = {
                "model_bytes": latency.files_bytes[MODEL],
                "step_p50_ms": latency.step.p50_ms,
                "keystroke_p95_ms": latency.keystroke.p95_ms,
            }
        advance(4, "parity")
        test_users = run.split_population()[0]["test"]
        messages = (text for texts in test_users.values() for text in texts)
        keyboards = [Keyboard.open(bundle) for bundle in bundles.values()]
        parities = measure_parity(weights, keyboards, messages, positions)
        for kind, parity in zip(bundles, parities, strict=True):
            shares = dataclasses.asdict(parity)
            common = {name: shares.pop(name) for name in ("positions", "float_top1", "float_top3")}
            figures[kind] |= shares | {"top1_lost": 100 * (parity.float_top1 - parity.top1)}
    return common | figures
