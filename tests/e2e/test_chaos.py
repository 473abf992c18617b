# SPDX-License-Identifier: Apache-2.0
"""All kinds of clients at once, while processes are killed, stopped and replaced at random.

Nobody is left without an outcome, nobody gets what another asked for, and when it is over the
server is as it was: all replicas run, nothing is in flight, no descriptor is left over, and the
metrics know of every answer that a client saw. SALVER_SEED repeats a run's kills, SALVER_CHAOS_S
says how long it lasts.
"""

import collections
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from clients import Raw, WebSocket
from harness import application, fd_count, figures, seed_of, size, wait_for

SECONDS = int(os.environ.get("SALVER_CHAOS_S", size(6, 120)))
CLIENTS = 12  # of each kind of traffic there are 1 to 3 threads
DEADLINE_S = 15  # for the client's next byte; the server's own is request_timeout_s
REQUEST_TIMEOUT_S = 8
KILLS_A_MINUTE = 4  # of one name; more would wait for the back-off
APPS = ("run", "step", "up")
PIDFD_GETFD = 438  # the system call
MALFORMED = [
    b"GET /run HTTP/1.1\r\n\r\n",
    b"GET /run HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"POST /run HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    b"POST /up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /run HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40000 + b"\r\n\r\n",
]


class Traffic:
    """What every client saw. `answered`: whole answers of an application; `unsure`: requests whose
    end the client did not see, so the server may have counted them or not."""

    def __init__(self, port, seed):
        self.port, self.seed = port, seed
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.seen = collections.Counter()
        self.answered = self.unsure = 0
        self.wrong = []
        kinds = [plain, large, events, websocket, chunked, pipelined, abort, malformed]
        self.threads = [
            threading.Thread(target=self.work, args=(kinds[i % len(kinds)], i))
            for i in range(CLIENTS)
        ]
        for t in self.threads:
            t.start()

    def saw(self, kind, what, answered=0, unsure=0):
        with self.lock:
            self.seen[f"{kind} {what}"] += 1
            self.answered += answered
            self.unsure += unsure

    def work(self, kind, index):
        dice = random.Random(self.seed * 1000 + index)
        turn = 0
        while not self.stop.is_set():
            turn += 1
            mine = f"{index}-{turn}-{dice.randrange(1 << 30)}"
            most = 3 if kind is pipelined else 1
            try:
                kind(self, dice, mine)
            except (ConnectionError, ValueError, TypeError, IndexError, struct.error):
                self.saw(kind.__name__, "cut", unsure=most)  # or within a line or a frame's head
            except (socket.timeout, TimeoutError):
                self.wrong.append(f"{kind.__name__} {mine}: no outcome in {DEADLINE_S} s")
                self.saw(kind.__name__, "hang", unsure=most)
            except AssertionError as e:
                self.wrong.append(f"{kind.__name__} {mine}: {e}")

    def raw(self):
        return Raw(self.port, timeout=DEADLINE_S)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(DEADLINE_S * 4)
            assert not t.is_alive(), "a client hangs"


def is_error(answer):
    """Errors that a client may see while processes die. True: it is one."""
    if answer.status < 400:
        return False
    error = json.loads(answer.body)["error"]
    assert answer.status in (429, 500, 502, 503, 504), answer
    assert error["code"] == answer.status
    return True


def check_echo(t, kind, answer, mine, body):
    assert answer.headers["x-request-id"] == mine, f"{answer.headers} for {mine}"
    if is_error(answer):
        t.saw(kind, answer.status, answered=1)
        return
    assert answer.body == body, f"{len(answer.body)} bytes, not the {len(body)} of {mine}"
    t.saw(kind, 200, answered=1)


def plain(t, dice, mine):
    app = dice.choice(["run", "step"])
    with t.raw() as c:
        for i in range(dice.randrange(1, 5)):
            name = f"{mine}.{i}"
            path = f"/{app}/?echo=1&sleep_ms={dice.choice([0, 0, 5, 50])}"
            try:
                answer = c.get(path, "POST", name.encode(), [f"x-request-id: {name}"])
            except ConnectionError:
                t.saw("plain", "cut", unsure=1)
                return
            check_echo(t, "plain", answer, name, name.encode())
            if answer.headers.get("connection") == "close":
                return


def large(t, dice, mine):
    body = (mine + ".").encode() * (dice.randrange(1, 600000) // len(mine))
    with t.raw() as c:
        answer = c.get("/step/?echo=1", "POST", body, [f"x-request-id: {mine}"])
        check_echo(t, "large", answer, mine, body)


def events(t, dice, mine):
    n = dice.randrange(1, 12)
    with t.raw() as c:
        c.ask(f"/step/?n={n}&interval_ms={dice.choice([1, 20])}", headers=[f"x-request-id: {mine}"])
        status, headers = c.head()
        assert headers["x-request-id"] == mine
        if status != 200:
            assert status in (429, 500, 502, 503, 504), status
            c.file.read(int(headers["content-length"]))
            t.saw("events", status, answered=1)
            return
        pids, at = set(), 0
        for text in c.events():
            event = json.loads(text)
            if "error" in event:
                t.saw("events", "error event", answered=1)
                return
            assert event["i"] == at, f"event {event['i']} in the place of {at}"
            at += 1
            pids.add(event["pid"])
        assert at == n and len(pids) == 1, f"{at} of {n} events from {pids}"
        t.saw("events", 200, answered=1)


def websocket(t, dice, mine):
    with WebSocket(t.port, "/step/?ws=echo", DEADLINE_S) as c:
        if c.status != 101:
            t.saw("websocket", c.status, answered=1)
            return
        for i in range(dice.randrange(1, 6)):
            text = f"{mine}.{i}".encode() * dice.choice([1, 1, 2000])
            c.send_frame(c.TEXT, text)
            opcode, got = c.message()
            if opcode == c.CLOSE:
                t.saw("websocket", "closed", answered=1)
                return
            assert got == text, f"{got[:80]} for {text[:80]}"
        c.send_close()
        while (got := c.frame()) is not None and got[0] != c.CLOSE:
            pass
        t.saw("websocket", 101, answered=1)


def chunked(t, dice, mine):
    with t.raw() as c:
        total = 0
        c.send(f"POST /up/ HTTP/1.1\r\nhost: a\r\nx-request-id: {mine}\r\n")
        c.send("transfer-encoding: chunked\r\n\r\n")
        for _ in range(dice.randrange(1, 8)):
            piece = b"x" * dice.randrange(20, 60000)
            total += len(piece)
            c.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(dice.choice([0, 0.005]))
        c.send("0\r\n\r\n")
        answer = c.answer()
        assert answer.headers["x-request-id"] == mine
        if is_error(answer):
            t.saw("chunked", answer.status, answered=1)
            return
        got = json.loads(answer.body)
        assert got["in_bytes"] == total, f"{got['in_bytes']} of {total} bytes"
        t.saw("chunked", 200, answered=1)


def pipelined(t, dice, mine):
    done = 0
    with t.raw() as c:
        for i in range(3):
            c.ask("/run/?echo=1", "POST", f"{mine}.{i}".encode(), [f"x-request-id: {mine}.{i}"])
        try:
            for i in range(3):
                name = f"{mine}.{i}"
                answer = c.answer()
                done += 1
                check_echo(t, "pipelined", answer, name, name.encode())
                if answer.headers.get("connection") == "close":
                    break
        except ConnectionError:
            t.saw("pipelined", "cut")
    t.saw("pipelined", "left", unsure=3 - done)


def abort(t, dice, mine):
    head = "POST /step/?n=20&interval_ms=5&bytes=3000 HTTP/1.1\r\nhost: a\r\n"
    head += "content-length: 9\r\n\r\n"
    text = head.encode() + b"123456789"
    cut = dice.choice([5, len(head) - 1, len(head), len(head) + 4, len(text)])
    c = t.raw()
    try:
        c.send(text[:cut])
        time.sleep(dice.choice([0, 0, 0.01]))
        if cut == len(text) and dice.random() < 0.7:
            c.socket.recv(dice.choice([1, 100, 5000]))
    finally:
        c.reset() if dice.random() < 0.5 else c.close()
    t.saw("abort", "left", unsure=1)


def malformed(t, dice, mine):
    text = dice.choice(MALFORMED)
    with t.raw() as c:
        c.send(text)
        line = c.file.readline()
        status = line.split()[1] if line else b"none"
        assert status[:1] == b"4" or status in (b"none", b"502", b"503"), line
        c.file.read()
    t.saw("malformed", "refused", unsure=1)


class Killer(threading.Thread):
    def __init__(self, server, seed):
        super().__init__()
        self.server, self.dice = server, random.Random(seed)
        self.stop, self.done = threading.Event(), collections.Counter()
        self.killed = collections.defaultdict(list)  # name -> times

    def may_kill(self, name):
        now = time.monotonic()
        return len([at for at in self.killed[name] if now - at < 65]) < KILLS_A_MINUTE

    def one(self):
        what = self.dice.choices(
            ["worker", "ingress", "control", "pause", "hangup"], [5, 3, 2, 3, 1]
        )[0]
        if what == "hangup":
            self.server.hangup()
        else:
            found = self.server.children("worker" if what == "pause" else what)
            if not found:
                return
            child = self.dice.choice(found)
            if what == "pause":
                os.kill(child.pid, signal.SIGSTOP)
                self.stop.wait(self.dice.random())
                os.kill(child.pid, signal.SIGCONT)
            elif self.may_kill(child.name):
                self.killed[child.name].append(time.monotonic())
                os.kill(child.pid, signal.SIGKILL)
            else:
                return
        self.done[what] += 1

    def run(self):
        while not self.stop.wait(self.dice.random() * size(0.6, 3)):
            try:
                self.one()
            except ProcessLookupError:
                pass


def requests_total(server):
    m = server.metrics()
    return sum(m.sum("salver_requests_total", application=app) for app in APPS)


def descriptors(server):
    """Most descriptors of a process of each role."""
    found = collections.Counter({"supervisor": fd_count(server.process.pid)})
    for c in server.children():
        found[c.role] = max(found[c.role], fd_count(c.pid))
    return found


def is_whole(server):
    try:
        status = server.status()["applications"]
        m = server.metrics()
    except (OSError, ValueError, subprocess.SubprocessError):  # control or an ingress is on its way
        return False
    names = [c.name for c in server.children()]
    return (
        len(names) == len(set(names))
        and all(status[a]["status"] == "RUNNING" for a in APPS)
        and m.sum("salver_ongoing_requests") == 0
        and m.sum("salver_queued_requests") == 0
    )


@pytest.mark.timeout(SECONDS * 2 + 200)
def test_chaos(server):
    seed = seed_of(7)
    each = {"num_replicas": 2, "max_ongoing_requests": 16}
    s = server(
        [
            application("run", "fake_run", **each),
            application("step", "fake_step", **each),
            application("up", "fake_step", {"stream_in": True}, **each),
        ],
        http={"request_timeout_s": REQUEST_TIMEOUT_S},
    )
    wait_for("all is well at first", 20, lambda: is_whole(s), 0.2)
    before, fds, names = requests_total(s), descriptors(s), {c.name for c in s.children()}
    traffic, killer = Traffic(s.port, seed), Killer(s, seed)
    killer.start()
    time.sleep(SECONDS)
    killer.stop.set()
    killer.join()
    time.sleep(1)
    traffic.end()
    figures("chaos", seed=seed, kills=dict(killer.done), seen=dict(sorted(traffic.seen.items())))
    assert not traffic.wrong, traffic.wrong
    wait_for("all is well again", 70, lambda: is_whole(s), 0.5)
    assert {c.name for c in s.children()} == names
    wait_for(
        f"descriptors as before ({fds})",
        10,
        lambda: all(n <= fds[role] + 1 for role, n in descriptors(s).items()),
        0.2,
    )
    counted = requests_total(s) - before
    assert traffic.answered <= counted <= traffic.answered + traffic.unsure, (
        traffic.answered,
        counted,
        traffic.unsure,
    )
    for app in APPS:
        assert s.get(f"/{app}/?sleep_ms=0", "POST", b"").status == 200


def speak_for(pid, bytes_):
    """Sends bytes as if the process did, on each of its sockets but the supervisor's channel."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    pidfd, theirs = os.pidfd_open(pid), []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder's own descriptor
            socket_ = os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
            if socket_ and int(name) > 3:
                theirs.append(syscall(PIDFD_GETFD, pidfd, int(name), 0))
    os.close(pidfd)
    if min(theirs) < 0:
        pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    for fd in theirs:  # all were taken before: at the first lie it may be killed
        with socket.socket(fileno=fd) as s, contextlib.suppress(OSError):
            s.send(bytes_)


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="by number")
@pytest.mark.parametrize(
    "bytes_", [b"\xff" * 100, b"\x01\0\0\0\x32" + b"\0" * 12], ids=["no frame", "half a grant"]
)
def test_a_worker_that_lies_is_replaced(server, bytes_):
    s = server([application("a", "fake_step")])
    [old] = s.pids("worker")
    speak_for(old, bytes_)
    wait_for("another worker", 10, lambda: s.pids("worker") and old not in s.pids("worker"))
    assert s.get("/a/", timeout=10).status == 200
    wait_for("all is well", 10, lambda: s.status()["applications"]["a"]["status"] == "RUNNING")
