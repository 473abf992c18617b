# SPDX-License-Identifier: Apache-2.0
"""SIGTERM: what is in flight is finished, what is new is refused, and the end is clean."""

import os
import signal
import time

from clients import Raw, error_of
from harness import application, wait_for


def test_in_flight_is_finished(server):
    s = server([application("a", "fake_step")])
    with Raw(s.port) as c, Raw(s.port) as stream, Raw(s.port) as idle:
        assert idle.get("/a/").status == 200
        c.ask("/a/?sleep_ms=1000")
        stream.ask("/a/?n=5&interval_ms=200")
        stream.head()
        events = stream.events()
        next(events)
        s.process.send_signal(signal.SIGTERM)
        assert idle.ended()
        assert c.answer().status == 200
        assert len(list(events)) == 4
        assert s.process.wait(10) == 0


def test_what_is_left_at_the_deadline_gets_a_clean_error(server):
    app = application("a", "fake_step", graceful_shutdown_timeout_s=1, max_ongoing_requests=2)
    s = server([app])
    with Raw(s.port) as given, Raw(s.port) as stream, Raw(s.port) as waits:
        given.ask("/a/?hold=1")
        stream.ask("/a/?n=100000&interval_ms=50")
        stream.head()
        events = stream.events()
        next(events)
        waits.ask("/a/")
        begin = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        for c in (given, waits):
            answer = c.answer()
            assert answer.status == 503
            assert "shutting down" in error_of(answer)["message"]
        assert '"error"' in list(events)[-1]
        assert time.monotonic() - begin > 0.8
        assert s.process.wait(10) == 0


def test_a_killed_ingress_is_back_and_the_port_never_refuses(server):
    s = server([application("a", "fake_run")])
    assert s.get("/a/").status == 200
    for _ in range(3):
        old = s.pids("ingress")
        os.kill(old[0], signal.SIGKILL)
        assert s.get("/a/").status == 200  # waits in the backlog of the supervisor's socket
        wait_for("a new one", 5, lambda: s.pids("ingress") and s.pids("ingress") != old)


def test_an_ingress_is_replaced_under_open_streams(server):
    s = server([application("a", "fake_step", max_ongoing_requests=16)])
    with Raw(s.port) as stream, Raw(s.port) as idle:
        assert idle.get("/a/").status == 200
        stream.ask("/a/?n=10&interval_ms=200")
        stream.head()
        events = stream.events()
        next(events)
        old = s.pids("ingress")
        s.hangup()
        wait_for("a second one", 10, lambda: set(s.pids("ingress")) - set(old))
        answer = idle.get("/a/")
        assert answer.status == 200
        wait_for(
            "its next answer says close, or it was the new one's",
            5,
            lambda: answer.headers.get("connection") == "close"
            or idle.get("/a/").headers.get("connection") == "close",
        )
        assert len(list(events)) == 9
        wait_for("the old one ends", 30, lambda: not set(s.pids("ingress")) & set(old))
    assert s.get("/a/").status == 200
