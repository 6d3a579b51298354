"""The keyboard page's server: who is let in, what is answered, and that nothing of it is kept."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_runtime.keyboard import Keyboard
from device_runtime.layouts import load_layout
from device_runtime.page_server import TOKEN_HEADER, BadRequest, PageServer, Typing

PRIVATE = "qzvxsecret"
QUESTION = {"context": "we found ", "prefix": "t", "touches_mm": [[24.8, 0.3]]}

Ask = Callable[..., http.client.HTTPResponse]


@contextmanager
def served(keyboards: dict[str, Keyboard]) -> Iterator[PageServer]:
    """A running server; the other end of the tests in test_page.py too."""
    with PageServer(keyboards) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(keyboard: Keyboard) -> Iterator[PageServer]:
    with served({"first": keyboard, "second": keyboard}) as server:
        yield server


@pytest.fixture
def ask(server: PageServer) -> Iterator[Ask]:
    """One request as the page makes it, but for what is changed; a header of None is left out."""
    host, port = "127.0.0.1", server.server_address[1]
    connection = http.client.HTTPConnection(host, port, timeout=20)

    def request(
        path: str = "/suggest",
        content: Any = QUESTION,
        method: str = "POST",
        body: bytes | None = None,
        **changed: str | None,
    ) -> http.client.HTTPResponse:
        body = json.dumps(content).encode() if body is None else body
        headers = {
            "Host": f"{host}:{port}",
            "Origin": f"http://{host}:{port}",
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            TOKEN_HEADER: server.token,
        }
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}  # type: ignore[misc]
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse()

    yield request
    connection.close()


def answer(response: http.client.HTTPResponse) -> Any:
    assert response.status == 200, response.read()
    return json.loads(response.read())


def test_the_answer_is_the_runtime_s_own(ask: Ask, keyboard: Keyboard) -> None:
    for context, prefix, touches in (
        ("", "", None),
        ("we found ", "", None),
        ("we found the dog at 10:30! ", "to", [[24.1, 0.9], None]),
        ("We found ", "tomprrow", None),
        ("ünïcödé 😂 ", "ß", [[8.0, 9.5]]),
    ):
        question = {"context": context, "prefix": prefix, "touches_mm": touches}
        session = keyboard.session()
        session.commit(context)
        points = touches and [point and tuple(point) for point in touches]
        found = [suggestion.text for suggestion in session.suggest(prefix, 3, points)]
        space = session.autocorrect(prefix, points) if prefix else ""
        arms = answer(ask(content=question))["arms"]
        assert [(arm["suggestions"], arm["space"]) for arm in arms] == [(found, space)] * 2
        assert all(arm["ms"] > 0 for arm in arms)


def test_two_pages_at_once_get_their_own_answers(server: PageServer, ask: Ask) -> None:
    contexts = ["", "we found ", "tom missed the dog ", "nobody wanted my keys tomorrow . "]
    expected = [
        answer(ask(content={"context": c, "prefix": "", "touches_mm": None}))["arms"][0][
            "suggestions"
        ]
        for c in contexts
    ]
    assert len(set(map(tuple, expected))) > 1
    wrong: list[str] = []

    def type_a_while(seed: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        for i in np.random.default_rng(seed).integers(len(contexts), size=30):
            body = json.dumps({"context": contexts[i], "prefix": "", "touches_mm": None})
            headers = {TOKEN_HEADER: server.token, "Content-Type": "application/json"}
            connection.request("POST", "/suggest", body, headers)
            found = json.loads(connection.getresponse().read())["arms"][0]["suggestions"]
            if found != expected[i]:
                wrong.append(contexts[i])
        connection.close()

    threads = [threading.Thread(target=type_a_while, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_layout_thumb_and_names_are_described(ask: Ask) -> None:
    described = answer(ask("/open", {}))
    layout = load_layout("qwerty")
    assert described["arms"] == ["first", "second"]
    assert described["layout"]["keys"] == layout.keys
    np.testing.assert_allclose(described["layout"]["centres_mm"], layout.centres_mm)
    thumb = described["thumb"]
    # Brute force: many touches by the thumb, and where they fall.
    random = np.random.default_rng(5)
    aims = np.arange(len(layout.keys)).repeat(4_000)
    touches = layout.centres_mm[aims] + thumb["offset_mm"]
    touches = touches + random.normal(0, thumb["sigma_mm"], touches.shape)
    assert thumb["misses"] == pytest.approx((layout.nearest_key(touches) != aims).mean(), abs=0.01)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/message.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_comes_with_strict_headers(ask: Ask, path: str, kind: str) -> None:
    for site in ("same-origin", "none", None):
        response = ask(path, method="GET", body=b"", Sec_Fetch_Site=site, Origin=None)
        content = response.read().decode()
        assert (response.status, response.headers["Content-Type"]) == (200, kind)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        policy = response.headers["Content-Security-Policy"].split("; ")
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert not any("unsafe" in rule or "http" in rule for rule in policy)
        assert not any(name.startswith("Access-Control") for name in response.headers)
        addresses = content.replace("http://www.w3.org/2000/svg", "")  # a name, not fetched
        assert "://" not in addresses


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "[::1]:{port}", "",
     "0.0.0.0:{port}", "user@localhost:{port}", None],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_host_name_is_refused(
    server: PageServer, ask: Ask, host: str | None, method: str
) -> None:
    name = host and host.format(port=server.server_address[1])
    path = "/" if method == "GET" else "/suggest"
    response = ask(path, method=method, Host=name, Origin=None, Sec_Fetch_Site=None)
    assert response.status == 421
    assert b"keyfed" not in response.read()


def test_two_host_names_are_refused(server: PageServer) -> None:
    port = server.server_address[1]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        hosts = f"Host: 127.0.0.1:{port}\r\nHost: evil.example"
        connection.sendall(f"GET / HTTP/1.1\r\n{hosts}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 421 ")


def test_localhost_and_a_tunnel_s_port_are_this_machine_too(ask: Ask) -> None:
    for host in ("localhost:8000", "127.0.0.1:9", "LOCALHOST"):
        answer(ask(Host=host, Origin=f"http://{host}"))


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_origin_is_refused(server: PageServer, ask: Ask, origin: str, method: str) -> None:
    named = origin.format(port=server.server_address[1])
    path = "/" if method == "GET" else "/suggest"
    assert ask(path, method=method, Origin=named).status == 403


@pytest.mark.parametrize(
    ("method", "site"),
    [("GET", "cross-site"), ("GET", "same-site"), ("POST", "cross-site"), ("POST", "same-site"),
     ("POST", "none"), ("GET", "")],
)  # fmt: skip
def test_a_cross_site_request_is_refused(ask: Ask, method: str, site: str) -> None:
    path = "/" if method == "GET" else "/suggest"
    assert ask(path, method=method, Origin=None, Sec_Fetch_Site=site).status == 403


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "HEAD", "DELETE"])
def test_a_preflight_is_not_answered(ask: Ask, method: str) -> None:
    response = ask(method=method, body=b"", Access_Control_Request_Method="POST")
    assert response.status == 501
    assert not any(name.startswith("Access-Control") for name in response.headers)


@pytest.mark.parametrize("token", [None, "", "x", "{token}x", "ü"])
@pytest.mark.parametrize("path", ["/open", "/suggest", "/forget"])
def test_every_call_needs_this_run_s_token(
    server: PageServer, ask: Ask, token: str | None, path: str
) -> None:
    given_token = token and token.format(token=server.token)
    assert ask(path, {}, **{TOKEN_HEADER: given_token}).status == 403


def test_tokens_are_of_one_run(keyboard: Keyboard, server: PageServer) -> None:
    with served({"other": keyboard}) as other:
        assert other.token != server.token and len(other.token) >= 32
        assert other.address.endswith("/#" + other.token)


@pytest.mark.parametrize(
    "path",
    ["/suggest", "/index.html", "/page_server.py", "/../page_server.py", "/%2e%2e/page_server.py",
     "/?token={token}", "/page.js?x", "http://127.0.0.1/", "*"],
)  # fmt: skip
def test_nothing_but_the_page_is_served(server: PageServer, ask: Ask, path: str) -> None:
    assert ask(path.format(token=server.token), method="GET", body=b"").status == 404


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Content-Length": str(64 * 1024 + 1)}, 413),
        ({"Content-Length": "9" * 5_000}, 413),
        ({"Content-Length": None}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "1e3"}, 411),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_body_is_bounded_and_json(ask: Ask, changed: dict[str, Any], status: int) -> None:
    assert ask(**changed).status == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" + PRIVATE.encode(),
        b"[" * 60_000,
        b'"' + PRIVATE.encode() + b'"',
        json.dumps({"context": PRIVATE}).encode(),
        json.dumps(QUESTION | {"more": PRIVATE}).encode(),
        json.dumps(QUESTION | {"context": 3}).encode(),
        json.dumps(QUESTION | {"context": PRIVATE * 500}).encode(),
        json.dumps(QUESTION | {"context": PRIVATE + "\ud800"}).encode(),
        json.dumps(QUESTION | {"prefix": PRIVATE * 9, "touches_mm": None}).encode(),
        json.dumps(QUESTION | {"prefix": PRIVATE}).encode(),  # one touch for ten letters
        json.dumps(QUESTION | {"touches_mm": [PRIVATE]}).encode(),
        json.dumps(QUESTION | {"touches_mm": [[1]]}).encode(),
        json.dumps(QUESTION | {"touches_mm": [[True, 0]]}).encode(),
        json.dumps(QUESTION | {"touches_mm": [[float("nan"), 0]]}).encode(),
        json.dumps(QUESTION | {"touches_mm": [[float("inf"), 0]]}).encode(),
        json.dumps(QUESTION | {"touches_mm": [[10**400, 0]]}).encode(),
    ],
)
def test_a_malformed_body_is_refused_without_repeating_it(ask: Ask, body: bytes) -> None:
    response = ask(body=body)
    said = response.read().decode()
    assert response.status == 400
    assert len(said.splitlines()) == 1 and PRIVATE not in said
    answer(ask())  # and the next request is answered


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_TOUCHES = st.lists(_SCALARS | st.lists(_SCALARS, max_size=3), max_size=5)
_JSON = _SCALARS | _TOUCHES | st.dictionaries(st.text(max_size=3), _SCALARS, max_size=2)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({"context": _JSON, "prefix": _JSON, "touches_mm": _JSON}))
def test_whatever_is_no_typing_is_a_bad_request(fields: dict[str, Any]) -> None:
    try:
        typing = Typing.parse(json.dumps(fields).encode())
    except BadRequest:
        return
    assert (typing.context, typing.prefix) == (fields["context"], fields["prefix"])
    assert typing.touches_mm is None or len(typing.touches_mm) == len(typing.prefix)


def test_forgetting_leaves_a_new_session(server: PageServer, ask: Ask, keyboard: Keyboard) -> None:
    answer(ask(content=QUESTION | {"context": "tom missed the dog "}))
    assert answer(ask("/forget", {})) == {}
    fresh = keyboard.session()
    empty = {"context": "", "prefix": "", "touches_mm": None}
    texts = [suggestion.text for suggestion in fresh.suggest()]
    assert answer(ask(content=empty))["arms"][0]["suggestions"] == texts


def test_what_is_typed_is_said_nowhere(
    keyboard: Keyboard, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in normal running nor where the runtime fails on it."""
    question = json.dumps({"context": f"{PRIVATE} ", "prefix": PRIVATE, "touches_mm": None})
    with served({"one": keyboard}) as server:
        headers = {TOKEN_HEADER: server.token, "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        for path in ("/suggest", f"/{PRIVATE}", "/forget"):
            connection.request("POST", path, question, headers)
            connection.getresponse().read()
        assert capfd.readouterr() == ("", "")

        def fail(*arguments: Any) -> None:
            raise ValueError(f"cannot encode {arguments[1:]}")

        monkeypatch.setattr("device_runtime.keyboard.Session.suggest", fail)
        connection.request("POST", "/suggest", question, headers)
        response = connection.getresponse()
        assert (response.status, PRIVATE in response.read().decode()) == (500, False)
        connection.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert "ValueError at" in err and "page_server.py" in err
    assert PRIVATE not in err


def test_only_loopback_listens(server: PageServer) -> None:
    host, port = server.server_address[:2]
    assert host == "127.0.0.1"
    for other in ("127.0.0.2", "::1"):
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=5).close()


def test_a_taken_port_is_an_error(server: PageServer, keyboard: Keyboard) -> None:
    with pytest.raises(OSError):
        PageServer({"one": keyboard}, server.server_address[1])
