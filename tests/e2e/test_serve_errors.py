# SPDX-License-Identifier: Apache-2.0
"""What a client reads when something goes wrong."""

import contextlib
import json
import os
import signal

import pytest
from clients import Raw, WebSocket, error_of
from harness import application, wait_for


@pytest.fixture(scope="module")
def s(shared):
    return shared("errors", [application("step", "fake_step"), application("run", "fake_run")])


@pytest.mark.parametrize("app", ["step", "run"])
@pytest.mark.parametrize(
    "code, kind",
    [
        (400, "BadRequestError"),
        (404, "NotFoundError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (501, "NotImplementedError"),
        (503, "ServiceUnavailableError"),
        (507, None),
    ],
)
def test_end_before_any_output(s, app, code, kind):
    answer = s.get(f"/{app}/?fail=-{code}")
    assert answer.status == code
    error = error_of(answer)
    assert kind in (None, error["type"])
    assert error["message"]


def test_end_after_output_on_sse(s):
    with Raw(s.port) as c:
        c.ask("/step/?n=5&fail=-500&fail_after=3")
        assert c.head()[0] == 200
        events = list(c.events())  # the chunked body ends well: the error is in the stream
        assert len(events) == 4
        assert json.loads(events[-1])["error"]["code"] == 500
        assert c.get("/step/?n=1").status == 200


def test_end_after_output_on_a_plain_answer(s):
    with Raw(s.port) as c:
        c.ask("/step/?n=5&fail=-500&fail_after=3&type=text/plain")
        c.head()
        with pytest.raises(ConnectionError):
            list(c.chunks())


def test_end_after_output_on_a_websocket(s):
    with WebSocket(s.port, "/step/?ws=source&n=5&fail=-500&fail_after=2") as ws:
        assert ws.status == 101
        assert ws.close_code() == 1011


def test_a_websocket_that_is_refused(s):
    with WebSocket(s.port, "/step/?ws=echo&refuse=-400") as ws:
        assert ws.status == 400


def test_an_error_body_of_the_plugins_own(s):
    answer = s.get("/step/?status=418&bytes=9&type=text/plain")
    assert answer.status == 418
    assert answer.headers["content-type"] == "text/plain"


def test_request_timeout(server):
    s = server([application("a", "fake_step", max_ongoing_requests=1)], http={"request_timeout_s": 1})

    def timed_out(c):
        answer = c.answer()
        assert answer.status == 504
        error = error_of(answer)
        assert error["type"] == "TimeoutError"
        assert "request_timeout_s" in error["message"]
        return error["message"]

    with Raw(s.port) as c:
        c.ask("/a/?hold=1")
        assert "waited for a replica" not in timed_out(c)
    # The slot is free again: the plugin saw the cancel of the one that it had.
    assert json.loads(s.get("/a/").body)["cancels"] == 1
    # This one keeps its slot beyond its time, so who comes after it cannot get it a moment before its own time is over.
    with Raw(s.port) as first, Raw(s.port) as second:
        first.ask("/a/?sleep_ms=4000&ignore_cancel=1")
        wait_for("the slot is taken", 5, lambda: s.metrics().sum("salver_ongoing_requests") == 1)
        second.ask("/a/?hold=1")
        assert "waited for a replica" not in timed_out(first)
        assert "waited for a replica" in timed_out(second)
    assert s.metrics().sum("salver_requests_total", outcome="timeout", code="504") == 3


def test_queue_full(server):
    s = server([application("a", "fake_step", max_ongoing_requests=1, max_queued_requests=2)])
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Raw(s.port)) for _ in range(3)]
        for c in held:
            c.ask("/a/?hold=1")
        wait_for("two wait", 5, lambda: s.metrics().sum("salver_queued_requests") == 2)
        answer = s.get("/a/")
        assert answer.status == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        error = error_of(answer)
        assert error["type"] == "ServiceUnavailableError"
        assert "max_queued_requests 2" in error["message"]
        # Refused before its body is read.
        with Raw(s.port) as c:
            c.send("POST /a/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
            assert c.answer().status == 503
    wait_for("all is over", 5, lambda: s.get("/a/").status == 200)
    m = s.metrics()
    assert m.sum("salver_requests_total", outcome="queue_full", code="503") == 2
    assert m.sum("salver_requests_total", outcome="client_gone") == 3


def test_queue_full_in_bytes(server):
    deployment = {"max_ongoing_requests": 1, "max_queued_bytes": 100000}
    s = server([application("a", "fake_step", **deployment)])
    with Raw(s.port) as held, Raw(s.port) as waits:
        held.ask("/a/?hold=1")
        waits.ask("/a/?hold=1", "POST", b"x" * 60000)
        wait_for("one waits", 5, lambda: s.metrics().sum("salver_queued_requests") == 1)
        answer = s.get("/a/", "POST", b"x" * 60000)
        assert answer.status == 503
        assert "max_queued_bytes 100000" in error_of(answer)["message"]


def test_body_over_the_limit(server):
    s = server([application("a", "fake_run")], http={"max_body_bytes": 10000})
    assert s.get("/a/", "POST", b"x" * 10000).status == 200
    with Raw(s.port) as c:
        c.send("POST /a/ HTTP/1.1\r\nhost: x\r\ncontent-length: 10001\r\n\r\n")
        answer = c.answer()
    assert answer.status == 413
    assert "10000" in error_of(answer)["message"]


def test_deploy_failed(server):
    s = server(
        [
            application("bad", "fake_run", {"do": "load:fail=-500"}),
            application("good", "fake_run"),
        ],
        ready={"bad": None},
    )

    def failed():
        answer = s.get("/bad/", timeout=30)
        assert answer.status == 503
        return "failed to deploy" in error_of(answer)["message"]

    wait_for("it is given up", 60, failed)
    assert s.get("/good/").status == 200


def test_a_worker_dies(server):
    s = server([application("a", "fake_step")])
    with Raw(s.port) as given, Raw(s.port) as streams:
        given.ask("/a/?hold=1", headers=["x-request-id: aboard"])
        streams.ask("/a/?n=0&hold=1&interval_ms=10")
        wait_for("both are there", 5, lambda: json.loads(s.get("/a/").body)["open"] == 3)
        os.kill(s.pids("worker")[0], signal.SIGKILL)
        answer = given.answer()
        assert answer.status == 502
        assert error_of(answer)["type"] == "ReplicaLostError"
        assert "aboard" in error_of(answer)["message"]
        streams.answer()
        assert s.get("/a/").status == 200  # waits for the next one
    assert s.metrics().sum("salver_requests_total", outcome="replica_lost", code="502") >= 1
