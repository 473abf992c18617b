# SPDX-License-Identifier: Apache-2.0
"""Any process but the supervisor may die: it is back, and what it left behind can be read."""

import os
import re
import signal
import subprocess
import time

import pytest
from harness import Server, application, wait_for


def serve(tmp_path, *applications, http=None):
    return Server(tmp_path, list(applications), http=http)


def fake(**deployment):
    return application("fake", "fake_run", **deployment)


def kill_and_wait(server, role):
    old = server.children(role)[0]
    os.kill(old.pid, signal.SIGKILL)
    return old, wait_for(
        f"{old.name} is back",
        10,
        lambda: [c for c in server.children(role) if c.name == old.name and c.pid != old.pid],
    )[0]


def answers(server, path="/fake"):
    try:
        return server.get(path, timeout=5).status == 200
    except OSError:
        return False


def replica(server, index=0):
    apps = server.status()["applications"]
    return apps["fake"]["deployments"]["fake"]["replicas"][index]


@pytest.mark.parametrize("role", ["control", "ingress", "worker"])
def test_killed_process_is_back(tmp_path, role):
    with serve(tmp_path, fake()) as server:
        for _ in range(3):
            kill_and_wait(server, role)
            wait_for("requests are answered", 10, lambda: answers(server))
        wait_for("all is well", 10, lambda: is_running(try_status(server)))
        restarts = server.metrics().by("salver_restarts_total", "process")
        name = {"control": "control", "ingress": "ingress/0", "worker": "fake/fake/0"}[role]
        assert restarts[name] == 3


def test_no_request_notices_the_death_of_control(tmp_path):
    with serve(tmp_path, fake()) as server:
        others = {c.pid for c in server.children() if c.role != "control"}
        before = server.status()
        kill_and_wait(server, "control")
        for _ in range(50):
            assert server.get("/fake").status == 200
        after = wait_for("status is back", 10, lambda: try_status(server))
        assert {c.pid for c in server.children() if c.role != "control"} == others
        assert after["controller_info"]["restarts"] == 1
        assert after["applications"]["fake"]["status"] == "RUNNING"
        assert replica(server)["pid"] == replica_of(before)["pid"]


def try_status(server):
    try:
        return server.status()
    except Exception:  # the socket is not there yet
        return None


def is_running(status):
    return status is not None and status["applications"]["fake"]["status"] == "RUNNING"


def replica_of(status):
    return status["applications"]["fake"]["deployments"]["fake"]["replicas"][0]


def test_a_replaced_control_never_reads_the_file_again(tmp_path):
    with serve(tmp_path, fake()) as server:
        server.file.write_text("this: is not what was accepted\n")
        kill_and_wait(server, "control")
        wait_for("status is back", 10, lambda: try_status(server))
        kill_and_wait(server, "worker")
        wait_for("requests are answered", 10, lambda: answers(server))
        assert server.status()["applications"]["fake"]["status"] == "RUNNING"


def test_an_ingress_that_starts_while_control_is_away_has_routes(tmp_path):
    with serve(tmp_path, fake()) as server:
        control = server.children("control")[0]
        os.kill(control.pid, signal.SIGSTOP)
        try:
            kill_and_wait(server, "ingress")
            wait_for("requests are answered", 10, lambda: answers(server))
        finally:
            os.kill(control.pid, signal.SIGCONT)


def test_obituary_of_a_crash(tmp_path):
    with serve(tmp_path, fake(max_ongoing_requests=4)) as server:
        pid = server.children("worker")[0].pid
        answer = server.get("/fake?do=print=lastwords,segv")
        assert answer.status == 502
        words = wait_for("last words are in status", 10, lambda: replica(server)["last_words"])
        assert words["pid"] == pid
        assert words["signal"] == signal.SIGSEGV
        assert words["callback"] == "run"
        assert words["plugin"].startswith("fake")
        assert words["requests_aboard"] == 1
        assert words["request_ids"][0] in answer.body.decode() + answer.headers["x-request-id"]
        assert any("lastwords" in line for line in words["log"])
        assert "SIGSEGV" in replica(server)["last_error"]
        log = server.log()
        assert re.search(r"fake/fake/0 \(pid %d, generation 0\) died: signal 11" % pid, log)
        assert words["request_ids"][0] in log


def test_back_off_after_five_ends(tmp_path):
    with serve(tmp_path, fake()) as server:
        for _ in range(5):
            kill_and_wait(server, "worker")
        os.kill(server.children("worker")[0].pid, signal.SIGKILL)
        wait_for("it waits", 5, lambda: replica(server)["state"] == "BACKOFF")
        assert 0 < replica(server)["restart_in_s"] <= 1
        assert server.status()["applications"]["fake"]["status"] == "UNHEALTHY"
        wait_for("it is back", 10, lambda: replica(server)["state"] == "RUNNING")
        assert replica(server)["restarts"] == 6


def test_a_stopped_worker_is_killed_and_replaced(tmp_path):
    with serve(tmp_path, fake(stall_timeout_s=2)) as server:
        old = server.children("worker")[0]
        os.kill(old.pid, signal.SIGSTOP)
        wait_for(
            "another worker is there",
            20,
            lambda: [c for c in server.children("worker") if c.pid != old.pid],
        )
        wait_for("requests are answered", 10, lambda: answers(server))
        assert "no heartbeat" in replica(server)["last_error"]


def test_children_drain_without_their_supervisor(tmp_path):
    server = serve(tmp_path, fake())
    text = server.file.read_text()
    server.file.write_text(text.replace("{", '{"orphan_timeout_s": 1,', 1))
    with server:
        left = server.children()
        server.process.kill()
        server.process.wait(5)
        assert server.get("/fake").status == 200, "they serve on"
        wait_for("all have left", 15, lambda: not [c for c in left if alive(c.pid)])


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_it_says_when_it_answers(tmp_path):
    server = serve(tmp_path, fake())
    process = subprocess.Popen(
        [str(a) for a in server.command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert server.get("/fake").status == 200
    finally:
        process.terminate()
        process.wait(30)
    assert line.startswith(f"salver: serving on http://127.0.0.1:{server.port} (state ")


def test_a_hung_plugin_is_replaced(tmp_path):
    app = application("fake", "fake_step", stall_timeout_s=1)
    with Server(tmp_path, [app]) as server:
        old = server.children("worker")[0]
        answer = server.get("/fake?do=step:hang&n=3")
        assert answer.status == 502
        wait_for("requests are answered", 10, lambda: answers(server))
        words = wait_for("last words are in status", 10, lambda: replica(server)["last_words"])
        assert words["pid"] == old.pid
        assert words["callback"] in ("step", "submit")
        assert words["backtrace"]
        assert "stall" in words["why"] or "sign of life" in words["why"]


def test_control_dies_while_ingresses_are_replaced(tmp_path):
    with serve(tmp_path, fake(), http={"num_ingress": 3}) as server:
        for _ in range(3):
            old = set(server.pids("ingress"))
            server.hangup()
            wait_for("one is new", 5, lambda: set(server.pids("ingress")) - old)
            kill_and_wait(server, "control")
            wait_for("none is left over", 10, lambda: len(server.pids("ingress")) == 3)
            wait_for(
                "all are well",
                10,
                lambda: (s := try_status(server))
                and [p["status"] for p in s["proxies"]] == ["HEALTHY"] * 3,
            )
            assert answers(server)
