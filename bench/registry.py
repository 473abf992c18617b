#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one application more costs among many that sleep: how long until every ingress lists its model. Prints Markdown.

N applications of the no-op test plugin with one model each, `min_replicas: 0`, two ingresses. Then one is added and
removed by PUT of the whole text, over and over. Listed: from the answer to the PUT to the last /v1/models, asked for
on a new connection each, that was not as it should be.

`make bench K=registry`. Environment: SALVER_BUILD (build), BENCH_APPS (10,100,990), BENCH_CHANGES (20).
"""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests" / "e2e")]
import harness  # noqa: E402

SIZES = [int(n) for n in os.environ.get("BENCH_APPS", "10,100,990").split(",")]
CHANGES = int(os.environ.get("BENCH_CHANGES", 20))
APPS = "/api/serve/applications/"
ASLEEP = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 1}}


def application(i):
    made = harness.application(f"app-{i}", "fake_run", {"models": f"model-{i}"}, **ASLEEP)
    return {**made, "route_prefix": None}


def listed(server):
    answer = server.get("/v1/models", timeout=60)
    return {card["id"] for card in json.loads(answer.body)["data"]}


def up(server, n):
    try:
        return len(listed(server)) == n
    except (OSError, ValueError):
        return False


class Poll(threading.Thread):
    """When the list was asked for, and whether it had the model."""

    def __init__(self, server, model):
        super().__init__(daemon=True)
        self.server, self.model, self.seen, self.done = server, model, [], threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.002):
            at = time.monotonic()
            self.seen.append((at, self.model in listed(self.server)))

    def late_s(self, since, wanted):
        return max((at - since for at, has in list(self.seen) if at >= since and has != wanted), default=0)


def change(server, apps, poll, wanted):
    """One PUT: how long it took, and how long until every list was right."""
    text = {**json.loads(server.file.read_text()), "applications": apps}
    begin = time.monotonic()
    status, answer = server.admin("PUT", APPS, text, timeout=60)
    at = time.monotonic()
    assert status == 200, answer
    harness.wait_for("it is listed as it should be", 60, lambda: poll.seen and poll.seen[-1][1] == wanted, 0.002)
    time.sleep(0.3)
    return at - begin, poll.late_s(at, wanted)


def control_back_s(server):
    (old,) = server.pids("control")
    os.kill(old, signal.SIGKILL)
    begin = time.monotonic()

    def answers():
        try:
            return server.pids("control") != [old] and server.admin("GET", "/status", timeout=60)[0] == 200
        except OSError:
            return False

    harness.wait_for("control is back", 60, answers)
    return time.monotonic() - begin


def megabytes(server, role):
    return sum(harness.pss_bytes(pid) for pid in server.pids(role)) / 1e6


def measure(n, folder):
    apps = [application(i) for i in range(n)]
    options = {"http": {"num_ingress": 2}, "ready": {a["name"]: None for a in apps}}
    begin = time.monotonic()
    with harness.Server(Path(folder), apps, **options) as server:
        harness.wait_for("all are listed", 120, lambda: up(server, n), 0.02)
        row = {"start s": f"{time.monotonic() - begin:.2f}"}
        before = megabytes(server, "control")
        poll, took = Poll(server, "model-more"), []
        more = application("more")
        for _ in range(CHANGES // 2):
            took.append(change(server, [*apps, more], poll, True))
            took.append(change(server, apps, poll, False))
        poll.done.set()
        poll.join()
        row["PUT p50 ms"], row["PUT max ms"] = quantiles([put for put, _ in took])
        row["listed p50 ms"], row["listed max ms"] = quantiles([late for _, late in took])
        row["snapshot KB"] = f"{(server.state / 'snapshot.json').stat().st_size / 1e3:.0f}"
        row["control MB"] = f"{before:.0f}, {megabytes(server, 'control'):.0f}"
        row["an ingress MB"] = f"{megabytes(server, 'ingress') / 2:.0f}"
        row["control back s"] = f"{control_back_s(server):.2f}"
    return row


def quantiles(values_s):
    return f"{harness.quantile(values_s, 0.5) * 1e3:.0f}", f"{max(values_s) * 1e3:.0f}"


def run(folder):
    rows = []
    for n in SIZES:
        rows.append({"applications": str(n), **measure(n, Path(folder) / f"registry-{n}")})
        print(rows[-1], file=sys.stderr, flush=True)
    lines = [list(rows[0]), ["---:"] * len(rows[0]), *(list(r.values()) for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(run(scratch))
