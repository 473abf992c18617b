# SPDX-License-Identifier: Apache-2.0
"""HTTP as clients of all kinds speak it, well or badly, through the whole server."""

import json
import socket
import time

import pytest
from clients import Raw, WebSocket, error_of
from harness import BUILD, application, wait_for

END = "Host: a\r\n\r\n"


@pytest.fixture(scope="module")
def s(shared):
    return shared(
        "client",
        [application("step", "fake_step", max_ongoing_requests=64)],
        http={
            "max_request_line_bytes": 1024,
            "max_header_bytes": 2048,
            "max_headers": 10,
            "max_body_bytes": 5000,
            "header_timeout_s": 1,
            "body_timeout_s": 1,
            "keep_alive_timeout_s": 2,
        },
    )


def said(s, text):
    """The answer to these bytes, and whether the connection ended behind it."""
    with Raw(s.port) as c:
        c.send(text)
        return c.answer(), c.ended()


@pytest.mark.parametrize(
    "status, text",
    [
        (400, "GET /step/ HTTP/1.1\r\n\r\n"),
        (400, "GET /step/ HTTP/1.1\r\nHost: b\r\n" + END),
        (400, "GET /step/ HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET /step/../x HTTP/1.1\r\n" + END),
        (400, "GET /step/%00 HTTP/1.1\r\n" + END),
        (400, "GET http://b/step/ HTTP/1.1\r\n" + END),
        (400, "GET /step/ HTTP/1.1\nHost: a\n\n"),
        (400, "GET /step/ HTTP/1.1\r\nX: a\r\n b\r\n" + END),
        (
            400,
            "POST /step/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
            + END,
        ),
        (400, "POST /step/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" + END),
        (400, "POST /step/ HTTP/1.1\r\nContent-Length: 1, 1\r\n" + END),
        (400, "POST /step/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + END + "x\r\n"),
        (405, "TRACE /step/ HTTP/1.1\r\n" + END),
        (405, "CONNECT a:1 HTTP/1.1\r\n" + END),
        (
            415,
            "POST /step/ HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n"
            + END,
        ),
        (417, "POST /step/ HTTP/1.1\r\nExpect: more\r\nContent-Length: 1\r\n" + END),
        (505, "GET /step/ HTTP/2.0\r\n" + END),
    ],
)
def test_refused(s, status, text):
    answer, ended = said(s, text)
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert error_of(answer)["message"]
    assert answer.headers["x-request-id"]
    assert ended


def padded(n, before, after):
    return before + "x" * (n - len(before) - len(after)) + after


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_limits_of_the_file(s, over):
    line = padded(1024 + over, "GET /step/?", " HTTP/1.1") + "\r\n"
    assert said(s, line + END)[0].status == (414 if over > 0 else 200)
    head, want = "GET /step/ HTTP/1.1\r\n", 431 if over > 0 else 200
    lines = padded(2048 + over, "Host: a\r\nx: ", "\r\n")
    assert said(s, head + lines + "\r\n")[0].status == want
    lines = "".join(f"x{i}: y\r\n" for i in range(10 - 1 + over))
    assert said(s, head + lines + END)[0].status == want
    answer = s.get("/step/", "POST", b"x" * (5000 + over))
    assert answer.status == (413 if over > 0 else 200)


def test_a_header_that_dawdles(s):
    with Raw(s.port) as c:
        c.send("GET /step/ HTTP/1.1\r\nHo")
        answer = c.answer()
        assert answer.status == 408
        assert c.ended()


def test_a_body_that_dawdles(s):
    with Raw(s.port) as c:
        c.send("POST /step/ HTTP/1.1\r\nContent-Length: 100\r\n" + END + "abc")
        assert c.answer().status == 408
        assert c.ended()


def test_an_idle_connection_ends(s):
    with Raw(s.port) as c:
        assert c.get("/step/").status == 200
        begin = time.monotonic()
        assert c.ended()
        assert time.monotonic() - begin > 1


def test_pipelined_with_bodies(s):
    with Raw(s.port) as c:
        one = "POST /step/{0} HTTP/1.1\r\nHost: a\r\nContent-Length: {0}\r\n\r\n"
        c.send("".join(one.format(n) + "x" * n for n in range(40)))
        for n in range(40):
            answer = json.loads(c.answer().body)
            assert (answer["path"], answer["body_len"]) == (f"/{n}", n)


def test_byte_by_byte(s):
    with Raw(s.port) as c:
        c.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = "3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n"
        for byte in (
            "POST /step/p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + END + body
        ):
            c.send(byte)
        assert json.loads(c.answer().body)["body_len"] == 7
        assert c.get("/step/").status == 200


def test_continue(s):
    with Raw(s.port) as c:
        c.send(
            "POST /step/ HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n"
            + END
        )
        assert c.head()[0] == 100
        c.send("abc")
        assert json.loads(c.answer().body)["body_len"] == 3


def test_no_continue_for_a_body_that_is_too_large(s):
    with Raw(s.port) as c:
        c.send(
            "POST /step/ HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 6000\r\n"
            + END
        )
        assert c.answer().status == 413
        assert c.ended()


def test_http_1_0(s):
    with Raw(s.port) as c:
        c.send("GET /step/ HTTP/1.0\r\n\r\n")
        answer = c.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert c.ended()
    with Raw(s.port) as c:
        for _ in range(2):
            c.send("GET /step/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = c.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


def test_connections_are_bounded(server):
    s = server([application("step", "fake_step")], http={"max_connections": 8})
    time.sleep(0.2)  # those that asked whether it is ready have left
    held = [Raw(s.port) for _ in range(8)]
    try:
        for c in held:
            assert c.get("/step/").status == 200
        with Raw(s.port) as c:
            answer = c.answer()
            assert answer.status == 503
            assert "max_connections" in error_of(answer)["message"]
        held.pop().close()
        wait_for("a place is free", 5, lambda: s.get("/step/").status == 200)
    finally:
        for c in held:
            c.close()


@pytest.fixture(scope="module")
def ws(shared):
    return shared(
        "wsecho",
        [application("wsecho", "wsecho")],
        plugins=BUILD / "plugins",
        ready={"wsecho": None},
    )


def open_websocket(s):
    def attempt():
        c = WebSocket(s.port, "/wsecho/")
        return c if c.status == 101 else c.close()

    return wait_for("the websocket opens", 10, attempt)


def test_websocket_frames(ws):
    with open_websocket(ws) as c:
        c.send_frame(c.TEXT, b"he", fin=False)
        c.send_frame(c.PING, b"are you there")
        c.send_frame(0, b"llo")
        got = [c.message(), c.message()]
        assert (c.PONG, b"are you there") in got
        assert (c.TEXT, b"hello") in got


@pytest.mark.parametrize(
    "code, opcode, payload",
    [
        (1007, 1, b"a\xff"),
        (1002, 0, b"nothing to continue"),
        (1002, 3, b"no such kind"),
    ],
)
def test_websocket_that_breaks_the_rules(ws, code, opcode, payload):
    with open_websocket(ws) as c:
        c.send_frame(opcode, payload)
        assert c.close_code() == code
        assert c.ended()


def test_websocket_of_another_version(ws):
    answer, _ = said(
        ws,
        "GET /wsecho/ HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + END,
    )
    assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
