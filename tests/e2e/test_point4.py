# SPDX-License-Identifier: Apache-2.0
"""Slow clients hold up nobody and cost a bounded amount of memory (issue 3, point 4)."""

import contextlib
import socket
import threading
import time

from harness import (
    CANCELLED,
    FULL,
    SANITIZED,
    Ledger,
    Server,
    application,
    figures,
    foreign_load,
    quantile,
    rss_bytes,
    send_request,
    size,
    sse_read,
    sse_result,
    wait_for,
)

FAST = 100
RUN_S = size(3, 10)
ROUNDS = size(1, 5)
BUFFER = 256 << 10  # max_response_buffer_bytes
WRITE_TIMEOUT_S = 3  # a client that takes nothing for so long is cut off
BODY_TIMEOUT_S = 2  # so long without 1 KiB/s
FLAT_BYTES = 8 << 20  # what a process may grow by while slow clients come and go
FAST_PATH = "/streams/?n=0&every_us=10000&bytes=64"
FLOOD_PATH = "/streams/?n=0&every_us=1000&bytes=1024&push=1"


class SlowClient(threading.Thread):
    """Takes (or sends) `per_s` bytes each second, 0: nothing; ended is when it was cut off."""

    def __init__(self, port, path, per_s, upload=0):
        super().__init__(daemon=True)
        self.per_s, self.upload, self.status, self.ended_s = per_s, upload, None, None
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.stopped = threading.Event()
        self.began = time.monotonic()
        if upload:
            head = (
                f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {upload}\r\n"
                "content-type: text/plain\r\n\r\n"
            )
            self.socket.sendall(head.encode())
        else:
            send_request(self.socket, path, port)
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while not self.stopped.wait(1):
                if self.upload and self.per_s:
                    self.socket.sendall(b"x" * self.per_s)
                elif self.per_s and not self.socket.recv(self.per_s):
                    break
                if self.cut():
                    break
        if not self.stopped.is_set():
            self.ended_s = time.monotonic() - self.began

    def cut(self):
        """True once the server has ended the connection, without reading what it sent."""
        if self.upload:
            with contextlib.suppress(BlockingIOError):
                self.socket.setblocking(False)
                try:
                    first = self.socket.recv(4096, socket.MSG_PEEK)
                finally:
                    self.socket.setblocking(True)
                if first.startswith(b"HTTP/1.1 "):
                    self.status = int(first.split()[1])
                return True
            return False
        # TCP_INFO's first byte is the state; 1 is ESTABLISHED.
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1

    def stop(self):
        self.stopped.set()
        self.join(5)
        self.socket.close()


def stream_app(ledger, **config):
    return application(
        "streams",
        "streams",
        {"path": str(ledger.path), **config},
        max_ongoing_requests=512,
        max_response_buffer_bytes=BUFFER,
    )


def serve(tmp_path, apps):
    http = {"write_timeout_s": WRITE_TIMEOUT_S, "body_timeout_s": BODY_TIMEOUT_S}
    return Server(tmp_path, apps, http=http)


def beside(server, make_slow):
    """The gaps of the fast streams without slow clients and with them, in turns; the slow ones
    that came and went; how much each process grew."""
    alone, with_slow, slow = [], [], []
    rss = {}
    for turn in range(ROUNDS):
        alone.append(sse_result(sse_read(server.port, FAST_PATH, FAST, RUN_S)))
        if turn == 0:
            rss = {pid: rss_bytes(pid) for pid in server.pids()}
        reader = sse_read(server.port, FAST_PATH, FAST, RUN_S + BODY_TIMEOUT_S)
        time.sleep(1)  # the reader's warm-up: the fast streams are there first
        slow += make_slow()
        with_slow.append(sse_result(reader))
    growth = {pid: rss_bytes(pid) - before for pid, before in rss.items()}
    return alone, with_slow, slow, growth


def check_fast(name, alone, with_slow, growth, foreign, **more):
    p99 = [quantile([r["gap_p99_us"] for r in runs], 0.5) for runs in (alone, with_slow)]
    figures(
        name,
        rounds=ROUNDS,
        gap_p99_us_alone=p99[0],
        gap_p99_us_beside=p99[1],
        events=sum(r["events"] for r in alone + with_slow),
        rss_growth_kb=[g >> 10 for g in growth.values()],
        **more,
        **foreign,
    )
    for run in alone + with_slow:
        assert run["open"] == run["answered"] == FAST, "no fast stream ends"
        assert run["events"] > 0
    assert SANITIZED or max(growth.values()) < FLAT_BYTES
    if FULL:
        assert p99[1] <= 1.2 * p99[0] + 1000


def test_slow_readers(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    with serve(tmp_path, [stream_app(ledger)]) as server:
        foreign = foreign_load(server.pids)

        def make_slow():
            return [
                SlowClient(server.port, FLOOD_PATH, 1024),
                SlowClient(server.port, FLOOD_PATH, 0),
            ]

        alone, with_slow, slow, growth = beside(server, make_slow)
        wait_for(
            "the slow readers are cut off",
            30,
            lambda: all(s.ended_s or not s.is_alive() for s in slow),
        )
        check_fast(
            "slow_readers",
            alone,
            with_slow,
            growth,
            foreign(),
            cut_after_s=[round(s.ended_s, 1) for s in slow],
        )
        for s in slow:
            s.stop()
        assert ledger.head()["paused"] > 0, "the plugin was told to pause"
        wait_for("no stream is left", 10, lambda: ledger.head()["ends"] == ledger.head()["rows"])


def test_a_reader_of_nothing_is_cut_off_also_when_the_plugin_waits(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    with serve(tmp_path, [stream_app(ledger)]) as server:
        path = "/streams/?id=7&n=0&every_us=200&bytes=4096"
        slow = SlowClient(server.port, path, 0)
        wait_for("it is cut off", WRITE_TIMEOUT_S + 15, lambda: slow.ended_s is not None)
        figures("dead_reader", write_timeout_s=WRITE_TIMEOUT_S, cut_after_s=round(slow.ended_s, 1))
        slow.stop()
        row = next(r for r in ledger.rows() if r.id == 7)
        assert row.outcome == CANCELLED
        assert ledger.head()["paused"] > 0


def test_slow_uploads(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    work = Ledger(tmp_path / "work")
    apps = [stream_app(ledger), application("ledger", "ledger", {"path": str(work.path)})]
    streamed = stream_app(ledger, stream_in=True)
    streamed.update(name="uploads", route_prefix="/uploads")
    streamed["deployments"][0]["name"] = "uploads"
    with serve(tmp_path, [*apps, streamed]) as server:
        foreign = foreign_load(server.pids)

        def make_slow():
            paths = ("/ledger/?us=0", "/uploads/?upload=1")
            return [
                SlowClient(server.port, path, per_s, upload=1 << 20)
                for path in paths
                for per_s in (100, 0)
            ]

        alone, with_slow, slow, growth = beside(server, make_slow)
        wait_for("the slow uploads are cut off", 30, lambda: all(not s.is_alive() for s in slow))
        check_fast(
            "slow_uploads",
            alone,
            with_slow,
            growth,
            foreign(),
            cut_after_s=[round(s.ended_s, 1) for s in slow],
            statuses=[s.status for s in slow],
        )
        for s in slow:
            s.stop()
        assert {s.status for s in slow} <= {408, None}
        assert [s.status for s in slow[:2]] == [408, 408], "a buffered upload gets its answer"
