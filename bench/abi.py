#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the draft of the ABI left to be tried (docs/design/004-what-the-abi-left-open.md).

Usage: abi.py step|slow|here|pages

step   one engine in four forms (bench/abi_step.c): who waits for the device and who sends.
slow   1000 event streams whose clients take 1 KB/s each (bench/abi_pull.c), with neighbours.
here   run() on the I/O thread; SALVER_BUILD is a build with abi_here.patch applied (to 561abe3).
pages  bodies through a socketpair or in mapped pages (bench/abi_pages.c), two cores and one.

Environment: as for run.py; BENCH_ROUNDS is 5 and BENCH_SECONDS 3 unless given.
"""

import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
import harness  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
SECONDS = int(os.environ.get("BENCH_SECONDS", 3))
SERVER_CORE = os.environ.get("BENCH_SERVER_CORE", "0")
LOAD_CORE = os.environ.get("BENCH_LOAD_CORE", "1")
PLUGINS = harness.TOOLS / "plugins"

FORMS = ("step", "timer", "own", "post")
STREAMS = (1, 16, 256)
EVERY_US = 5000
REFUSALS = 40

SLOW = int(os.environ.get("BENCH_SLOW", 1000))
SLOW_BYTES_S = 1024
SLOW_S = int(os.environ.get("BENCH_SLOW_SECONDS", 20))
NEIGHBOURS = 20

MODE = Path(os.environ.get("SALVER_TRIAL_MODE", "/tmp/salver-trial-mode"))  # the patch reads it


def cpu_s(pid):
    """On-CPU time of a process to the nanosecond: all its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def load_average():
    return f"Load average {os.getloadavg()[0]:.1f} (2 cores are shared with others' work)."


def serve(folder, *apps):
    ready = {a["name"]: None for a in apps}
    return harness.Server(folder, list(apps), plugins=PLUGINS, ready=ready,
                          prefix=["taskset", "-c", SERVER_CORE])  # fmt: skip


def wait_for_workers(server, n):
    harness.wait_for("workers", 20, lambda: len(server.pids("worker")) >= n)
    time.sleep(1)


# ---- step --------------------------------------------------------------------------------------


def worker_of(server, app):
    return next(c.pid for c in server.children("worker") if c.name.startswith(app + "/"))


def refusal_ms(server, app):
    """How long submit() takes to be reached while the engine is busy: median and worst, ms."""
    took = []
    for _ in range(REFUSALS):
        began = time.monotonic()
        assert server.get(f"/{app}/?refuse").status == 400
        took.append((time.monotonic() - began) * 1e3)
        time.sleep(0.003)
    return statistics.median(took)


def step_run(server, app, streams):
    worker, ingress = worker_of(server, app), server.pids("ingress")[0]
    reader = subprocess.Popen(
        ["taskset", "-c", LOAD_CORE]
        + [str(a) for a in (harness.TOOLS / "sse_read", "-p", server.port, "-u", f"/{app}/",
                            "-n", streams, "-d", SECONDS + 1, "-w", 1)],
        stdout=subprocess.PIPE)  # fmt: skip
    time.sleep(1)
    before, began = (cpu_s(worker), cpu_s(ingress)), time.monotonic()
    time.sleep(SECONDS)
    after, spent = (cpu_s(worker), cpu_s(ingress)), time.monotonic() - began
    refusal = refusal_ms(server, app) if streams == 1 else float("nan")
    result = harness.sse_result(reader)
    events = result["events"] / result["seconds"] * spent
    return {
        "worker": (after[0] - before[0]) * 1e6 / events,
        "ingress": (after[1] - before[1]) * 1e6 / events,
        "gap50": result["gap_p50_us"],
        "gap99": result["gap_p99_us"],
        "rate": events / spent,
        "refusal": refusal,
    }


def step(folder):
    apps = [
        harness.application(f, "abi_step", {"form": f, "every_us": EVERY_US},
                            max_ongoing_requests=1024)
        for f in FORMS
    ]  # fmt: skip
    found = {}
    with serve(folder, *apps) as server:
        wait_for_workers(server, len(FORMS))
        for _ in range(ROUNDS):
            for streams in STREAMS:
                for form in FORMS:
                    found.setdefault((streams, form), []).append(step_run(server, form, streams))
    print(f"## step: an iteration of {EVERY_US} us, {ROUNDS} rounds of {SECONDS} s\n")
    print("| streams | form | worker, CPU us an event | ingress | gap p50 us | gap p99 us | events/s "
          "| a refusal, ms |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for (streams, form), runs in found.items():

        def of(name, digits=1, runs=runs):
            return spread([r[name] for r in runs], digits)

        refusal = of("refusal") if streams == 1 else ""
        print(f"| {streams} | {form} | {of('worker', 2)} | {of('ingress', 2)} | {of('gap50', 0)} "
              f"| {of('gap99', 0)} | {of('rate', 0)} | {refusal} |")  # fmt: skip


# ---- slow --------------------------------------------------------------------------------------


class SlowClients:
    """Connections that take SLOW_BYTES_S a second each, from one loop."""

    def __init__(self, port, path, n):
        self.sockets, self.bytes, self.closed = [], 0, 0
        for _ in range(n):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", port))
            harness.send_request(s, path, port)
            s.setblocking(False)
            self.sockets.append(s)

    def read_for(self, seconds):
        """Each second a KB of each, spread over the second."""
        until, turn = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            for s in self.sockets[turn::10]:
                try:
                    data = s.recv(SLOW_BYTES_S)
                    self.bytes += len(data)
                    self.closed += not data
                except BlockingIOError:
                    pass
                except OSError:
                    self.closed += 1
            turn = (turn + 1) % 10
            time.sleep(0.1)

    def close(self):
        for s in self.sockets:
            s.close()


def tcp_mem_mb():
    text = Path("/proc/net/sockstat").read_text()
    return int(re.search(r"TCP:.* mem (\d+)", text).group(1)) * 4096 / 1e6


def look(server):
    pids = {"ingress": server.pids("ingress")[0], "worker": server.pids("worker")[0]}
    metrics = server.metrics()
    seen = {
        name: sum(v for k, vs in metrics.samples.items() if k.endswith(name) for _, v in vs)
        for name in ("pull_sends_total", "pull_pauses_total", "pull_writables_total")
    }
    for role, pid in pids.items():
        seen[role + "_rss"] = harness.rss_bytes(pid) / 1e6
        seen[role + "_cpu"] = cpu_s(pid)
    return {**seen, "tcp": tcp_mem_mb()}


def neighbours(server):
    reader = harness.sse_read(server.port, "/pull/tick", NEIGHBOURS, 5)
    return harness.sse_result(reader)


def slow(folder):
    print(f"## slow: {SLOW} streams at {SLOW_BYTES_S} B/s for {SLOW_S} s, {NEIGHBOURS} neighbours "
          "that tick each 10 ms\n")  # fmt: skip
    print("| max_response_buffer_bytes | | worker RSS MB | ingress RSS MB | TCP memory MB "
          "| worker CPU ms/s | ingress CPU ms/s | sends/s | SV_AGAIN/s | writable/s "
          "| client KB/s | gap p50 / p99 us | cut |")  # fmt: skip
    print("|" + "---|" * 13)
    for i, limit in enumerate((4 << 20, 256 << 10, 64 << 10)):
        app = harness.application("pull", "abi_pull", {}, max_ongoing_requests=2048,
                                  max_response_buffer_bytes=limit)  # fmt: skip
        with serve(Path(folder) / str(i), app) as server:
            wait_for_workers(server, 1)
            empty, alone = look(server), neighbours(server)
            print(f"| {limit >> 10} KiB | none | {empty['worker_rss']:.0f} "
                  f"| {empty['ingress_rss']:.0f} | {empty['tcp']:.0f} | | | | | | "
                  f"| {alone['gap_p50_us']} / {alone['gap_p99_us']} | |")  # fmt: skip
            clients = SlowClients(server.port, "/pull/", SLOW)
            clients.read_for(5)
            full, read = look(server), clients.bytes
            reader = harness.sse_read(server.port, "/pull/tick", NEIGHBOURS, SLOW_S - 1)
            began = time.monotonic()
            clients.read_for(SLOW_S)
            spent = time.monotonic() - began
            after, beside = look(server), harness.sse_result(reader)

            def rate(name, scale=1.0, a=full, b=after, spent=spent):
                return (b[name] - a[name]) * scale / spent

            print(f"| | {SLOW} slow | {after['worker_rss']:.0f} | {after['ingress_rss']:.0f} "
                  f"| {after['tcp']:.0f} | {rate('worker_cpu', 1e3):.1f} "
                  f"| {rate('ingress_cpu', 1e3):.1f} | {rate('pull_sends_total'):.0f} "
                  f"| {rate('pull_pauses_total'):.0f} | {rate('pull_writables_total'):.0f} "
                  f"| {(clients.bytes - read) / spent / 1e3:.0f} "
                  f"| {beside['gap_p50_us']} / {beside['gap_p99_us']} | {clients.closed} |")  # fmt: skip
            totals = {k: int(v) for k, v in after.items() if k.endswith("_total")}
            print(f"\ntotals {totals}\n", file=sys.stderr)
            clients.close()


# ---- here --------------------------------------------------------------------------------------

MODES = {"b": "as it is", "n": "no sched_yield", "i": "run() on the I/O thread"}


def here_run(server, path, script, connections, mode):
    MODE.write_text(mode)
    time.sleep(0.6)  # read each 250 ms
    pids = server.pids()
    before = sum(map(cpu_s, pids))
    args = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s",
            "--latency", *script, f"http://127.0.0.1:{server.port}{path}"]  # fmt: skip
    out = subprocess.run(args, capture_output=True, text=True, check=True).stdout
    n = int(re.search(r"(\d+) requests in", out).group(1))
    used = sum(map(cpu_s, pids)) - before
    units = {"us": 1, "ms": 1e3, "s": 1e6}

    def at(name):
        match = re.search(name + r"%\s+([\d.]+)(us|ms|s)\b", out)
        return float(match.group(1)) * units[match.group(2)]

    return {"cpu": used * 1e6 / n, "p50": at("50"), "p99": at("99"), "rate": n / SECONDS}


def here(folder):
    apps = [harness.application("bytes", "bytes", max_ongoing_requests=1024, max_batch_size=64,
                                batch_wait_timeout_s=0)]  # fmt: skip
    for cores in ("one core", "two cores"):
        prefix = ["taskset", "-c", SERVER_CORE] if cores == "one core" else []
        server = harness.Server(Path(folder) / cores[:3], apps, plugins=PLUGINS,
                                ready={"bytes": "/100"}, prefix=prefix)  # fmt: skip
        found = {}
        with server:
            for _ in range(ROUNDS):
                for connections in (1, 16):
                    for mode in MODES:
                        run = here_run(server, "/bytes/100", [], connections, mode)
                        found.setdefault((connections, mode), []).append(run)
        print(f"## here: servers on {cores}, {ROUNDS} rounds of {SECONDS} s. {load_average()}\n")
        print("| connections | | CPU us a request, all servers | p50 us | p99 us | req/s |")
        print("|---|---|---|---|---|---|")
        for (connections, mode), runs in found.items():
            cells = " | ".join(spread([r[k] for r in runs], d) for k, d in
                               (("cpu", 1), ("p50", 0), ("p99", 0), ("rate", 0)))  # fmt: skip
            print(f"| {connections} | {MODES[mode]} | {cells} |")
        print()
    MODE.unlink()


# ---- pages -------------------------------------------------------------------------------------


def pages(folder):
    del folder
    for cores in ((SERVER_CORE, LOAD_CORE), (SERVER_CORE, SERVER_CORE)):
        print(f"## pages: producer on core {cores[0]}, consumer on core {cores[1]}\n")
        sys.stdout.flush()
        subprocess.run([harness.TOOLS / "abi_pages", *cores, str(ROUNDS)], check=True)


KINDS = {"step": step, "slow": slow, "here": here, "pages": pages}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in KINDS:
        sys.exit(f"Usage: abi.py {'|'.join(KINDS)}")
    print(load_average())
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        KINDS[sys.argv[1]](Path(folder))
    print(f"\nAfter it: {load_average()}")


if __name__ == "__main__":
    main()
