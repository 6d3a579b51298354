"""`kebbie.json` of a run: its bundles' scores on kebbie, the public keyboard benchmark."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pydantic

from device_runtime.bundle import MANIFEST
from scripts.progress import say

FILE = "kebbie.json"

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Count = Annotated[int, pydantic.Field(ge=0)]


class _Checked(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Accuracy(_Checked):
    """Of a task's `n` answers, the shares that were right first, and among three."""

    accuracy: Share
    top3_accuracy: Share
    n: Count


class Correction(Accuracy):
    """Of `n` words, `n_typo` of them typed with an error; F weighs precision a little more (beta 0.9)."""

    precision: Share
    recall: Share
    fscore: Share
    top3_precision: Share
    top3_recall: Share
    top3_fscore: Share
    n_typo: Count


class BundleScores(_Checked):
    """kebbie's figures of one bundle, by kebbie's names.

    Attributes:
        manifest_sha256: of the bundle's manifest, which holds the hashes of its files.
        overall_score: kebbie's weighted sum; a quarter of it is for swipes, which our keyboard does not take.
    """

    manifest_sha256: str
    overall_score: Share
    next_word_prediction: Accuracy
    auto_completion: Accuracy
    auto_correction: Correction
    swipe_resolution: Accuracy


class KebbieScores(_Checked):
    """What the file holds.

    Attributes:
        kebbie: its version.
        seed: of its simulated typos.
        messages: number of messages that were typed, by all users together.
        bundles: scores by arm, or those of a single bundle as `bundle`.
    """

    kebbie: str
    seed: Count
    messages: Annotated[int, pydantic.Field(ge=1)]
    bundles: Annotated[dict[str, BundleScores], pydantic.Field(min_length=1)]

    @classmethod
    def load(cls, path: Path) -> "KebbieScores":
        """Read what `save` wrote.

        Raises:
            ValueError: names the file and the field at fault.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ValueError(
                f"{path}: cannot be read ({error.strerror}): run `keyfed kebbie` again, or remove it"
            ) from None
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            raise ValueError(
                f"{path}: {field}: {first['msg']}: run `keyfed kebbie` again, or remove it"
            ) from None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
        temporary.replace(path)


def hash_manifest(bundle: Path) -> str:
    """SHA-256 of a bundle's manifest."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def hash_scores(out: Path) -> dict[str, str]:
    """SHA-256 of the run's `kebbie.json` by its name, if there is one."""
    path = out / FILE
    return {FILE: hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}


def load_scores_of(bundles: Mapping[str, Path], out: Path) -> KebbieScores | None:
    """The run's `kebbie.json`; None, and a line that says so, if it is of others than these bundles, by arm.

    Raises:
        ValueError: names the file and the field at fault.
    """
    path = out / FILE
    if not path.exists():
        return None
    scores = KebbieScores.load(path)
    found = {arm: of_bundle.manifest_sha256 for arm, of_bundle in scores.bundles.items()}
    if found != {arm: hash_manifest(bundle) for arm, bundle in bundles.items()}:
        say(f"{path}: of other bundles, left out: run `keyfed kebbie --run {out}` again")
        return None
    return scores
