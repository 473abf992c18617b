# SPDX-License-Identifier: Apache-2.0
"""What runs out: descriptors, memory, patience, files. The server serves whom it can."""

import os
import resource
import shutil
import signal
import socket
import time

import pytest
from clients import Raw, WebSocket
from harness import (
    SANITIZED,
    TEST_PLUGINS,
    application,
    figures,
    pss_bytes,
    rss_bytes,
    size,
    wait_for,
)

IDLE_BYTES = 4096  # of an ingress for one idle connection
FLOOD_BYTES = 64 << 20  # a flood that is not stopped here is not stopped at all


def answers(s, path):
    try:
        return s.get(path, timeout=2).status == 200
    except (OSError, ValueError):
        return False


def kill_worker(s, app):
    [old] = [c for c in s.children("worker") if c.name.startswith(app + "/")]
    os.kill(old.pid, signal.SIGKILL)
    return old


# ---- memory


def idle_connections(s, n):
    held = []
    for _ in range(n):
        c = socket.create_connection(("127.0.0.1", s.port))
        c.sendall(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n")
        held.append(c)
        if len(held) % 100 == 0:
            for c in held[-100:]:
                c.recv(4096)
    return held


def test_memory_of_idle_connections(server):
    n = size(2000, 10000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < n + 100:
        pytest.skip(f"at most {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n + 100), hard))
    s = server([application("a", "fake_step")], http={"max_connections": 20000})
    for c in idle_connections(s, 200):  # what only the first ones need
        c.close()
    before = sum(pss_bytes(p) for p in s.pids("ingress"))
    held = idle_connections(s, n)
    each = (sum(pss_bytes(p) for p in s.pids("ingress")) - before) / n
    assert s.get("/a/").status == 200
    for c in held:
        c.close()
    figures("idle_connections", n=n, bytes_each=round(each))
    assert SANITIZED or each <= IDLE_BYTES, f"{each} bytes each"


@pytest.mark.parametrize("size_of", [0, 1, 100])
def test_flood_of_small_messages(server, size_of):
    s = server([application("a", "fake_step", graceful_shutdown_timeout_s=1)])
    [worker], ingresses = s.pids("worker"), s.pids("ingress")
    before = rss_bytes(worker)
    frames = (bytes([0x82, 0x80 | size_of, 1, 2, 3, 4]) + b"x" * size_of) * 5000
    with WebSocket(s.port, "/a/?ws=sink&input_ms=50", timeout=2) as c:
        sent = 0
        with pytest.raises(socket.timeout):  # the server takes no more
            while sent < FLOOD_BYTES:
                sent += c.socket.send(frames)
        assert SANITIZED or rss_bytes(worker) - before < 16 << 20
        assert s.get("/a/", timeout=5).status == 200  # others have their turn
    assert set(s.pids("ingress")) == set(ingresses)


# ---- patience


def test_trickling_headers(server):
    s = server([application("a", "fake_step")], http={"header_timeout_s": 1})
    slow = [Raw(s.port) for _ in range(50)]
    begun = time.monotonic()
    open_ones = list(slow)
    while open_ones and time.monotonic() - begun < 8:
        for c in list(open_ones):
            try:
                c.send("G" if c is slow[0] else "x")
            except OSError:
                open_ones.remove(c)
        assert s.get("/a/").status == 200
        time.sleep(0.1)
    assert not open_ones
    for c in slow:
        c.close()


def test_trickling_reader(server):
    s = server([application("a", "fake_step")], http={"write_timeout_s": 4})
    with Raw(s.port, rcvbuf=2048) as c:
        c.ask("/a/?bytes=3000000")
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < 20:
                if not c.socket.recv(100):
                    raise ConnectionError("closed")
                time.sleep(0.2)
    assert s.metrics().sum("salver_requests_total", outcome="slow_reader") == 1


# ---- descriptors


def test_out_of_descriptors(server):
    s = server([application("a", "fake_step")], prefix=["prlimit", "--nofile=128:128"])
    held = [Raw(s.port, timeout=3) for _ in range(len(s.pids("ingress")) * 200)]
    statuses = []
    for c in held:
        try:
            statuses.append(c.get("/version").status)
        except (OSError, ValueError):
            statuses.append(None)
    assert statuses.count(200) > 50 and statuses.count(200) < len(held), statuses
    old = kill_worker(s, "a")
    wait_for("the worker is back", 10, lambda: old.pid not in s.pids("worker") and s.pids("worker"))
    alive = next(c for c, status in zip(held, statuses) if status == 200)
    assert alive.get("/a/").status == 200  # over a link that was made while all were taken
    for c in held:
        c.close()
    wait_for("new ones are taken", 10, lambda: answers(s, "/a/"))


# ---- files


def test_a_plugin_that_is_gone(server, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in ("fake_step.so", "fake_run.so"):
        shutil.copy(TEST_PLUGINS / name, plugins / name)
    s = server([application("a", "fake_step"), application("b", "fake_run")], plugins=plugins)
    shutil.rmtree(plugins)
    kill_worker(s, "a")
    wait_for("its copy serves", 10, lambda: answers(s, "/a/"))
    shutil.rmtree(s.state / "plugins")
    kill_worker(s, "a")
    said = lambda: s.log().rsplit("was ended by", 1)[1]  # noqa: E731
    wait_for("the replica says why", 15, lambda: "fake_step" in said())
    assert s.get("/b/").status == 200
    assert not answers(s, "/a/")
    replica = s.status()["applications"]["a"]["deployments"]["a"]["replicas"][0]
    assert "fake_step" in str(replica), replica


def test_a_state_folder_that_is_gone(server):
    s = server([application("a", "fake_step")])
    shutil.rmtree(s.state)
    assert s.get("/a/").status == 200
    for role in ("ingress", "control"):
        os.kill(s.pids(role)[0], signal.SIGKILL)
        wait_for(f"served without {role}'s files", 10, lambda: answers(s, "/a/"))
