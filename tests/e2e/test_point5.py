# SPDX-License-Identifier: Apache-2.0
"""Streams whose clients leave: the plugin hears of each, nothing leaks (issue 3, point 5)."""

import random
import socket
import struct
import time

from harness import (
    CANCELLED,
    SANITIZED,
    Ledger,
    Server,
    application,
    fd_count,
    figures,
    rss_bytes,
    send_request,
    size,
    wait_for,
)

STREAMS = size(600, 10000)
AT_ONCE = 50
FLAT_BYTES = 2 << 20  # what a process may grow by after the first fifth


def leave_early(port, n):
    """Opens n streams, reads the first event of each, and leaves: half of them with a reset."""
    sockets = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port), 30)
        send_request(s, "/streams/?n=0&every_us=20000", port)
        sockets.append(s)
    for s in sockets:
        seen = b""
        while b"data: " not in seen:
            piece = s.recv(4096)
            assert piece, f"the stream ended: {seen!r}"
            seen += piece
        assert seen.startswith(b"HTTP/1.1 200"), seen
    random.shuffle(sockets)
    for i, s in enumerate(sockets):
        if i % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


def settle(ledger, n):
    wait_for("the plugin has ended every stream", 30, lambda: ledger.head()["ends"] == n)


def test_every_cancel_arrives_and_nothing_leaks(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    app = application("streams", "streams", {"path": str(ledger.path)}, max_ongoing_requests=256)
    with Server(tmp_path, [app]) as server:
        before = server.metrics()
        done = first = ledger.head()["rows"]
        settle(ledger, first)
        flat = None
        start = time.monotonic()
        while done - first < STREAMS:
            n = min(AT_ONCE, STREAMS - (done - first))
            leave_early(server.port, n)
            done += n
            if flat is None and done - first >= STREAMS // 5:
                settle(ledger, done)
                time.sleep(0.5)  # the last connections close
                flat = {pid: (rss_bytes(pid), fd_count(pid)) for pid in server.pids()}
        settle(ledger, done)
        took = time.monotonic() - start

        rows = ledger.rows(first)
        assert len(rows) == STREAMS
        assert all(r.outcome == CANCELLED for r in rows)
        assert ledger.head()["cancels"] == STREAMS

        def left():
            metrics = server.metrics()
            return metrics if metrics.sum("salver_ongoing_requests") == 0 else None

        after = wait_for("nothing is ongoing", 10, left)

        def grew(name, **labels):
            return after.sum(name, application="streams", **labels) - before.sum(
                name, application="streams", **labels
            )

        counts = {
            "requests": grew("salver_requests_total"),
            "given": grew("salver_requests_given_total"),
            "cancelled": grew("salver_requests_cancelled_total"),
        }
        time.sleep(0.5)
        outcomes = after.by("salver_requests_total", "outcome", application="streams")
        growth = {
            pid: (rss_bytes(pid) - rss, fd_count(pid) - fds) for pid, (rss, fds) in flat.items()
        }
        figures(
            "cancelled_streams",
            streams=STREAMS,
            seconds=round(took, 1),
            **counts,
            outcomes=outcomes,
            rss_growth_kb=[g[0] >> 10 for g in growth.values()],
            fd_growth=[g[1] for g in growth.values()],
        )
        assert counts == {"requests": STREAMS, "given": STREAMS, "cancelled": STREAMS}
        assert SANITIZED or max(g[0] for g in growth.values()) < FLAT_BYTES
        assert all(g[1] <= 0 for g in growth.values()), "descriptors are left open"
        assert after.sum("salver_queued_requests") == 0
