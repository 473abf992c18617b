# SPDX-License-Identifier: Apache-2.0
"""What was deployed survives kills of control in the middle of changes, a full disk, damaged files;
and what runs goes on all the while (issue 6, point 7). SALVER_SEED repeats a run's moments."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest
from harness import Load, Server, application, figures, seed_of, size, wait_for

APPS = "/api/serve/applications/"
STEADY = application("steady", "fake_run", {"defaults": "n=1"}, num_replicas=2)
AT_ZERO = {"min_replicas": 0, "max_replicas": 1}  # accepted, inspected, and no process for it
KILLS = size(15, 500)
KILLS_A_LIFE = 5  # the supervisor starts a process at once so often, see core/supervise/restart.h
FILES = ("store.db", "store.db-wal", "store.db-mark")


# ---- scripted changes --------------------------------------------------------------------------


def state(i):
    """The applications after change i; each change in a round of four is of another kind."""
    count = i - 1 if i % 4 == 3 else i  # that one only deletes
    apps = [STEADY, application("count", "fake_run", {"live": f"count-{count}"})]
    if i % 4 in (1, 2):
        apps.append(application("odd", "fake_run"))
    for app in apps[1:]:
        app["deployments"][0]["autoscaling_config"] = AT_ZERO
    return {app["name"]: app for app in apps}


def change(server, i):
    """Makes change i: its status and what was answered."""
    if i % 4 == 3:
        return server.admin("DELETE", APPS + "odd", timeout=10)
    return server.admin("PUT", APPS, {"applications": list(state(i).values())}, timeout=10)


def deployed(server):
    """What control says was deployed; None: it is not there."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, details = server.admin("GET", APPS, timeout=10)
        assert status == 200, details
        return {name: app["deployed_app_config"] for name, app in details["applications"].items()}
    return None


def settled(server):
    """As deployed, without what is deleted and still leaves; when control is back."""
    return wait_for("control answers", 10, lambda: deployed(server), 0.002)


class Writer(threading.Thread):
    """Makes change after change, from `done` on, until control is killed under it."""

    def __init__(self, server, done):
        super().__init__()
        self.server, self.done = server, done
        self.wrong = None
        self.stop = False  # one that was between two changes meets the next control
        self.start()

    def run(self):
        while self.wrong is None and not self.stop:
            try:
                status, answer = change(self.server, self.done + 1)
            except (OSError, http.client.HTTPException):
                return  # killed: this change was made, or it was not
            if status == 200:
                self.done += 1
            elif status != 503 or "just started" not in str(answer):
                self.wrong = (self.done + 1, status, answer)


def kill(server, role="control"):
    """kill -9, and waits until it is gone: what answers afterwards is another."""
    pid = server.pids(role)[0]
    os.kill(pid, signal.SIGKILL)
    wait_for("it is gone", 5, lambda: pid not in server.pids(role), 0.001)


def kill_in_the_middle(server, done, dice):
    """One kill among changes. How many were acknowledged, and how many there are."""
    writer = Writer(server, done)
    if dice.random() < 0.8:  # else also while the control before it has just started
        wait_for(
            "changes are made", 10, lambda: writer.done > done + dice.randrange(4) or writer.wrong
        )
    time.sleep(dice.uniform(0, 0.02))
    kill(server)
    writer.stop = True
    writer.join(20)
    assert not writer.is_alive() and writer.wrong is None, writer.wrong
    found = settled(server)
    for i in (writer.done, writer.done + 1):
        if found == state(i):
            return writer.done, i
    raise AssertionError(f"{writer.done} changes acknowledged, and there is {found}")


def steady_load(server, folder):
    """Requests all the while, to what runs and is not changed."""
    return Load(server.port, "/steady/", connections=16, pause_us=1000, out=folder / "rows")


def without_file(server):
    """From now on the server starts with what it has in its store."""
    if server.file in server.command:
        server.command.remove(server.file)
        server.command += ["--port", server.port]


@pytest.mark.timeout(1800)
def test_killed_in_the_middle_of_changes(tmp_path):
    seed = seed_of(7)
    dice = random.Random(seed)
    server = Server(tmp_path, [STEADY])
    done = kills = ahead = requests = 0
    while kills < KILLS:
        with server, steady_load(server, tmp_path) as load:
            workers = sorted(server.pids("worker"))
            if kills > 0:  # a life of the server later
                assert settled(server) == state(done)
            for _ in range(KILLS_A_LIFE):
                acknowledged, now = kill_in_the_middle(server, done, dice)
                ahead += now - acknowledged
                done, kills = now, kills + 1
            load.stop()
            rows = load.rows()
            assert sorted(server.pids("worker")) == workers, "what runs was not touched"
        assert not [r for r in rows if r.status != 200]
        requests += len(rows)
        without_file(server)
    assert done > kills
    figures(
        "store_kills", kills=kills, changes=done, unacknowledged=ahead, requests=requests, failed=0
    )


# ---- no room -----------------------------------------------------------------------------------


def fill(folder):
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as f:
        while True:
            f.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path):
    """The state folder on a file system of 8 MiB."""
    folder = tmp_path / "state"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_changes_and_nothing_else(tmp_path, small_disk):
    with Server(tmp_path, [STEADY]) as server:
        workers = sorted(server.pids("worker"))
        for i in (1, 2, 3):
            assert change(server, i)[0] == 200
        with steady_load(server, tmp_path) as load:
            fill(small_disk)
            for _ in range(3):
                i, refused = 4, None
                while refused is None:  # the log has a little room of its own
                    status, answer = change(server, i)
                    i, refused = (i + 1, None) if status == 200 else (i, (status, answer))
                assert refused[0] == 507, refused
                assert "no room" in refused[1]["error"]["message"]
                assert "store.db" in refused[1]["error"]["message"]
                assert settled(server) == state(i - 1)
                kill(server)
                assert settled(server) == state(i - 1)
                assert change(server, i)[0] in (503, 507)
            (small_disk / "filler").unlink()
            assert wait_for("changes are taken", 10, lambda: change(server, i)[0] == 200)
            kill(server)
            assert settled(server) == state(i)
            load.stop()
            rows = load.rows()
        assert not [r for r in rows if r.status != 200]
        assert sorted(server.pids("worker")) == workers


# ---- damage ------------------------------------------------------------------------------------


def flip(*paths):
    """Every byte of a text that was deployed turns into another."""
    found = [path for path in paths if b"count-" in path.read_bytes()]
    assert found
    for path in found:
        path.write_bytes(path.read_bytes().replace(b"count-", b"coumt-"))


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def remove(path):
    path.unlink()


DAMAGE = {
    "flipped": (flip, "store.db", "store.db-wal"),  # a page may be in both: the log's counts then
    "flipped log": (flip, "store.db-wal"),
    "cut": (cut, "store.db"),
    "cut log": (cut, "store.db-wal"),
    "no database": (remove, "store.db"),
    "no log": (remove, "store.db-wal"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_refused_and_what_runs_goes_on(tmp_path, how):
    damage, *damaged = DAMAGE[how]
    server = Server(tmp_path, [STEADY])
    with server:
        assert change(server, 2)[0] == 200
    without_file(server)  # a stop has written the log back
    with server:
        workers, last = sorted(server.pids("worker")), 2
        if "log" in how:
            assert change(server, 4)[0] == 200
            last = 4
        copy = tmp_path / "copy"
        copy.mkdir()
        os.kill(server.pids("control")[0], signal.SIGSTOP)  # nobody writes while it is copied
        for name in FILES:
            shutil.copy(server.state / name, copy)
        with steady_load(server, tmp_path) as load:
            damage(*[server.state / name for name in damaged])
            kill(server)
            for _ in range(2):
                refused = wait_for("control answers", 10, lambda: refusal(server))
                assert refused[0] == 503, refused
                assert "nothing can be changed" in refused[1]
                assert "store.db" in refused[1] and "Put back a copy" in refused[1]
                kill(server)
            time.sleep(0.5)
            kept = {name: (copy / name).read_bytes() for name in FILES}
            for name, data in kept.items():
                (server.state / name).write_bytes(data)
            kill(server)
            assert wait_for("it can be read", 10, lambda: deployed(server)) == state(last)
            assert wait_for("changes are taken", 10, lambda: change(server, 5)[0] == 200)
            assert settled(server) == state(5)
            load.stop()
            rows = load.rows()
        assert not [r for r in rows if r.status != 200]
        assert sorted(server.pids("worker")) == workers


def test_a_server_starts_on_a_damaged_file_and_says_so(tmp_path):
    server = Server(tmp_path, [STEADY])
    with server:
        assert change(server, 2)[0] == 200
    without_file(server)
    server.ready = {"steady": None}  # nothing is going to answer
    files = [server.state / name for name in FILES]
    kept = {path: path.read_bytes() for path in files if path.exists()}
    flip(*list(kept)[:-1])
    damaged = {path: path.read_bytes() for path in kept}
    with server:
        status, message = wait_for("control answers", 10, lambda: refusal(server))
        assert status == 503 and f"{files[0]}' is damaged" in message, message
        assert f"'{files[0]}' is damaged" in server.log()
    assert damaged == {path: path.read_bytes() for path in kept}, "it is left alone"
    for path, data in kept.items():
        path.write_bytes(data)
    server.ready = {}
    with server:
        assert settled(server) == state(2)


def refusal(server):
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, answer = change(server, 6)
        return None if "just started" in str(answer) else (status, str(answer))
    return None
