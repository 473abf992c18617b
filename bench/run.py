#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Salver against its peers and floors, in one run, interleaved. Prints Markdown.

Usage: run.py [proxy] [sse] [start] [llm] [cost] [store] [wake] [registry]     (all without arguments; `make bench K=sse`)

proxy  `echo` and a no-op that answers N bytes, through 1 ingress and 1 worker, against nginx that
       proxies to an nginx upstream with 1 worker each. All servers share one core, wrk has another.
sse    the ingress's CPU time per event of 100 streams against a bare loop that writes the same.
start  from exec to the first answer; memory and processes of an idle server.
llm    a language model against llama.cpp: llm_bench.py says how.
cost   what the server around a language model costs: llm_cost.py.
store  calls of control's store on the disk of the current folder, against append and fdatasync.
wake   what waking from zero costs beside the worker's own start: wake.py.
registry  one application more among many that sleep: registry.py.

Environment: SALVER_BUILD (build), BENCH_ROUNDS (7), BENCH_SECONDS a run (3), BENCH_QUICK=1 for a
look while developing, BENCH_SERVER_CORE (0), BENCH_LOAD_CORE (1).
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
import harness  # noqa: E402

QUICK = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 1 if QUICK else 7))
SECONDS = int(os.environ.get("BENCH_SECONDS", 1 if QUICK else 3))
SERVER_CORE = os.environ.get("BENCH_SERVER_CORE", "0")
LOAD_CORE = os.environ.get("BENCH_LOAD_CORE", "1")
CONNECTIONS = (1, 64) if QUICK else (1, 16, 64, 256)
SIZES = (100, 10240) if QUICK else (100, 10240, 1048576)
STREAMS = 100
EVERY_US = int(os.environ.get("BENCH_SSE_EVERY_US", 2000))
EVENT_BYTES = 16
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

ON_SERVER_CORE = ["taskset", "-c", SERVER_CORE]
ON_LOAD_CORE = ["taskset", "-c", LOAD_CORE]

NGINX_COMMON = """
daemon off; user root; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; tcp_nodelay on; keepalive_timeout 60s; keepalive_requests 100000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
"""
UPSTREAM = (
    NGINX_COMMON
    + """
  sendfile on; tcp_nopush on; open_file_cache max=100; etag off;
  server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}; }}
}}
"""
)
PROXY = (
    NGINX_COMMON
    + """
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering on; proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""
)


# ---- measuring ---------------------------------------------------------------------------------


class Cores:
    """What else kept the two cores busy: busy time that is neither the servers' nor the load's."""

    def __init__(self, pids):
        self.pids = pids
        self.before, self.own = self.read(), self.ticks()

    @staticmethod
    def read():
        found = {}
        for line in Path("/proc/stat").read_text().splitlines():
            match = re.match(r"cpu(\d+) (.*)", line)
            if match and match.group(1) in (SERVER_CORE, LOAD_CORE):
                n = [int(x) for x in match.group(2).split()[:8]]
                found[match.group(1)] = (sum(n), sum(n) - n[3] - n[4], n[7])
        return found

    def ticks(self):
        return sum(harness.cpu_ticks(pid) for pid in self.pids)

    def foreign(self, load_ticks):
        """Foreign share of one core over both, and the share stolen by the host."""
        after = self.read()
        spent = max(1, max(after[c][0] - self.before[c][0] for c in after))
        busy = sum(after[c][1] - self.before[c][1] for c in after)
        stolen = sum(after[c][2] - self.before[c][2] for c in after)
        own = self.ticks() - self.own + load_ticks
        return max(0.0, (busy - stolen - own) / spent), stolen / spent


def child_ticks():
    used = os.times()
    return (used.children_user + used.children_system) / TICK_S


def seconds_of(out, name):
    """A latency of wrk's table in seconds, NaN where it has none (no request was answered)."""
    match = re.search(name + r"%\s+([\d.]+)(us|ms|s|m|h)\b", out)
    units = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
    return float(match.group(1)) * units[match.group(2)] if match else float("nan")


class Wrk:
    """One run of wrk against `pids`, and what it cost them."""

    def __init__(self, url, connections, pids, script=None):
        cores, ticks, mine = Cores(pids), sum(map(harness.cpu_ticks, pids)), child_ticks()
        args = [*ON_LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
        args += ["-s", script] if script else []
        out = subprocess.run(
            [str(a) for a in [*args, url]], capture_output=True, text=True, check=True
        ).stdout
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        self.rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
        self.p50 = seconds_of(out, "50")
        self.p99 = seconds_of(out, "99")
        used = sum(map(harness.cpu_ticks, pids)) - ticks
        self.cpu = used * TICK_S / max(1, requests)
        self.foreign, self.stolen = cores.foreign(child_ticks() - mine)
        bad = re.findall(r"(Socket errors.*|Non-2xx.*)", out)
        self.errors = "; ".join(bad)


def spread(values, scale=1.0, digits=0):
    values = [v * scale for v in values]
    return (
        f"{statistics.median(values):,.{digits}f} "
        f"({min(values):,.{digits}f}-{max(values):,.{digits}f})"
    )


def ratio(ours, theirs):
    theirs = statistics.median(theirs)
    return f"{statistics.median(ours) / theirs:.2f}" if theirs else "-"


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    print(
        f"Machine: {model}, {os.cpu_count()} cores, Linux {os.uname().release}; "
        f"{nginx.split(': ')[1].strip()}; wrk -t1."
    )
    print(
        f"Servers on core {SERVER_CORE}, load on core {LOAD_CORE}; medians of {ROUNDS} "
        f"(min-max), {SECONDS} s each, interleaved. `make bench`.\n"
    )


# ---- proxy -------------------------------------------------------------------------------------


class Nginx:
    """An upstream that serves files of SIZES bytes and a proxy before it."""

    def __init__(self, folder):
        self.folder = Path(folder) / "nginx"
        self.folder.mkdir()
        self.processes = []
        for size in (100, 10240, 1048576):
            (self.folder / str(size)).write_bytes(b"x" * size)

    def __enter__(self):
        upstream, self.port = self.serve("upstream", UPSTREAM), None
        self.port = self.serve("proxy", PROXY, upstream)
        return self

    def serve(self, name, text, upstream=0):
        port = harness.free_port()
        conf = self.folder / f"{name}.conf"
        conf.write_text(text.format(folder=self.folder, name=name, port=port, upstream=upstream))
        self.processes.append(subprocess.Popen([*ON_SERVER_CORE, "nginx", "-c", str(conf)]))

        def answers():
            try:
                return harness.request(port, "/100").status == 200
            except OSError:
                return False

        harness.wait_for(f"nginx {name} answers", 5, answers)
        return port

    def pids(self):
        found = []
        for process in self.processes:
            path = f"/proc/{process.pid}/task/{process.pid}/children"
            found += [process.pid, *map(int, Path(path).read_text().split())]
        return found

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
            process.wait(10)


def salver(folder, *applications):
    plugins = Path(folder) / "plugins"
    plugins.mkdir()
    for built in (harness.BUILD / "plugins", harness.TOOLS / "plugins"):
        for file in built.glob("*.so"):
            shutil.copy(file, plugins)
    return harness.Server(
        Path(folder) / "salver",
        list(applications),
        plugins=plugins,
        prefix=ON_SERVER_CORE,
        ready={"bytes": "/100", "ticker": None, "echo": None},
    )


def noop(name):
    return harness.application(
        name, name, max_ongoing_requests=1024, max_batch_size=64, batch_wait_timeout_s=0
    )


def measure_proxy(folder):
    """{(kind, connections): {"salver": [Wrk], "nginx": [Wrk]}}"""
    post = Path(folder) / "post.lua"
    post.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 100)\n')
    found = {}
    with Nginx(folder) as nginx, salver(folder, noop("bytes"), noop("echo")) as server:
        nginx_url, salver_url = (f"http://127.0.0.1:{p}" for p in (nginx.port, server.port))
        cells = [
            (f"{n} B", c, f"{salver_url}/bytes/{n}", f"{nginx_url}/{n}", None)
            for n in SIZES
            for c in CONNECTIONS
        ]
        cells += [
            ("echo 100 B", c, f"{salver_url}/echo/", f"{nginx_url}/100", post) for c in CONNECTIONS
        ]
        for _ in range(ROUNDS):
            for kind, connections, ours, theirs, script in cells:
                cell = found.setdefault((kind, connections), {"salver": [], "nginx": []})
                cell["salver"].append(Wrk(ours, connections, server.pids(), script))
                cell["nginx"].append(Wrk(theirs, connections, nginx.pids()))
    return found


def proxy(folder):
    found = measure_proxy(folder)
    print("## Requests: Salver (1 ingress, 1 worker) against nginx -> nginx\n")
    print(
        "`N B`: GET of N bytes, from a plugin that only answers (bench/bytes.c), against a file. "
        "`echo 100 B`: POST of 100 bytes to `echo`, against GET of a file of 100 bytes. CPU: user "
        "and system time of all server processes. Foreign, stolen: cores kept busy by others, "
        "cores the host took away (medians, Salver's runs / nginx's).\n"
    )
    print(
        "| size | conn | Salver req/s | nginx req/s | ratio | p50 ms, Salver / nginx "
        "| p99 ms, Salver / nginx | CPU us a request, Salver | nginx | ratio | foreign | stolen |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    errors = []
    for (kind, connections), cell in found.items():
        s, n = cell["salver"], cell["nginx"]

        def of(name, s=s, n=n):
            return [getattr(r, name) for r in s], [getattr(r, name) for r in n]

        def both(name, scale, digits, of=of):
            return " / ".join(f"{statistics.median(v) * scale:.{digits}f}" for v in of(name))

        print(
            f"| {kind} | {connections} | {spread(of('rate')[0])} | {spread(of('rate')[1])} "
            f"| **{ratio(*of('rate'))}** | {both('p50', 1e3, 3)} | {both('p99', 1e3, 2)} "
            f"| {spread(of('cpu')[0], 1e6, 1)} | {spread(of('cpu')[1], 1e6, 1)} "
            f"| **{ratio(*of('cpu'))}** | {both('foreign', 1, 2)} | {both('stolen', 1, 2)} |"
        )
        for name, runs in cell.items():
            errors += [
                f"{name}, {kind}, {connections} connections: {r.errors}" for r in runs if r.errors
            ]
    print()
    for error in errors:
        print(f"- ERROR {error}")


# ---- sse ---------------------------------------------------------------------------------------


def read_events(port, path, pid):
    """One run of sse_read against a process: its CPU seconds per event, and the reader's words."""
    args = [
        *ON_LOAD_CORE,
        harness.TOOLS / "sse_read",
        "-p",
        port,
        "-u",
        path,
        "-n",
        STREAMS,
        "-d",
        SECONDS,
        "-w",
        1,
    ]
    reader = subprocess.Popen([str(a) for a in args], stdout=subprocess.PIPE)
    time.sleep(1)
    before = harness.cpu_ticks(pid)
    result = harness.sse_result(reader)
    result["cpu"] = (harness.cpu_ticks(pid) - before) * TICK_S / max(1, result["events"])
    return result


def floor_run():
    port = harness.free_port()
    args = [
        *ON_SERVER_CORE,
        harness.TOOLS / "sse_floor",
        port,
        STREAMS,
        EVERY_US,
        EVENT_BYTES,
        SECONDS + 3,
    ]
    floor = subprocess.Popen([str(a) for a in args], stdout=subprocess.DEVNULL)
    time.sleep(0.2)
    try:
        return read_events(port, "/", floor.pid)
    finally:
        floor.kill()
        floor.wait()


def sse(folder):
    app = harness.application(
        "ticker", "ticker", {"every_us": EVERY_US, "bytes": EVENT_BYTES}, max_ongoing_requests=1024
    )
    ours, floor = [], []
    with salver(folder, app) as server:
        ingress = server.pids("ingress")[0]
        for _ in range(ROUNDS):
            ours.append(read_events(server.port, "/ticker/", ingress))
            floor.append(floor_run())
    print(
        f"## Events: {STREAMS} streams, one event of {EVENT_BYTES} bytes every {EVERY_US} us on "
        "each, one event a frame\n"
    )
    print("| | events/s | bytes an event | events a read | gap p50 / p99 us | CPU us an event |")
    print("|---|---|---|---|---|---|")
    for name, runs in (("ingress", ours), ("bare loop", floor)):

        def median(of, runs=runs):
            return statistics.median(of(r) for r in runs)

        print(
            f"| {name} | {spread([r['events'] / r['seconds'] for r in runs])} "
            f"| {median(lambda r: r['bytes'] / max(1, r['events'])):.1f} "
            f"| {median(lambda r: r['events'] / max(1, r['reads'])):.2f} "
            f"| {median(lambda r: r['gap_p50_us']):.0f} / {median(lambda r: r['gap_p99_us']):.0f} "
            f"| {spread([r['cpu'] for r in runs], 1e6, 2)} |"
        )
    print(
        f"\nRatio: **{ratio([r['cpu'] for r in ours], [r['cpu'] for r in floor])}** "
        "(goal: at most 1.4)\n"
    )
    for run in ours + floor:
        if run["open"] != STREAMS:
            print(f"- ERROR {STREAMS - run['open']} of {STREAMS} streams ended")


# ---- start -------------------------------------------------------------------------------------


def start(folder):
    took, memory, processes = [], [], []
    for i in range(ROUNDS):
        port, state = harness.free_port(), Path(folder) / f"state{i}"
        begin = time.monotonic()
        process = subprocess.Popen(
            [
                str(a)
                for a in (
                    harness.SALVER,
                    "serve",
                    "--plugin",
                    "echo",
                    "--port",
                    port,
                    "--state",
                    state,
                    "--plugins",
                    harness.BUILD / "plugins",
                )
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers(port=port):
            try:
                return harness.request(port, "/", "POST", b"hello", timeout=5).body == b"hello"
            except (OSError, ValueError):
                return False

        try:
            harness.wait_for("salver answers", 20, answers, 0.0005)
            took.append(time.monotonic() - begin)
            time.sleep(1)
            pids = [process.pid, *(c.pid for c in harness.children(process.pid))]
            memory.append(sum(map(harness.pss_bytes, pids)))
            processes.append(len(pids))
        finally:
            process.terminate()
            process.wait(30)
    print("## Start and rest: `salver serve --plugin echo`\n")
    print("| exec to first answer, ms | memory at rest (sum of PSS), MB | processes |")
    print("|---|---|---|")
    print(f"| {spread(took, 1e3, 1)} | {spread(memory, 1e-6, 1)} | {max(processes)} |\n")


def llm(folder):
    from llm_bench import run  # with what only this one needs

    run(folder)


def cost(folder):
    from llm_cost import run

    run(folder)


def store(_folder):
    print("## The store\n\n| | calls | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="salver-store-", dir=".") as here:  # a disk, not a tmpfs
        subprocess.run([harness.TOOLS / "store", here, "200" if QUICK else "2000"], check=True)
    print()


def wake(folder):
    from wake import run

    run(folder)


def registry(folder):
    from registry import run

    print(f"## One application more\n\n{run(folder)}\n")


KINDS = {
    "proxy": proxy,
    "sse": sse,
    "start": start,
    "llm": llm,
    "cost": cost,
    "store": store,
    "wake": wake,
    "registry": registry,
}


def main():
    wanted = sys.argv[1:] or list(KINDS)
    unknown = [k for k in wanted if k not in KINDS]
    if unknown:
        sys.exit(f"run.py: no benchmark '{unknown[0]}': {', '.join(KINDS)}")
    if {"proxy", "sse", "start"} & set(wanted):  # they compare with nginx
        machine()
    for kind in wanted:
        with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
            KINDS[kind](folder)
            sys.stdout.flush()


main()
