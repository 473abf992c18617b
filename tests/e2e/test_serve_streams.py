# SPDX-License-Identifier: Apache-2.0
"""Answers and bodies that come in pieces, and clients that leave in the middle."""

import json
import time

import pytest
from clients import Raw, WebSocket
from harness import application, wait_for


@pytest.fixture(scope="module")
def s(shared):
    return shared(
        "streams",
        [
            application("step", "fake_step", max_ongoing_requests=64),
            application("up", "fake_step", {"stream_in": True}),
        ],
    )


def state(s, app="step"):
    return json.loads(s.get(f"/{app}/").body)


def test_events_come_one_by_one(s):
    with Raw(s.port) as c:
        c.ask("/step/?n=4&interval_ms=150")
        status, headers = c.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert headers["transfer-encoding"] == "chunked"
        at = []
        for _ in c.events():
            at.append(time.monotonic())
        assert len(at) == 4
        assert at[-1] - at[0] > 0.3  # they were not kept back


def test_head_of_a_stream(s):
    with Raw(s.port) as c:
        c.ask("/step/?n=3", method="HEAD")
        assert c.head()[0] == 200
        assert c.get("/step/?n=1").status == 200


def test_a_large_answer(s):
    answer = s.get("/step/?bytes=3000000")
    assert len(answer.body) == 3000000


def test_a_large_buffered_body(s):
    n = 3000000
    answer = json.loads(s.get("/step/", "POST", b"x" * n).body)
    assert answer["body_len"] == n


def test_a_client_that_leaves_is_a_cancel(s):
    before = state(s)["cancels"]
    gone = s.metrics().sum("salver_requests_total", outcome="client_gone")
    for leave in (Raw.close, Raw.reset):
        c = Raw(s.port)
        c.ask("/step/?hold=1")
        wait_for("it is there", 5, lambda: state(s)["open"] == 2)
        leave(c)
        wait_for("it is gone", 5, lambda: state(s)["open"] == 1)
    assert state(s)["cancels"] == before + 2
    assert s.metrics().sum("salver_requests_total", outcome="client_gone") == gone + 2


def test_a_client_that_leaves_a_stream(s):
    before = state(s)["cancels"]
    with Raw(s.port) as c:
        c.ask("/step/?n=100000&interval_ms=10")
        c.head()
        next(c.events())
    wait_for("the plugin heard", 5, lambda: state(s)["cancels"] == before + 1)


def test_streamed_upload(s):
    with Raw(s.port) as c:
        c.send("POST /up/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            c.send(b"3e8\r\n" + b"\x01" * 1000 + b"\r\n")
        wait_for("it comes before its end", 5, lambda: state(s, "up")["open"] == 2)
        c.send("0\r\n\r\n")
        answer = json.loads(c.answer().body)
    assert (answer["in_bytes"], answer["in_sum"]) == (20000, 20000)


def test_streamed_upload_larger_than_every_window(s):
    n = 8000000
    answer = json.loads(s.get("/up/", "POST", b"\x01" * n).body)
    assert (answer["in_bytes"], answer["in_sum"]) == (n, n)


def test_upload_to_a_plugin_that_pauses(s):
    n = 1000000
    answer = json.loads(s.get("/up/?again_ms=5", "POST", b"\x01" * n).body)
    assert answer["in_bytes"] == n


def test_websocket_both_ways(s):
    with WebSocket(s.port, "/step/?ws=echo") as ws:
        assert ws.status == 101
        for text in ("one", "", "x" * 100000):
            ws.send_text(text)
            assert ws.message() == (ws.TEXT, text.encode())
        ws.send_frame(ws.TEXT, b"he", fin=False)
        ws.send_frame(ws.PING, b"p")
        ws.send_frame(0, b"llo")
        got = [ws.message(), ws.message()]
        assert (ws.PONG, b"p") in got and (ws.TEXT, b"hello") in got
        ws.send_close(1000)
        assert ws.close_code() == 1000
    wait_for("the plugin heard", 5, lambda: state(s)["open"] == 1)


def test_websocket_that_is_lost(s):
    before = state(s)["open"]
    ws = WebSocket(s.port, "/step/?ws=echo")
    wait_for("it is there", 5, lambda: state(s)["open"] == before + 1)
    ws.reset()
    wait_for("the plugin heard", 10, lambda: state(s)["open"] == before)


def test_slow_reader_is_cut_off_and_nobody_waits_for_it(server):
    s = server(
        [application("a", "fake_step", max_response_buffer_bytes=1 << 20, max_ongoing_requests=8)]
    )
    with Raw(s.port, rcvbuf=4096) as slow:
        slow.ask("/a/?flood_mb=64")
        for _ in range(20):
            begin = time.monotonic()
            assert s.get("/a/").status == 200
            assert time.monotonic() - begin < 10
        wait_for("it was cut off", 20, lambda: json.loads(s.get("/a/").body)["open"] == 1)


def test_keep_alive_and_pipelining(s):
    with Raw(s.port) as c:
        for i in range(5):
            c.ask(f"/step/{i}?sleep_ms={50 - 10 * i}")
        for i in range(5):
            assert json.loads(c.answer().body)["path"] == f"/{i}"
