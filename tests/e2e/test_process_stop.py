# SPDX-License-Identifier: Apache-2.0
"""How a server goes down, and how its ingresses are replaced under load."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from harness import Server, application, read_answer, read_head, send_request, wait_for


def serve(tmp_path, http=None, **deployment):
    return Server(tmp_path, [application("fake", "fake_step", **deployment)], http=http)


class Slow(threading.Thread):
    """One request that takes its time and is aboard; .answer or .error when it is over."""

    def __init__(self, server, path):
        super().__init__()
        self.server, self.path, self.answer, self.error = server, path, None, None
        self.start()
        wait_for("the request aboard", 10, lambda: server.metrics().sum("salver_ongoing_requests") > 0)

    def run(self):
        try:
            self.answer = self.server.get(self.path)
        except (OSError, ValueError) as e:
            self.error = e


def stop(server, sig=signal.SIGTERM, timeout=30):
    start = time.monotonic()
    server.process.send_signal(sig)
    status = server.process.wait(timeout)
    return status, time.monotonic() - start


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_in_flight_requests_are_finished(tmp_path, sig):
    with serve(tmp_path) as server:
        left = server.children()
        slow = Slow(server, "/fake?sleep_ms=1500")
        status, took = stop(server, sig)
        slow.join()
        assert status == 0
        assert slow.answer and slow.answer.status == 200, slow.error
        assert took < 10
        assert not [c for c in left if c in server.children()]


def test_new_requests_are_refused_while_it_stops(tmp_path):
    with serve(tmp_path) as server:
        slow = Slow(server, "/fake?sleep_ms=2000")
        with socket.create_connection(("127.0.0.1", server.port), 10) as s:
            f = s.makefile("rb")
            send_request(s, "/fake", server.port)
            assert read_answer(f).status == 200
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            try:
                send_request(s, "/fake", server.port)
                assert read_answer(f).status == 503
            except OSError:
                pass  # an idle connection may be closed instead
        slow.join()
        assert slow.answer and slow.answer.status == 200, slow.error
        assert server.process.wait(30) == 0


def test_what_takes_too_long_gets_an_error(tmp_path):
    with serve(tmp_path, graceful_shutdown_timeout_s=1) as server:
        slow = Slow(server, "/fake?hold=1&ignore_cancel=1")
        status, took = stop(server)
        slow.join()
        assert status == 0
        assert took < 15
        assert slow.answer is not None and slow.answer.status in (503, 504), slow.error


def test_a_second_signal_stops_at_once(tmp_path):
    with serve(tmp_path) as server:
        slow = Slow(server, "/fake?sleep_ms=15000")
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None
        status, took = stop(server, signal.SIGINT)
        assert took < 10
        assert not server.children()
        slow.join()


def test_hangup_replaces_each_ingress(tmp_path):
    with serve(tmp_path, http={"num_ingress": 2}) as server:
        old = set(server.pids("ingress"))
        assert len(old) == 2
        server.hangup()
        wait_for(
            "both are new",
            10,
            lambda: len(server.pids("ingress")) == 2 and not old & set(server.pids("ingress")),
        )
        assert server.get("/fake").status == 200
        assert {p["status"] for p in server.status()["proxies"]} == {"HEALTHY"}


def test_an_open_stream_survives_the_swap(tmp_path):
    with serve(tmp_path) as server:
        old = server.pids("ingress")[0]
        with socket.create_connection(("127.0.0.1", server.port), 20) as s:
            f = s.makefile("rb")
            send_request(s, "/fake?n=20&interval_ms=100&sse=1", server.port)
            status, headers = read_head(f)
            assert status == 200
            server.hangup()
            wait_for("a second ingress is there", 5, lambda: set(server.pids("ingress")) - {old})
            body = f.read()
            assert body.count(b"data:") == 20
        wait_for("the old one has left", 10, lambda: old not in server.pids("ingress"))


def test_control_leaves_in_the_middle_of_a_hash(tmp_path):
    """Its other threads are not waited for, and have what they use until the end."""
    big = tmp_path / "big.so"
    with open(big, "wb") as f:
        f.truncate(4 << 30)  # takes no room, and seconds to hash
    with serve(tmp_path) as server:
        app = {"name": "big", "route_prefix": "/big", "plugin": str(big), "deployments": [{"name": "big"}]}
        text = {**json.loads(server.file.read_text()), "applications": [app, *server.applications]}
        status, answer = server.admin("PUT", "/api/serve/applications/", text)
        assert status == 200, answer
        (control,) = server.pids("control")
        wait_for("the file is being read", 10, lambda: has_open(control, big))
        assert stop(server)[0] == 0
        assert f"control (pid {control}) ended with status 0" in server.log()


def has_open(pid, path):
    return str(path) in [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
