"""The keyboard page's server: hands out device_runtime/page and answers its keystrokes, on this machine only.

What is typed comes in as request bodies, lives in the sessions' state until the page is closed or the next
message begins, and goes nowhere else: no query strings, no access log, no file, no word of it in an error.
"""

import hmac
import json
import secrets
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np

from device_runtime.keyboard import Keyboard, Session
from device_runtime.layouts import Layout
from device_runtime.touch import OFFSET_MM, SIGMA_MM

HOST = "127.0.0.1"
_OUR_NAMES = (HOST, "localhost")  # with any port: a tunnel's end may have another
TOKEN_HEADER = "X-Keyfed-Token"

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_MAX_BODY_BYTES = 64 * 2**10
_MAX_CONTEXT = 4_000  # characters; the page stops at half of it
_MAX_PREFIX = 64
_MAX_MM = 1_000.0
_IDLE_S = 60.0  # a silent connection is closed
_SUGGESTIONS = 3


class BadRequest(ValueError):
    """A request's body is not what the page sends. The message holds nothing of it."""


@dataclass(frozen=True)
class Typing:
    """What stands before the caret: the text of a request, checked."""

    context: str
    prefix: str
    touches_mm: list[tuple[float, float] | None] | None

    @classmethod
    def parse(cls, body: bytes) -> "Typing":
        """From the JSON object {context, prefix, touches_mm} that the page sends.

        Raises:
            BadRequest: names the field and what it must be.
        """
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequest("the body must be JSON") from None
        if not isinstance(fields, dict) or set(fields) != {"context", "prefix", "touches_mm"}:
            raise BadRequest("the body must hold context, prefix and touches_mm, nothing else")
        context, prefix, touches = fields["context"], fields["prefix"], fields["touches_mm"]
        for name, text, longest in (
            ("context", context, _MAX_CONTEXT),
            ("prefix", prefix, _MAX_PREFIX),
        ):
            if not isinstance(text, str) or len(text) > longest or not _is_unicode(text):
                raise BadRequest(f"{name} must be Unicode text of at most {longest} characters")
        if touches is not None and not (
            isinstance(touches, list)
            and len(touches) == len(prefix)
            and all(touch is None or _is_point(touch) for touch in touches)
        ):
            raise BadRequest("touches_mm must be null, or hold [x, y] or null for each of prefix")
        points = touches and [touch and (float(touch[0]), float(touch[1])) for touch in touches]
        return cls(context, prefix, points)


@dataclass
class _Arm:
    name: str
    session: Session
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, typing: Typing) -> dict[str, Any]:
        with self.lock:
            start = time.perf_counter()
            self.session.set_context(typing.context)
            found = self.session.suggest(typing.prefix, _SUGGESTIONS, typing.touches_mm)
            space = typing.prefix and self.session.autocorrect(typing.prefix, typing.touches_mm)
            took_ms = (time.perf_counter() - start) * 1000
        texts = [suggestion.text for suggestion in found]
        return {"suggestions": texts, "space": space, "ms": round(took_ms, 2)}

    def forget(self) -> None:
        with self.lock:
            self.session.reset()


class PageServer(socketserver.ThreadingTCPServer):
    """Serves the page on the loopback interface until `shutdown`.

    Requests are refused unless they come under this machine's own name, from this page, with this
    run's token.

    Args:
        keyboards: one or two of the same layout by the name that the page shows; the first is in use at first.
        port: 0 for a free one.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, keyboards: Mapping[str, Keyboard], port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.files = {
            "/" + path.name: (_TYPES[path.suffix], path.read_bytes()) for path in _PAGE.iterdir()
        }
        self.files["/"] = self.files.pop("/index.html")
        arms = [_Arm(name, keyboard.session(private=True)) for name, keyboard in keyboards.items()]
        layout = next(iter(keyboards.values())).layout
        described = {"arms": [arm.name for arm in arms], **_describe(layout)}
        self.calls: dict[str, Callable[[bytes], Any]] = {
            "/open": lambda body: described,
            "/suggest": partial(_suggest, arms),
            "/forget": partial(_forget, arms),
        }
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """What to open in a browser on this machine. A browser keeps what follows # to itself."""
        return f"http://{HOST}:{self.server_address[1]}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One place for what goes wrong in a thread: where it did, without any value."""
        error = sys.exception()
        if error is None or isinstance(error, ConnectionError):
            return  # the browser went away
        where = "".join(traceback.format_tb(error.__traceback__))
        print(f"keyfed: keyboard page: {type(error).__name__} at\n{where}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    wbufsize = -1  # head and body leave as one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self._is_ours(("same-origin", "none")):  # none: somebody typed the address
            kind, content = self.server.files.get(self.path, ("", b""))
            if kind:
                self._send(HTTPStatus.OK, kind, content)
            else:
                self.send_error(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        if not self._is_ours(("same-origin",)):
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            return self.send_error(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if len(length) > 9 or int(length) > _MAX_BODY_BYTES:
            most = f"the body may have {_MAX_BODY_BYTES} bytes"
            return self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, most)
        token = self.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self.send_error(HTTPStatus.FORBIDDEN, "open the address that keyfed printed")
        if self.headers.get_content_type() != "application/json":
            return self.send_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        body = self.rfile.read(int(length))
        call = self.server.calls.get(self.path)
        if call is None:
            return self.send_error(HTTPStatus.NOT_FOUND, "no such call")
        try:
            answer = call(body)
        except BadRequest as error:
            return self.send_error(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:
            self.server.handle_error(self.request, self.client_address)
            return self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "see keyfed's terminal")
        self._send(HTTPStatus.OK, "application/json", json.dumps(answer).encode())

    def _is_ours(self, sites: tuple[str, ...]) -> bool:
        """Whether the request is for this machine, by its own name, and of this page.

        Another site's name that points here (DNS rebinding) shows in Host; another site's page that
        calls us shows in Origin, Sec-Fetch-Site and the missing token.
        """
        hosts, origins, fetch_sites = (
            self.headers.get_all(name, []) for name in ("Host", "Origin", "Sec-Fetch-Site")
        )
        if len(hosts) != 1 or hosts[0].partition(":")[0].lower() not in _OUR_NAMES:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "no such host here")
        elif any(origin.lower() != f"http://{hosts[0]}".lower() for origin in origins):
            self.send_error(HTTPStatus.FORBIDDEN, "another origin")
        elif any(site not in sites for site in fetch_sites):
            self.send_error(HTTPStatus.FORBIDDEN, "another site")
        else:
            return True
        return False

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A line of text; the connection ends, for a body may be left unread."""
        self.close_connection = True
        line = f"{HTTPStatus(code).phrase}: {message or explain}\n" if message else ""
        self._send(code, "text/plain; charset=utf-8", line.encode())

    def version_string(self) -> str:
        return "keyfed"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever types here is not watched."""


def _suggest(arms: list[_Arm], body: bytes) -> Any:
    typing = Typing.parse(body)
    return {"arms": [arm.answer(typing) for arm in arms]}


def _forget(arms: list[_Arm], body: bytes) -> Any:
    for arm in arms:
        arm.forget()
    return {}


def _describe(layout: Layout) -> dict[str, Any]:
    hits = layout.touch_probabilities(SIGMA_MM, OFFSET_MM).diagonal()
    return {
        "layout": {
            "keys": layout.keys,
            "centres_mm": layout.centres_mm.tolist(),
            "key_size_mm": layout.key_size_mm,
        },
        "thumb": {
            "sigma_mm": SIGMA_MM,
            "offset_mm": OFFSET_MM,
            "misses": float(1 - np.mean(hits)),
        },
    }


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(c) in (int, float) and abs(c) <= _MAX_MM for c in value)
    )
