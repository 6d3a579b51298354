"""The loop on this project's own parts: the trained keyboard model writes the text that the next one learns from.

The cheapest generator there is, and the one that collapses soonest: it shows what the monitors see, and what a floor of
human text is for, in minutes. A language model takes its place through the same protocol, `synthetic_text.loop.Write`.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from device_runtime.keyboard import Keyboard
from device_runtime.tokenizer import Tokenizer
from eval.next_word import score_users
from eval.targets import EvaluationVocabulary
from scripts.pipeline import SCORING, Run
from scripts.pool_files import read_pool
from scripts.progress import show_progress
from scripts.scoring import write_bundle_files
from scripts.stages import Stage
from scripts.training import quieten_tensorflow
from synthetic_text.answer_log import AnswerLog
from synthetic_text.filters import HEURISTIC_FILTERS, copy_filter
from synthetic_text.llm import SLOTS, Complete, EndpointError
from synthetic_text.loop import (
    STEPS_A_GENERATION,
    GenerationScore,
    LoopConfig,
    NearDuplicates,
    TextPool,
    count_words,
    run_loop,
)
from synthetic_text.message_prompts import HEADER, MAX_TOKENS
from synthetic_text.prompting import SAMPLING

_SHOWN = 24
_SAMPLING = {**SAMPLING, "max_tokens": MAX_TOKENS, "temperature": 1.0, "min_p": 0.02}
_USELESS_ANSWERS_IN_A_ROW = 12 * SLOTS
_ROOMS = (
    "synthetic_text/loop.py",
    "synthetic_text/diversity.py",
    "synthetic_text/filters.py",
    "synthetic_text/duplicates.py",
    "synthetic_text/mixture.py",
    "model",
    "device_runtime",
    "eval/next_word.py",
    "scripts/loop.py",
    "scripts/pool_files.py",
    *SCORING,
)


def loop_stage(run: Run, loop: LoopConfig) -> Stage:
    """Generations of the run's model writing for itself; its folder holds `loop.json`, without any text in it.

    Generation 0 learns from LLM-written and converted web text, half of the words each. Every model is the run's
    network, trained on as many words as an arm of the run, with the run's tokenizer, and scored on validation users:
    a loop that can be stopped by what it measures must not measure the test users.
    """
    settings = run.settings("network", "pretraining", "evaluation", "population")
    settings |= run.population_facts() | {"loop": dataclasses.asdict(loop)}
    settings["steps"] = _count_steps(run)
    floor = f"{100 * loop.human_floor:g}".replace(".", "_")
    needs = (run.population, run.tokenizer)
    build = functools.partial(_build_loop, run, loop)
    return Stage(f"loop/human-floor-{floor}", settings, _ROOMS, needs, build)


def _build_loop(run: Run, loop: LoopConfig, folder: Path) -> None:
    quieten_tensorflow()
    llm, human = _read_texts(run, "llm"), _read_texts(run, "web_converted")
    half = loop.words // 2
    start = TextPool(_take_words(llm, half, loop.seed), _take_words(human, half, loop.seed))
    with show_progress("loop", STEPS_A_GENERATION * (loop.generations + 1)) as advance:
        done, note = 0, ""

        def begin_step(count: int, what: str) -> None:
            nonlocal done, note
            done, note = count, what
            advance(done, note)

        recursion = Recursion(run, folder, lambda detail: advance(done, f"{note}, {detail}"))
        filters = (*HEURISTIC_FILTERS, NearDuplicates(loop.seed))
        run_loop(
            folder,
            recursion.write,
            recursion.train_and_evaluate,
            start,
            human,
            loop,
            filters,
            on_step=begin_step,
        )


@dataclasses.dataclass(frozen=True)
class Recursion:
    """The run's network as generator and as what is trained: a generator is the model of the pool before.

    Models are kept in `folder` by the hash of their text, so that one which was scored need not be trained to write.

    Attributes:
        run: its network, tokenizer, vocabulary and validation users.
        folder: of the loop.
        report: told how far a training is.
    """

    run: Run
    folder: Path
    report: Callable[[str], object] = lambda detail: None

    def write(self, examples: Sequence[str], words: int, seed: int) -> list[str]:
        """Messages sampled at temperature 1 from the model that has learned from `examples`."""
        from model.sampling import sample_messages

        weights = self._train(examples)
        return sample_messages(weights, self._tokenizer, words, np.random.default_rng(seed))

    def train_and_evaluate(self, pool: TextPool, generation: int) -> GenerationScore:
        """Top-1 on validation users, through the TFLite file. A training that was interrupted counts from there."""
        started = time.monotonic()
        weights = self._train(pool.texts)
        config = self.run.config
        bundle = self.folder / "bundle"
        write_bundle_files(self.run, bundle, weights, {"loop_generation": generation})
        users = list(self.run.split_population()[0]["validation"].values())
        scores = score_users(
            functools.partial(Keyboard.open, bundle),
            users[: config.evaluation.curve_users],
            EvaluationVocabulary.load(self.run.out / "tokenizer" / "vocabulary.txt"),
            config.evaluation.curve_max_targets,
        )
        top1 = scores.intervals(config.seed)["top1"].value
        words = _count_steps(self.run) * config.text.batch_words
        return GenerationScore(top1, time.monotonic() - started, words)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer((self.run.out / "tokenizer" / "tokenizer.model").read_bytes())

    def _train(self, texts: Sequence[str]) -> list[np.ndarray]:
        from model.checkpoint import load_weights, save_weights
        from model.network import NetworkShape
        from model.pretraining import pretrain
        from model.rows import encode_text, pack_rows
        from synthetic_text.mixture import Pool, batch_rows, stream_batches

        digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
        path = self.folder / "models" / f"{digest[:16]}.npz"
        if path.exists():
            return load_weights(path)
        path.parent.mkdir(exist_ok=True)
        config, steps = self.run.config, _count_steps(self.run)
        rows = pack_rows(
            (encode_text(self._tokenizer, text) for text in texts), config.pretraining.row_tokens
        )
        pools = {"pool": Pool(rows, count_words(texts), human=False)}  # its floor is in the pool
        counts = batch_rows(pools, {"pool": 1.0}, config.text.batch_words, human_floor=0.0)
        checkpoint = path.with_suffix(".checkpoint.npz")

        def tell_step(step: int, loss: float) -> None:
            self.report(f"step {step} of {steps}, loss {loss:.2f}")

        weights = pretrain(
            lambda start: stream_batches(pools, counts, config.seed, start),
            NetworkShape(self._tokenizer.size, config.network.embedding, config.network.units),
            steps,
            config.pretraining,
            config.seed,
            checkpoint,
            tell_step,
        )
        save_weights(path, weights)
        checkpoint.unlink(missing_ok=True)
        return weights


@dataclasses.dataclass(frozen=True)
class FewShotWriter:
    """A base language model as generator: shown messages of the surviving pool, it goes on with more of the kind.

    Attributes:
        complete: of `synthetic_text.llm.connect`.
        folder: of the answers' logs, one for each pool and seed; what is in a log is not asked again.
    """

    complete: Complete
    folder: Path

    def __call__(self, examples: Sequence[str], words: int, seed: int) -> list[str]:
        """New messages; copies of examples are none.

        Raises:
            EndpointError: the endpoint failed, or writes nothing but copies. Answers before are in the log.
        """
        digest = hashlib.sha256(json.dumps([list(examples), seed]).encode()).hexdigest()
        path = self.folder / f"answers-{digest[:16]}.jsonl"
        is_copy = copy_filter(examples)
        messages: list[str] = []
        total = useless = 0
        with AnswerLog(path) as log, ThreadPoolExecutor(SLOTS) as threads:
            lines = path.read_text("utf-8").splitlines()
            known = {entry["number"]: entry["text"] for entry in map(json.loads, lines)}

            def ask(number: int) -> str:
                if number in known:
                    return known[number]
                rng = random.Random(f"{seed}/{number}")
                shown = rng.sample(list(examples), min(_SHOWN, len(examples)))
                prompt = "\n".join([HEADER, "", *shown, ""])
                return self.complete(prompt, seed=rng.randrange(2**31), **_SAMPLING)

            numbers = itertools.count()
            while total < words:
                block = list(itertools.islice(numbers, SLOTS))
                for number, text in zip(block, threads.map(ask, block), strict=True):
                    if number not in known:
                        log.append({"number": number, "text": text})
                    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
                    new = [line for line, bad in zip(lines, is_copy(lines), strict=True) if not bad]
                    messages += new
                    total += count_words(new)
                    useless = 0 if new else useless + 1
                    if useless == _USELESS_ANSWERS_IN_A_ROW:
                        raise EndpointError(
                            f"{useless} answers in a row held nothing new: this model does not write messages"
                        )
        return messages


def _count_steps(run: Run) -> int:
    return run.config.text.words // run.config.text.batch_words


def _read_texts(run: Run, name: str) -> list[str]:
    path = run.out / "text" / f"{name}.jsonl.gz"
    return [" ".join(message.words) for message in read_pool(path)]


def _take_words(texts: Sequence[str], words: int, seed: int) -> list[str]:
    """Random texts until they have `words`, or all."""
    taken: list[str] = []
    for place in np.random.default_rng(seed).permutation(len(texts)):
        if words <= 0:
            break
        taken.append(texts[place])
        words -= count_words([texts[place]])
    return taken
