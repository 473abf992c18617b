# SPDX-License-Identifier: Apache-2.0
"""What a replica is asked before it is ready: warmup_requests, and the canary of an update. A version
that fails them never costs a request."""

import json
import subprocess
import threading

from harness import SALVER, Server, application, wait_for


def state_of(server, app="a"):
    return server.status()["applications"][app]


def runs(server, app="a"):
    wait_for("it runs", 20, lambda: state_of(server, app)["status"] == "RUNNING")


def deploy(server, *applications):
    server.file.write_text(
        json.dumps(
            {
                "http_options": {"host": "127.0.0.1", "port": server.port},
                "applications": list(applications),
            }
        )
    )
    got = subprocess.run(
        [SALVER, "deploy", server.file, "--state", server.state],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert got.returncode == 0, got.stderr


class Traffic:
    """Requests without a pause until stop(); the statuses that came."""

    def __init__(self, server, path="/a/"):
        self.server, self.path = server, path
        self.statuses, self.errors = [], []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            try:
                self.statuses.append(self.server.get(self.path).status)
            except OSError as e:
                self.errors.append(e)

    def stop(self):
        self.over.set()
        self.thread.join()
        assert self.errors == [] and set(self.statuses) == {200}, (self.errors, set(self.statuses))
        assert len(self.statuses) > 20


def test_a_replica_is_warm_before_it_serves(tmp_path):
    trace = tmp_path / "trace"
    warm = [
        {"path": "/v1/x?sleep_ms=100", "json": {"a": [1, "ä"]}, "expect_status": 200},
        {"method": "GET", "path": "/?status=404"},
        {"body": "hello"},
    ]
    app = application("a", "fake_step", {"trace": str(trace)}, warmup_requests=warm)
    with Server(tmp_path, [app]) as server:
        runs(server)
        words = [line.split()[1] for line in trace.read_text().splitlines()]
        assert words[: words.index("given")].count("warmup") == 3
        assert words.count("warmup") == 3
        given = words.count("given")
        assert server.metrics().sum("salver_requests_given_total", application="a") == given
        assert json.loads(server.get("/a/").body)["flags"] & 4 == 0


def test_status_names_the_request_that_failed(tmp_path):
    warm = [{"method": "GET", "path": "/"}, {"path": "/v1/x?status=503", "json": {}}]
    app = application("a", "fake_run", warmup_requests=warm)
    with Server(tmp_path, [app], ready={"a": None}) as server:
        wait_for("it failed", 30, lambda: state_of(server)["status"] == "DEPLOY_FAILED")
        assert "warm-up request 2 of 2 (POST /v1/x?status=503) was answered with 503" in state_of(server)["message"]


def update_is_undone(tmp_path, config, word, **deployment):
    old = application("a", "fake_run", {"batch_sleep_ms": 1})
    with Server(tmp_path, [old]) as server:
        runs(server)
        before = server.pids("worker")
        traffic = Traffic(server)
        try:
            deploy(server, application("a", "fake_run", config, **deployment))
            wait_for(
                "it is undone, and status says why",
                60,
                lambda: word in json.dumps(state_of(server)) and server.pids("worker") == before,
                0.1,
            )
            # For some while more: a replica of the new version must not come back.
            wait_for("requests go on", 10, lambda n=len(traffic.statuses): len(traffic.statuses) > n + 50)
        finally:
            traffic.stop()
        # The supervisor may have started the broken one again before it read that it goes.
        wait_for("they alone are left", 10, lambda: server.pids("worker") == before)


def test_an_update_that_fails_its_warm_up_is_undone(tmp_path):
    update_is_undone(
        tmp_path,
        {"batch_sleep_ms": 2},
        "warm-up request 1 of 1 (POST /?fail=-500)",
        warmup_requests=[{"path": "/?fail=-500", "body": "x"}],
    )


def test_an_update_that_crashes_on_its_first_request_is_undone(tmp_path):
    """Nothing is written down to warm it up: the canary finds it."""
    update_is_undone(tmp_path, {"do": "run:segv@1"}, "SIGSEGV")


def test_an_update_that_hangs_on_its_first_request_is_undone(tmp_path):
    update_is_undone(tmp_path, {"do": "run:hang@1"}, "(GET /) had no end", load_timeout_s=1)
