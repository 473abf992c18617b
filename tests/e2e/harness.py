# SPDX-License-Identifier: Apache-2.0
"""What the scenario tests need: a server whose processes they know, load that writes down what
became of every request, and the ledger in which the plugins write down what they were given.

Environment: SALVER_BUILD the build folder (build), SALVER_FULL=1 the full sizes, SALVER_PORTS the
ports to use (18600-18999), SALVER_FIGURES a file that gets one JSON line per figure.
"""

import collections
import contextlib
import csv
import functools
import http.client
import io
import json
import mmap
import os
import random
import re
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SALVER_BUILD", REPO / "build")).resolve()
SALVER = BUILD / "salver"
TOOLS = BUILD / "bench"
TEST_PLUGINS = BUILD / "tests" / "plugins"
FULL = os.environ.get("SALVER_FULL", "0") not in ("", "0")
SANITIZED = bool(os.environ.get("SALVER_SANITIZED"))  # memory figures mean nothing then
# What a machine is given time for takes a sanitized program this many times as long. Deadlines are
# multiplied by it; what a test compares or counts is not.
PATIENCE = 4 if SANITIZED else 1
START_S = 20  # until a server must answer


def size(quick, full):
    """The issue's size with SALVER_FULL=1, else one that fits into CI."""
    return full if FULL else quick


def seed_of(quick):
    """SALVER_SEED repeats a run. In CI's size the faults are the same ones each time: another commit
    answers for what it broke, not for what a new seed finds. Printed."""
    seed = int(os.environ.get("SALVER_SEED", random.randrange(1 << 30) if FULL else quick))
    print("SALVER_SEED", seed)
    return seed


def figures(name, **values):
    """Prints what was measured and keeps it for the summary of `points.sh`."""
    line = {"test": name, "full": FULL, **values}
    print("\nfigures", json.dumps(line))
    if os.environ.get("SALVER_FIGURES"):
        with open(os.environ["SALVER_FIGURES"], "a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else None


def wait_for(what, seconds, condition, every_s=0.01):
    """Polls until condition() is true and returns it; what: for the message. Who does not answer yet, or does not know
    yet what is looked for, is asked again."""
    seconds *= PATIENCE
    until = time.monotonic() + seconds
    while True:
        got = trouble = None
        try:
            got = condition()
        except (OSError, http.client.HTTPException, LookupError) as error:
            trouble = error
        if got:
            return got
        if time.monotonic() >= until:
            raise AssertionError(f"{what}: not within {seconds} s") from trouble
        time.sleep(every_s)


@functools.cache
def ports():
    low, high = os.environ.get("SALVER_PORTS", "18600-18999").split("-")
    # Test processes side by side (pytest-xdist) draw from ports of their own.
    side_by_side = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    found = list(range(int(low) + mine, int(high) + 1, side_by_side))
    random.shuffle(found)
    return collections.deque(found)


def free_port():
    """One where nobody listens. Each comes once before any comes again: it is not used at once."""
    for _ in range(len(ports())):
        ports().rotate(1)
        with socket.socket() as s:
            # What remains of closed connections does not matter, nor does it to a server.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", ports()[0]))
                return ports()[0]
    raise AssertionError(f"no port of {sorted(ports())} is free")


# ---- processes -------------------------------------------------------------------------------

Child = collections.namedtuple("Child", "pid role name")


def children(supervisor):
    """The living children of a supervisor: `salver <role> <name>`."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            stat = Path("/proc", entry, "stat").read_text()
            state, parent = stat.rsplit(")", 1)[1].split()[:2]
            if int(parent) != supervisor or state == "Z":
                continue
            argv = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            found.append(Child(int(entry), argv[1].decode(), argv[2].decode()))
    return found


def rss_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE


def pss_bytes(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1)) * 1024


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def socket_inodes(pid):
    """Inodes of the sockets that a process holds."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            match = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
            if match:
                inodes.add(int(match.group(1)))
    return inodes


def accepted_inodes(port):
    """{client port: inode of the accepted socket} of the connections to a local port."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "01":
            found[int(fields[2].split(":")[1], 16)] = int(fields[9])
    return found


def foreign_load(pids):
    """Starts to measure how busy the cores are with what is not ours: call the result to stop.
    pids() gives the processes that are ours, now."""

    def machine():
        fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields), fields[7]

    def ours():
        total = 0
        for pid in pids():
            with contextlib.suppress(OSError):
                total += cpu_ticks(pid)
        return total

    busy0, all0, steal0, own0 = *machine(), ours()

    def stop():
        busy1, all1, steal1, own1 = *machine(), ours()
        spent = max(1, all1 - all0)
        cores = os.cpu_count()
        return {
            "foreign_cores": round(max(0, busy1 - busy0 - (own1 - own0)) / spent * cores, 2),
            "steal_cores": round((steal1 - steal0) / spent * cores, 2),
        }

    return stop


# ---- the server ------------------------------------------------------------------------------


def application(name, plugin, config=None, **deployment):
    """One entry of `applications:` with one deployment of the same name under /name."""
    return {
        "name": name,
        "route_prefix": "/" + name,
        "plugin": plugin,
        "deployments": [{"name": name, "config": config or {}, **deployment}],
    }


class Server:
    """`salver serve` in the foreground, with a state folder and a port of its own."""

    ended = []  # whose logs conftest.py has yet to look at

    def __init__(
        self,
        folder,
        applications,
        http=None,
        plugins=TEST_PLUGINS,
        access_log=False,
        prefix=(),
        ready=None,
        admin_port=0,  # 0: no admin API on TCP, so that servers side by side don't meet there
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.state = self.folder / "state"
        self.log_path = self.folder / "log"
        self.file = self.folder / "app.yaml"
        self.applications = applications
        # JSON is YAML.
        self.file.write_text(
            json.dumps(
                {
                    "http_options": {"host": "127.0.0.1", "port": self.port, **(http or {})},
                    "logging_config": {"enable_access_log": access_log},
                    "applications": applications,
                },
                indent=1,
            )
        )
        self.command = [
            *prefix,
            SALVER,
            "serve",
            self.file,
            "--state",
            self.state,
            "--plugins",
            plugins,
            "--admin-port",
            admin_port,
        ]
        self.process = None
        self.ready = ready or {}  # {application: what to GET until it answers 200, None: nothing}

    def __enter__(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [str(a) for a in self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            print(self.log()[-8000:])
            raise
        return self

    def __exit__(self, *_):
        if self.process is None:
            return
        left = [c.pid for c in children(self.process.pid)]
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30 * PATIENCE)
        except subprocess.TimeoutExpired:
            for pid in [self.process.pid, *left, *(c.pid for c in children(self.process.pid))]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)
        self.process = None
        Server.ended.append(self)

    def wait_ready(self):
        for app in self.applications:
            path = self.ready.get(app["name"], "/?n=1&us=0")
            if path is None:
                continue
            path = app["route_prefix"] + path

            def answers(path=path):
                assert self.process.poll() is None, f"salver ended with {self.process.returncode}"
                with contextlib.suppress(OSError, ValueError):
                    return self.get(path, timeout=5).status == 200
                return False

            wait_for(f"{path} answers 200", START_S, answers, 0.02)
        wanted = sum(
            a["deployments"][0].get("num_replicas", 1)
            for a in self.applications
            if self.ready.get(a["name"], "/") is not None
        )
        wait_for("all replicas are there", START_S, lambda: len(self.pids("worker")) >= wanted)
        time.sleep(0.3)  # the last of them load; what is measured starts after that

    def get(self, path, method="GET", body=None, headers=(), timeout=30):
        return request(self.port, path, method, body, headers, timeout)

    def children(self, role=None):
        return [c for c in children(self.process.pid) if role in (None, c.role)]

    def pids(self, role=None):
        found = [c.pid for c in self.children(role)]
        return found if role else [self.process.pid, *found]

    def hangup(self):
        self.process.send_signal(signal.SIGHUP)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def status(self, patience_s=10):
        """A control that starts, is replaced or has a lot to do does not answer for a moment."""
        until = time.monotonic() + patience_s * PATIENCE
        while True:
            out = subprocess.run(
                [SALVER, "status", "--json", "--state", self.state], capture_output=True, timeout=60
            )
            if out.returncode == 0:
                return json.loads(out.stdout)
            assert time.monotonic() < until, out.stderr.decode()
            time.sleep(0.05)

    def admin(self, method, path, body=None, headers=None, timeout=30):
        """A request to the admin API over the socket in the state folder; a dict or list is sent as
        JSON. Its status and the answer, parsed where it is JSON."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("content-type", "application/json")
        connection = UnixConnection(self.state / "control.sock", timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            return answer.status, json.loads(text) if is_json and text else text

    def metrics(self):
        return Metrics(self.get("/metrics").body.decode())

    def connections_to(self, ingress_pid, n):
        """n idle connections that this ingress, and no other, has accepted."""
        mine, others = [], []
        for _ in range(200):
            batch = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(32)]
            deadline = time.monotonic() + 5
            while True:
                inodes, held = accepted_inodes(self.port), socket_inodes(ingress_pid)
                owned = [inodes.get(s.getsockname()[1], 0) for s in batch]
                if all(owned) or time.monotonic() > deadline:
                    break
                time.sleep(0.005)
            for s, inode in zip(batch, owned):
                (mine if inode in held else others).append(s)
            if len(mine) >= n:
                break
        for s in others + mine[n:]:
            s.close()
        assert len(mine) >= n, f"only {len(mine)} of {n} connections reached ingress {ingress_pid}"
        return mine[:n]


class Metrics:
    """A scrape of /metrics."""

    def __init__(self, text):
        self.samples = collections.defaultdict(list)
        for line in text.splitlines():
            match = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)$", line)
            if match and not line.startswith("#"):
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
                self.samples[match.group(1)].append((labels, float(match.group(3))))

    def sum(self, name, **labels):
        return sum(
            value
            for found, value in self.samples[name]
            if all(found.get(k) == v for k, v in labels.items())
        )

    def by(self, name, label, **labels):
        found = collections.Counter()
        for has, value in self.samples[name]:
            if all(has.get(k) == v for k, v in labels.items()):
                found[has.get(label, "")] += value
        return dict(found)


# ---- clients ---------------------------------------------------------------------------------

Answer = collections.namedtuple("Answer", "status headers body")


def send_request(s, path, port, method="GET", body=None, headers=()):
    lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{port}", *headers]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))


def read_head(f):
    """Status and headers of an answer from a buffered reader."""
    line = f.readline()
    if not line:
        raise ConnectionError("closed before an answer")
    status, headers = int(line.split()[1]), {}
    while (line := f.readline()) not in (b"\r\n", b""):
        name, value = line.decode("latin-1").split(":", 1)
        headers[name.lower()] = value.strip()
    return status, headers


def read_chunks(f):
    """The pieces of a chunked body; an answer that was cut short raises ConnectionError."""
    while True:
        line = f.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("a chunked body was cut short")
        n = int(line.split(b";")[0], 16)
        data = f.read(n + 2)
        if len(data) != n + 2:
            raise ConnectionError("a chunk was cut short")
        if n == 0:
            return
        yield data[:-2]


def read_answer(f):
    status, headers = read_head(f)
    if headers.get("transfer-encoding") == "chunked":
        return Answer(status, headers, b"".join(read_chunks(f)))
    n = int(headers.get("content-length", 0))
    body = f.read(n)
    if len(body) != n:
        raise ConnectionError("a body was cut short")
    return Answer(status, headers, body)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def request(port, path, method="GET", body=None, headers=(), timeout=30):
    with socket.create_connection(("127.0.0.1", port), timeout * PATIENCE) as s:
        send_request(s, path, port, method, body, headers)
        with s.makefile("rb") as f:
            return read_answer(f)


Row = collections.namedtuple(
    "Row",
    "id connection sent_ns first_ns done_ns status bytes reused closed request_id id_in_body error",
)


class Load:
    """bench/load in a process of its own; rows() ends it and says what became of each request."""

    def __init__(
        self,
        port,
        path,
        connections=64,
        requests=None,
        seconds=None,
        first_id=1,
        method="GET",
        body=0,
        pause_us=None,
        sockets=(),
        timeout_s=None,
        out=None,
    ):
        self.out = Path(out)
        args = [
            TOOLS / "load",
            "-p",
            port,
            "-u",
            path,
            "-c",
            connections,
            "-i",
            first_id,
            "-m",
            method,
            "-b",
            body,
            "-o",
            self.out,
        ]
        options = (("-n", requests), ("-d", seconds), ("-B", pause_us), ("-t", timeout_s))
        for flag, value in options:
            if value is not None:
                args += [flag, value]
        fds = [s.fileno() for s in sockets]
        for fd in fds:
            os.set_blocking(fd, False)
        if fds:
            args += ["-F", ",".join(map(str, fds))]
        self.process = subprocess.Popen(
            [str(a) for a in args], pass_fds=fds, stderr=subprocess.PIPE
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()

    def running(self):
        return self.process.poll() is None

    def stop(self):
        if self.running():
            self.process.terminate()

    def rows(self, timeout=300):
        self.process.wait(timeout)
        assert self.process.returncode == 0, self.process.stderr.read()
        found = []
        for fields in csv.reader(io.StringIO(self.out.read_text())):
            numbers = [int(x) for x in fields[:9]]
            found.append(Row(*numbers, fields[9], int(fields[10]), fields[11]))
        return found


def sse_read(port, path, streams, seconds, warm_s=1):
    """Reads event streams with bench/sse_read; a Popen whose stdout is one JSON object."""
    args = [TOOLS / "sse_read", "-p", port, "-u", path, "-n", streams, "-d", seconds, "-w", warm_s]
    return subprocess.Popen([str(a) for a in args], stdout=subprocess.PIPE)


def sse_result(process):
    return json.loads(process.communicate(timeout=600)[0])


# ---- the ledger (tests/plugins/ledger.h) -------------------------------------------------------

LedgerRow = collections.namedtuple(
    "LedgerRow", "id request_id start_ns end_ns pid batch n_batch outcome attempt"
)
OPEN, ENDED, CANCELLED = 0, 1, 2


class Ledger:
    HEAD = ("rows", "batches", "most_at_once", "cancels", "ends", "events", "paused", "capacity")
    ROW = struct.Struct("<QQQQIIIII12x")

    def __init__(self, path, capacity=1000000):
        self.path = Path(path)
        total = 64 + capacity * self.ROW.size
        with open(self.path, "wb") as f:
            f.truncate(total)
            f.seek(56)
            f.write(struct.pack("<Q", capacity))
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), total)
        self.capacity = capacity

    def head(self):
        return dict(zip(self.HEAD, struct.unpack_from("<8Q", self.map)))

    def rows(self, start=0):
        n = min(self.head()["rows"], self.capacity)
        return [
            LedgerRow(*self.ROW.unpack_from(self.map, 64 + i * self.ROW.size))
            for i in range(start, n)
        ]
