# SPDX-License-Identifier: Apache-2.0
"""The supervisor is killed: its children serve on, and the next one on the same state folder takes
them over. Nobody who sends requests notices any of it."""

import contextlib
import ctypes
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import (
    Child,
    Load,
    Server,
    application,
    figures,
    free_port,
    request,
    seed_of,
    size,
    socket_inodes,
    wait_for,
)

WITHIN_S = 10
PR_SET_CHILD_SUBREAPER = 36


def fake(**deployment):
    return application("fake", "fake_run", **deployment)


class Family(Server):
    """A server of which nobody is left over, whatever became of a test."""

    def __exit__(self, *_):
        super().__exit__(*_)
        for c in kin(self):
            with contextlib.suppress(ProcessLookupError):
                os.kill(c.pid, signal.SIGKILL)


def serve(tmp_path, *applications, http=None, orphan_timeout_s=None):
    server = Family(tmp_path, list(applications), http=http)
    if orphan_timeout_s:
        text = server.file.read_text()
        server.file.write_text(text.replace("{", f'{{"orphan_timeout_s": {orphan_timeout_s},', 1))
    return server


def kin(server, role=None):
    """Ingresses and workers, whoever started them: <state>/children.lock is their descriptor 8."""
    lock, found = str(server.state / "children.lock"), []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if not entry.isdigit() or os.readlink(f"/proc/{entry}/fd/8") != lock:
                continue
            argv = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            child = Child(int(entry), argv[1].decode(), argv[2].decode())
            if role in (None, child.role):
                found.append(child)
    return sorted(found, key=lambda c: c.name)


def pids(server, role=None):
    return {c.pid for c in kin(server, role)}


def kill_supervisor(server):
    server.process.kill()
    server.process.wait(5)


def start_again(server, command=None):
    with open(server.log_path, "ab") as log:
        server.process = subprocess.Popen(
            [str(a) for a in command or server.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def status(server):
    with contextlib.suppress(Exception):  # control is not there yet
        return server.status()
    return None


def is_running(server, replicas=1):
    s = status(server)
    if not s or s["applications"]["fake"]["status"] != "RUNNING":
        return None
    all_of_them = s["applications"]["fake"]["deployments"]["fake"]["replicas"]
    ready = [r for r in all_of_them if r["state"] == "RUNNING"]
    healthy = all(p["status"] == "HEALTHY" for p in s["proxies"])
    return s if len(ready) == len(all_of_them) == replicas and healthy else None


def adopted(server, replicas=1):
    return wait_for("all is well again", WITHIN_S, lambda: is_running(server, replicas))


def gone(server):
    return not pids(server)


def scrape(server):
    with contextlib.suppress(OSError):  # an ingress that dies takes its connections with it
        return server.get("/metrics", timeout=5).body.decode()
    return None


def counters(server):
    """Every sample of /metrics that only grows."""
    text = wait_for("metrics", 5, lambda: scrape(server))
    kinds, found = {}, {}
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# TYPE"):
            kinds[words[2]] = words[3]
        elif line and not line.startswith("#"):
            name = words[0].split("{")[0]
            base = name
            for end in ("_bucket", "_sum", "_count"):
                base = base.removesuffix(end) if kinds.get(base) is None else base
            if kinds.get(base) in ("counter", "histogram"):
                found[line.rsplit(" ", 1)[0]] = float(words[-1])
    return found


def check_grown(before, after):
    lost = {k: (v, after.get(k)) for k, v in before.items() if after.get(k, -1) < v}
    assert not lost, f"counters went back: {lost}"


class Dialer:
    """Requests one after the other, each on a connection of its own."""

    def __init__(self, port, path="/fake"):
        self.port, self.path, self.answered, self.failed = port, path, 0, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.over.is_set():
            try:
                status_ = request(self.port, self.path, timeout=10).status
                self.answered += 1
                if status_ != 200:
                    self.failed.append(status_)
            except OSError as e:
                self.failed.append(repr(e))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def restarts(server):
    all_of_them = status(server)["applications"]["fake"]["deployments"]["fake"]["replicas"]
    return sorted(r["restarts"] for r in all_of_them)


def test_nobody_notices_a_new_supervisor(tmp_path):
    with serve(tmp_path, fake(num_replicas=3), http={"num_ingress": 2}) as server:
        before = kin(server)
        assert len(before) == 5
        os.kill(kin(server, "worker")[-1].pid, signal.SIGKILL)  # so that a generation is not 0
        wait_for("it is back", 5, lambda: restarts(server) == [0, 0, 1] and is_running(server, 3))
        before = kin(server)
        held = descriptors(before)
        path = "/fake?sleep_ms=5"
        load = Load(server.port, path, connections=16, seconds=60, out=tmp_path / "load")
        with load, Dialer(server.port, path) as dialer:
            time.sleep(0.5)
            for _ in range(2):  # twice in a row
                start = time.monotonic()
                kill_supervisor(server)
                start_again(server)
                now = adopted(server, 3)
                figures("adopt", seconds=round(time.monotonic() - start, 3))
                assert kin(server) == before, "the same processes"
                assert {p["pid"] for p in now["proxies"]} == pids(server, "ingress")
                assert restarts(server) == [0, 0, 1]
            time.sleep(0.5)
            load.stop()
            rows = load.rows()
        assert [r for r in rows if r.status != 200] == []
        assert dialer.failed == []
        assert len(rows) > 200 and dialer.answered > 20
        wait_for("they hold what they held", 10, lambda: descriptors(before) == held)


def descriptors(children_):
    """How many sockets each holds: its links are neither lost nor doubled."""
    return [len(socket_inodes(c.pid)) for c in children_]


@pytest.mark.parametrize("role", ["ingress", "worker"])
def test_an_adopted_process_that_dies_is_replaced(tmp_path, role):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        kill_supervisor(server)
        start_again(server)
        adopted(server, 2)
        for _ in range(2):  # the adopted one, then its successor
            old = kin(server, role)[0]
            others = pids(server) - {old.pid}
            os.kill(old.pid, signal.SIGKILL)
            new = wait_for(
                f"another {old.name}",
                WITHIN_S,
                lambda old=old: [
                    c for c in kin(server, role) if c.name == old.name and c.pid != old.pid
                ],
            )
            assert len(new) == 1
            wait_for("requests are answered", WITHIN_S, lambda: answers(server))
            adopted(server, 2)
            assert others <= pids(server), "nobody else was touched"
        if role == "worker":
            assert restarts(server) == [0, 2], "generations go on"


def state_of(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0]
    return "Z"


def states_of(pid):
    """Of its threads."""
    return {state_of(f"{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")}


def alive(pid):
    return state_of(pid) != "Z"


def test_an_adopted_worker_is_started_again_without_control(tmp_path):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        kill_supervisor(server)
        start_again(server)
        adopted(server, 2)
        control = server.children("control")[0].pid
        os.kill(control, signal.SIGSTOP)
        old = kin(server, "worker")[0]
        os.kill(old.pid, signal.SIGKILL)
        wait_for(
            "it is back",
            5,
            lambda: [c for c in kin(server) if c.name == old.name and c.pid != old.pid],
        )
        os.kill(control, signal.SIGCONT)
        adopted(server, 2)
        assert restarts(server) == [0, 1]


def answers(server, path="/fake"):
    with contextlib.suppress(OSError):
        return server.get(path, timeout=5).status == 200
    return False


def test_the_adopted_are_no_orphans_any_more(tmp_path):
    with serve(tmp_path, fake(), orphan_timeout_s=1) as server:
        before = kin(server)
        for _ in range(2):
            kill_supervisor(server)
            start_again(server)
            adopted(server)
        time.sleep(2)
        assert kin(server) == before
        assert answers(server)


def test_last_words_of_an_adopted_worker(tmp_path):
    """What it was doing is in its page, what it had printed in the pipe that was handed over."""
    with serve(tmp_path, fake()) as server:
        kill_supervisor(server)
        server.log_path = tmp_path / "second.log"  # the adopted ones log there from now on
        start_again(server)
        adopted(server)
        pid = kin(server, "worker")[0].pid
        assert server.get("/fake?do=print=lastwords,segv").status == 502
        words = wait_for("last words", 10, lambda: last_words(server))
        assert words["pid"] == pid
        assert words["signal"] == signal.SIGSEGV
        assert words["callback"] == "run"
        assert any("lastwords" in line for line in words["log"])
        assert re.search(r"fake/fake/0 \(pid %d, generation 0\) died: signal 11" % pid, server.log())
        server.process.terminate()
        assert server.process.wait(15) == 0
        assert re.search(r"ingress ingress/0\[\d+\] draining", server.log())


def last_words(server):
    s = status(server)
    return s and s["applications"]["fake"]["deployments"]["fake"]["replicas"][0]["last_words"]


def test_strangers_are_turned_away(tmp_path):
    """Only who holds children.lock is a child; and nobody else may even try."""
    with serve(tmp_path, fake(num_replicas=2)) as server:
        kill_supervisor(server)
        stuck = kin(server, "worker")[0].pid
        os.kill(stuck, signal.SIGSTOP)  # so that the socket is there for a while
        start_again(server)
        path = server.state / "supervisor.sock"
        wait_for("the socket", 5, path.exists)
        assert path.stat().st_mode & 0o777 == 0o600
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(3)
                s.connect(str(path))
                assert s.recv(1) == b"", "closed without a word"
        os.kill(stuck, signal.SIGCONT)
        adopted(server, 2)
        assert stuck in pids(server)


def test_a_stop_leaves_nothing_behind(tmp_path):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        kill_supervisor(server)
        start_again(server)
        adopted(server, 2)
        server.process.terminate()
        assert server.process.wait(15) == 0
        assert gone(server)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), 1)
        assert not (server.state / "supervisor.sock").exists()
        start_again(server)  # nobody is waited for on a clean start
        start = time.monotonic()
        wait_for("requests are answered", WITHIN_S, lambda: answers(server))
        assert time.monotonic() - start < 4  # of ADOPT_WAIT_MS 5000
        assert "taking them over" not in server.log().split("stopped")[-1]


def test_a_stop_at_once_stops_the_adopted_too(tmp_path):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        kill_supervisor(server)
        start_again(server)
        wait_for("it runs", 5, lambda: "taking them over" in server.log())
        server.process.terminate()
        assert server.process.wait(15) == 0
        assert gone(server)


def test_counters_never_go_back(tmp_path):
    with serve(tmp_path, fake(num_replicas=2), http={"num_ingress": 2}) as server:
        for _ in range(200):
            assert server.get("/fake").status == 200
        os.kill(kin(server, "worker")[0].pid, signal.SIGKILL)  # its numbers are folded
        adopted_at = time.monotonic()
        adopted(server, 2)
        time.sleep(max(0, 3.5 - (time.monotonic() - adopted_at)))
        before = counters(server)
        assert before['salver_restarts_total{process="fake/fake/0"}'] == 1
        kill_supervisor(server)
        os.kill(kin(server, "worker")[1].pid, signal.SIGKILL)  # nobody sees this one's end
        os.kill(kin(server, "ingress")[1].pid, signal.SIGKILL)  # its own are lost with it
        check_grown(others(before), counters(server))
        start_again(server)
        adopted(server, 2)
        for _ in range(40):  # control folds the dead one's page; both ingresses are asked
            time.sleep(0.1)
            check_grown(others(before), counters(server))
        assert wait_for("it was buried", 5, lambda: "ended unseen" in server.log())
        assert len(kin(server, "ingress")) == 2


def test_a_new_ingress_knows_the_numbers_of_the_dead(tmp_path):
    """Also while control, which would fold them, says nothing."""
    with serve(tmp_path, fake(num_replicas=2), http={"num_ingress": 2}) as server:
        for _ in range(200):
            assert server.get("/fake").status == 200
        before = counters(server)
        control = server.children("control")[0].pid
        os.kill(control, signal.SIGSTOP)
        for role in ("worker", "ingress"):
            old = kin(server, role)[0]
            os.kill(old.pid, signal.SIGKILL)
            wait_for("another", 5, lambda old=old: old.pid not in pids(server) and len(kin(server)) == 4)
        for _ in range(60):
            check_grown(before, counters(server))
        os.kill(control, signal.SIGCONT)
        for _ in range(40):
            time.sleep(0.1)
            check_grown(before, counters(server))


def test_a_full_table_of_descriptors_hides_no_listener(tmp_path):
    """What it listens on is said when there is room again, so no socket is opened beside it that
    nobody would accept from."""
    with serve(tmp_path, fake(), http={"num_ingress": 2}) as server:
        before = kin(server)
        kill_supervisor(server)
        pid = kin(server, "ingress")[1].pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(n) for n in os.listdir(f"/proc/{pid}/fd")}
        assert 3 not in used  # for the socket; then one more, for its page
        free = next(n for n in range(10, 10 + len(used) + 1) if n not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + 1, hard))
        start_again(server)
        time.sleep(1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        adopted(server)
        assert kin(server) == before
        for _ in range(60):
            assert server.get("/fake", timeout=5).status == 200


def test_who_dies_while_it_is_awaited_is_counted(tmp_path):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        for _ in range(100):
            assert server.get("/fake").status == 200
        before = counters(server)
        victim = kin(server, "worker")[0]
        kill_supervisor(server)
        os.kill(victim.pid, signal.SIGSTOP)
        start_again(server)
        wait_for("it runs", 5, lambda: "taking them over" in server.log())
        time.sleep(0.5)  # the others have come, and have said whose pages they have
        os.kill(victim.pid, signal.SIGKILL)
        adopted(server, 2)
        assert wait_for("it was buried", 5, lambda: f"(pid {victim.pid}, gen" in server.log())
        for _ in range(20):
            time.sleep(0.1)
            check_grown(others(before), counters(server))


def others(samples):
    """Without what only the killed ingress had counted: requests by the ingress that took them."""
    return {k: v for k, v in samples.items() if "salver_batch" in k or "salver_restarts" in k}


def test_supervisor_killed_while_a_worker_loads(tmp_path):
    app = fake(config={"do": "load:sleep=3000"})
    server = serve(tmp_path, app)
    server.ready = {"fake": None}
    with server:
        worker = wait_for("a worker", WITHIN_S, lambda: kin(server, "worker"))[0]
        kill_supervisor(server)
        start_again(server)
        wait_for("requests are answered", 15, lambda: answers(server))
        assert [c.pid for c in kin(server, "worker")] == [worker.pid]
        adopted(server)


def test_nobody_comes(tmp_path):
    with serve(tmp_path, fake(num_replicas=2), orphan_timeout_s=1) as server:
        kill_supervisor(server)
        assert answers(server), "they serve on"
        wait_for("all have left", 15, lambda: gone(server))


def test_another_port(tmp_path):
    with serve(tmp_path, fake(num_replicas=2), http={"num_ingress": 2}) as server:
        workers, ingresses, old_port = pids(server, "worker"), pids(server, "ingress"), server.port
        kill_supervisor(server)
        server.port = free_port()
        text = server.file.read_text()
        server.file.write_text(text.replace(str(old_port), str(server.port)))
        start_again(server)
        wait_for("requests are answered there", WITHIN_S, lambda: answers(server))
        adopted(server, 2)
        assert pids(server, "worker") == workers
        wait_for("the old ones leave", WITHIN_S, lambda: not pids(server, "ingress") & ingresses)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", old_port), 1)
        assert len(pids(server, "ingress")) == 2


def test_fewer_and_more_ingresses(tmp_path):
    with serve(tmp_path, fake(), http={"num_ingress": 2}) as server:
        for n in (1, 3):
            before = kin(server, "ingress")
            kill_supervisor(server)
            conf = json.loads(server.file.read_text())
            conf["http_options"]["num_ingress"] = n
            server.file.write_text(json.dumps(conf))
            start_again(server)
            wait_for(f"{n} ingresses", WITHIN_S, lambda n=n: len(kin(server, "ingress")) == n)
            assert answers(server)
            assert kin(server, "ingress")[0] == before[0], "the first one stays"
            adopted(server)


def test_a_dead_ingress_is_not_waited_for(tmp_path):
    with serve(tmp_path, fake()) as server:
        worker = pids(server, "worker")
        kill_supervisor(server)
        os.kill(kin(server, "ingress")[0].pid, signal.SIGKILL)
        start = time.monotonic()
        start_again(server)
        wait_for("requests are answered", WITHIN_S, lambda: answers(server))
        assert time.monotonic() - start < 4  # of ADOPT_WAIT_MS 5000
        assert pids(server, "worker") == worker


def test_a_stopped_orphan_is_killed(tmp_path):
    """It would hold its listener, and nobody would ever watch it."""
    with serve(tmp_path, fake(num_replicas=2), http={"num_ingress": 2}) as server:
        kill_supervisor(server)
        stuck = [kin(server, "worker")[0], kin(server, "ingress")[0]]
        others_ = pids(server) - {c.pid for c in stuck}
        for c in stuck:
            os.kill(c.pid, signal.SIGSTOP)
        start_again(server)
        wait_for("they are gone", 20, lambda: not pids(server) & {c.pid for c in stuck})
        wait_for("they are replaced", 10, lambda: len(pids(server)) == 4)
        assert others_ <= pids(server)
        adopted(server, 2)
        for _ in range(50):
            assert answers(server)


@contextlib.contextmanager
def parent_of_orphans():
    """As an init that is in our session: else the kernel ends who is stopped with its parent (a
    process group that becomes an orphan gets SIGHUP and SIGCONT; setpgid(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_a_stopped_control_is_killed(tmp_path):
    """There are never two at one store, and none is left over."""
    with parent_of_orphans(), serve(tmp_path, fake()) as server:
        control = server.children("control")[0].pid
        os.kill(control, signal.SIGSTOP)
        before = kin(server)
        kill_supervisor(server)
        time.sleep(0.5)
        assert alive(control)
        start_again(server)
        wait_for("all is well again", 4, lambda: is_running(server))  # it is not waited for
        assert not alive(control)
        assert kin(server) == before
        reap()


def reap():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def test_killed_at_any_moment(tmp_path):
    """The supervisor, and somebody else, again and again, also while it takes over."""
    dice = random.Random(seed_of(7))
    with serve(tmp_path, fake(num_replicas=3), http={"num_ingress": 2}) as server:
        for _ in range(size(12, 200)):
            time.sleep(dice.random() * dice.choice((0.03, 0.3)))
            victims = dice.sample(kin(server), 1) if dice.random() < 0.5 and kin(server) else []
            for c in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(c.pid, dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))
            kill_supervisor(server)
            start_again(server)
        wait_for("all is well", 60, lambda: is_running(server, 3))
        wait_for("nobody is there twice", 20, lambda: len({c.name for c in kin(server)}) == 5)
        assert len(kin(server)) == 5
        for _ in range(100):
            assert server.get("/fake").status == 200
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert gone(server)
        everybody = [c for c in os.listdir("/proc") if c.isdigit() and holds(c, server)]
        assert not everybody, "nobody holds children.lock any more"


def holds(pid, server):
    lock = str(server.state / "children.lock")
    with contextlib.suppress(OSError):
        return any(os.readlink(f"/proc/{pid}/fd/{n}") == lock for n in (8, 9))
    return False


def test_who_is_stopped_with_its_supervisor_goes_on(tmp_path):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        before = kin(server)
        for c in before:
            os.kill(c.pid, signal.SIGSTOP)
        # To the last thread: the kernel wakes no orphan that is still about to stop.
        wait_for("all are stopped", 5, lambda: {s for c in before for s in states_of(c.pid)} == {"T"})
        kill_supervisor(server)
        assert answers(server)
        start_again(server)
        adopted(server, 2)
        assert kin(server) == before


def test_a_second_server_is_refused_all_the_while(tmp_path):
    with serve(tmp_path, fake()) as server:
        kill_supervisor(server)
        start_again(server)
        wait_for("it runs", 5, lambda: "taking them over" in server.log())
        second = subprocess.run(
            [str(a) for a in server.command], capture_output=True, text=True, timeout=10
        )
        assert second.returncode == 1
        assert "runs on the state folder" in second.stderr
        adopted(server)


def without_file(server):
    command = list(server.command)
    command.remove(server.file)
    return command


def test_a_stopped_control_does_not_hide_where_to_listen(tmp_path):
    """It has the store, which alone says so when no FILE is given."""
    with serve(tmp_path, fake(), http={"num_ingress": 2}) as server:
        before = kin(server)
        os.kill(server.children("control")[0].pid, signal.SIGSTOP)
        kill_supervisor(server)
        start_again(server, without_file(server))
        adopted(server)
        assert kin(server) == before


def test_who_does_not_know_where_to_listen_takes_nobody_over(tmp_path):
    with serve(tmp_path, fake(), http={"num_ingress": 2}) as server:
        before = kin(server)
        kill_supervisor(server)
        (server.state / "store.db").rename(tmp_path / "kept")
        (server.state / "store.db").write_bytes(b"no database" * 1000)
        command = [str(a) for a in without_file(server)]
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert out.returncode == 1 and "or give FILE" in out.stderr, out
        assert answers(server)
        (tmp_path / "kept").rename(server.state / "store.db")
        start_again(server, command)
        adopted(server)
        assert kin(server) == before


def test_a_supervisor_that_cannot_listen_loses_nobody(tmp_path):
    with serve(tmp_path, fake()) as server:
        before = kin(server)
        kill_supervisor(server)
        # Nobody has that address (RFC 5737).
        bad = [*server.command, "--host", "192.0.2.1", "--allow-unauthenticated"]
        out = subprocess.run([str(a) for a in bad], capture_output=True, text=True, timeout=20)
        assert out.returncode == 1, out.stderr
        start_again(server)
        adopted(server)
        assert pids(server, "worker") == {c.pid for c in before if c.role == "worker"}
        assert answers(server)
