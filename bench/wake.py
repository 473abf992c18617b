#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What waking from zero costs beside the worker's own start. Prints Markdown.

A deployment that sleeps gets one request; when it sleeps again, the next. From the client's send to the answer, less
the worker's own part (its process exists to READY: dynamic linking, dlopen, load, warm) and less what the same request
takes on the awake replica, is the overhead: ingress, control, supervisor, the fork and exec of the process, and the
ways between them.

When the process existed is in its shared page (started_ns: after the exec), to the nanosecond; when it was READY in
its log, to the millisecond and rounded down, so that up to 1 ms of the worker's own counts as overhead.

`make bench K=wake`. Environment: SALVER_BUILD (build), BENCH_WAKES (50).
"""

import json
import os
import re
import socket
import statistics
import struct
import sys
import time
from datetime import datetime
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests" / "e2e")]
import harness  # noqa: E402
import llm  # noqa: E402
import scaling  # noqa: E402

WAKES = int(os.environ.get("BENCH_WAKES", 50))
PAGE_FD, PAGE_MAGIC, ROLE_WORKER = 4, 0x53565047, 3
READY = re.compile(r"^(\S+)Z INFO +worker \S+\[(\d+)\] ready: ", re.M)
QUICKLY = scaling.block(look_back_period_s=0.1, upscale_delay_s=60, downscale_delay_s=1)
COLUMNS = {
    "whole": "request to answer",
    "worker": "the worker's own",
    "awake": "the same when awake",
    "overhead": "**overhead**",
    "before": "of it until the process exists",
    "after": "of it from READY on",
}


def started_s(pid):
    """When the supervisor had started it, by CLOCK_MONOTONIC: core/wire/page.h."""
    with open(f"/proc/{pid}/fd/{PAGE_FD}", "rb") as f:
        magic, _, role, _, _, started_ns = struct.unpack("<4I2Q", f.read(32))
    assert magic == PAGE_MAGIC and role == ROLE_WORKER, (hex(magic), role)
    return started_ns / 1e9


def ready_s(log, pid):
    """The same clock, of the line that says so."""
    (wall,) = [stamp for stamp, who in READY.findall(log) if int(who) == pid]
    offset = time.time() - time.monotonic()
    return datetime.fromisoformat(wall + "+00:00").timestamp() - offset


def timed(server, s, f, path, body):
    begin = time.monotonic()
    harness.send_request(s, path, server.port, "POST", body, ["content-type: application/json"])
    answer = harness.read_answer(f)
    end = time.monotonic()
    assert answer.status == 200, answer
    return begin, end


def wake(server, name, path, body):
    with socket.create_connection(("127.0.0.1", server.port)) as s, s.makefile("rb") as f:
        seen = server.log_path.stat().st_size
        begin, end = timed(server, s, f, path, body)
        (pid,) = server.pids("worker")
        started = started_s(pid)
        again = statistics.median(b - a for a, b in (timed(server, s, f, path, body) for _ in range(5)))
    log = server.log_path.read_bytes()[seen:].decode()
    ready = ready_s(log, pid)
    assert begin < started < ready < end, (begin, started, ready, end)
    harness.wait_for("it sleeps", 20, lambda: scaling.at_zero(server, name), 0.05)
    time.sleep(0.2)
    whole, worker = end - begin, ready - started
    return {"whole": whole, "worker": worker, "awake": again, "overhead": whole - worker - again,
            "before": started - begin, "after": end - ready - again}  # fmt: skip


def row(folder, title, app, plugins, path, body):
    server = scaling.asleep(folder, [app], plugins=plugins)
    try:
        wake(server, app["name"], path, body)  # files into the page cache, the store's first note
        foreign = harness.foreign_load(server.pids)
        rounds = [wake(server, app["name"], path, body) for _ in range(WAKES)]
        busy = foreign()
    finally:
        server.__exit__(None, None, None)
    cells = []
    for key in COLUMNS:
        ms = sorted(r[key] * 1e3 for r in rounds)
        at = lambda q: ms[min(len(ms) - 1, int(q * len(ms)))]
        cells.append(f"{statistics.median(ms):.1f} ({at(0.1):.1f}-{at(0.9):.1f})")
    print(f"| {title} | {' | '.join(cells)} | {busy['foreign_cores']} |", flush=True)


def run(folder):
    print(f"\n## Waking from zero (`make bench K=wake`)\n\nMilliseconds, median of {WAKES} (10 % - 90 %).\n")
    print(f"| | {' | '.join(COLUMNS.values())} | foreign cores |\n|{'---|' * (len(COLUMNS) + 2)}")
    noop = harness.application("noop", "bytes", **QUICKLY)
    row(f"{folder}/noop", "no-op", noop, harness.TOOLS / "plugins", "/noop/1", b"")
    tiny = llm.app(deployment=QUICKLY)
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    row(f"{folder}/tiny", "language model of 2 layers", tiny, llm.PLUGINS, "/v1/completions", json.dumps(body).encode())
