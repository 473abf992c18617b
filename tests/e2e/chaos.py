# SPDX-License-Identifier: Apache-2.0
"""What test_point_chaos.py needs: who of a server lives and who died when and why, faults at random,
and traffic that writes down what became of every request."""

import collections
import contextlib
import ctypes
import heapq
import http.client
import os
import random
import resource
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

from clients import Raw
from harness import Child, application, size

ROLES = ("control", "ingress", "worker")
APPS = "/api/serve/applications/"
ADOPTS_S = 8  # a new supervisor may wait so long for orphans
STALL_S = 3  # stall_timeout_s of the workers; an ingress has 10 s, control 30 s
NS = 1_000_000_000


def now_s(ns):
    return ns / NS


# ---- who lives ---------------------------------------------------------------------------------


class Death:
    """died_ns: when it was noticed. from_ns: not before."""

    def __init__(self, child, from_ns, died_ns, why, status):
        self.child, self.from_ns, self.died_ns = child, from_ns, died_ns
        self.why, self.status = why, status  # why: the fault that ended it, "" it left by itself

    def within(self, begin_ns, end_ns):
        return self.from_ns <= end_ns and begin_ns <= self.died_ns

    def __repr__(self):
        at = f"{now_s(self.died_ns):.3f}"
        return f"{self.child.name} (pid {self.child.pid}) at {at}: {self.why or self.status}"


class Watch(threading.Thread):
    """Knows every process of a server from its birth to its death. Orphans become children of the
    tests (PR_SET_CHILD_SUBREAPER), so that none is lost and each is waited for."""

    EVERY_S = 0.1
    PR_SET_CHILD_SUBREAPER = 36

    def __init__(self, server):
        super().__init__(daemon=True)
        assert ctypes.CDLL(None).prctl(self.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        self.server, self.over, self.lock = server, threading.Event(), threading.Lock()
        self.alive = {}  # pid -> (Child, pidfd)
        self.others = {}  # pid -> when it was last looked at
        self.deaths = []
        self.reasons = collections.defaultdict(list)  # pid -> [[from_ns, to_ns, why]]
        self.poll = select.poll()
        self.pids_of_fds = {}
        self.look()
        self.start()

    def blame(self, pid, why):
        """From now on an end of that process is due to a fault; forgive() ends that."""
        self.reasons[pid].append([time.monotonic_ns(), None, why])

    def forgive(self, pid, after_s=1.5):
        for reason in self.reasons[pid]:
            reason[1] = reason[1] or time.monotonic_ns() + int(after_s * NS)

    def why(self, pid, died_ns):
        """The fault that ended it, and since when it may be dead."""
        for begin, end, why in self.reasons[pid]:
            if begin <= died_ns + NS // 20 and (end is None or died_ns <= end):
                return why, begin if why == "killed" else died_ns
        return "", died_ns

    def living(self, role=None):
        with self.lock:
            found = [child for child, _ in self.alive.values() if role in (None, child.role)]
        return sorted(found, key=lambda c: (c.name, c.pid))

    def look(self):
        now, mine = time.monotonic(), {os.getpid(), self.server.process.pid}
        present = {int(e) for e in os.listdir("/proc") if e.isdigit()}
        self.others = {pid: at for pid, at in self.others.items() if pid in present}
        for pid in present:
            if pid in self.alive or now - self.others.get(pid, now) > 2:
                continue  # a process is what it is after its exec, soon after its fork
            self.others.setdefault(pid, now)
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if stat[0] == "Z" or int(stat[1]) not in mine or argv[1].decode() not in ROLES:
                    continue
                self.found(Child(pid, argv[1].decode(), argv[2].decode()))

    def found(self, child):
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(child.pid)
            with self.lock:
                self.alive[child.pid] = (child, fd)
            self.pids_of_fds[fd] = child.pid
            self.poll.register(fd, select.POLLIN)

    def ended(self, fd):
        died_ns, pid, status = time.monotonic_ns(), self.pids_of_fds.pop(fd), None
        self.poll.unregister(fd)
        os.close(fd)
        with contextlib.suppress(ChildProcessError):  # else its supervisor waits for it
            status = os.waitpid(pid, 0)[1]
        with self.lock:
            child, _ = self.alive.pop(pid)
        self.others.pop(pid, None)
        why, from_ns = self.why(pid, died_ns)
        self.deaths.append(Death(child, from_ns, died_ns, why, status))

    def run(self):
        next_look = 0
        while not self.over.is_set():
            for fd, _ in self.poll.poll(20):
                self.ended(fd)
            if time.monotonic() > next_look:
                self.look()
                next_look = time.monotonic() + self.EVERY_S

    def end(self):
        self.over.set()
        self.join()
        for fd, pid in list(self.pids_of_fds.items()):
            if select.select([fd], [], [], 0)[0]:
                self.ended(fd)
            assert pid not in self.alive, f"{self.alive[pid][0]} is left"


# ---- faults ------------------------------------------------------------------------------------


class Chaos(threading.Thread):
    """Faults at random until it is told to end; then everything is put right again. `wrong`: what a
    fault itself has shown. Rules: not so many kills of one name in a minute that its restarts are
    put off; the last ingress is left alone while there is no supervisor or it waits for orphans (5 s for one
    that is stopped): nobody else listens then."""

    KILLS_A_MINUTE = 4
    WEIGHTS = {
        "kill_worker": 6,
        "kill_ingress": 3,
        "kill_control": 3,
        "kill_supervisor": 3,
        "stop_worker": 3,
        "pause_worker": 2,
        "stop_ingress": size(0, 1),
        "pause_ingress": 2,
        "stop_control": size(0, 1),
        "pause_control": 2,
        "pause_supervisor": 2,
        "hangup": 2,
        "deploy": 3,
        "deploy_broken": 2,
        "fill_disk": 2,
        "fill_files": 4,
    }

    def __init__(self, server, watch, dice, texts, small_disk, pages_may_be_lost):
        super().__init__(daemon=True)
        self.server, self.watch, self.dice, self.texts = server, watch, dice, texts
        self.small_disk, self.pages_may_be_lost = small_disk, pages_may_be_lost
        self.over = threading.Event()
        self.log, self.wrong = [], []
        self.done = collections.Counter()
        self.undo = []  # heap of (when, number, what)
        self.number = 0
        self.killed = collections.defaultdict(list)  # name -> times
        self.stopped, self.narrow = set(), {}  # pids; pid -> its old limit
        self.narrow_times = []  # of ingresses: (from_ns, to_ns)
        self.away = None  # since when there is no supervisor that runs (ns)
        self.away_times = []
        self.adopted_s = 0  # until then orphans may be waited for, and nobody is replaced
        self.disk_full = False
        self.answers = collections.Counter()  # to deploys

    def note(self, text):
        self.log.append(f"{time.monotonic():.3f} {text}")

    def later(self, seconds, what):
        self.number += 1
        heapq.heappush(self.undo, (time.monotonic() + seconds, self.number, what))

    def run(self):
        names, weights = zip(*self.WEIGHTS.items())
        next_s = time.monotonic() + 0.5
        while not self.over.wait(0.01):
            try:
                self.put_right(time.monotonic())
                if time.monotonic() < next_s:
                    continue
                name = self.dice.choices(names, weights)[0]
                if getattr(self, name)() is not False:
                    self.done[name] += 1
                    next_s = time.monotonic() + self.dice.expovariate(1 / size(0.5, 1.5))
            except ProcessLookupError:
                continue  # somebody was faster
            except Exception as e:  # the thread's own end would look like peace
                self.wrong.append(f"chaos: {e!r}")

    def put_right(self, until):
        while self.undo and self.undo[0][0] <= until:
            what = heapq.heappop(self.undo)[2]
            with contextlib.suppress(ProcessLookupError):
                what()
        self.supervisor_lives()
        self.keep_full()

    def end(self):
        self.over.set()
        self.join()
        while self.undo:
            self.put_right(self.undo[0][0])
        self.note("over")

    # -- processes

    def one(self, role, but_stopped=True):
        found = self.watch.living(role)
        if but_stopped:
            found = [c for c in found if c.pid not in self.stopped]
        return self.dice.choice(found) if found else None

    def kill(self, role):
        child = self.one(role, but_stopped=False)
        now = time.monotonic()
        if not child or not self.may_lose(child):
            return False
        if len([at for at in self.killed[child.name] if now - at < 65]) >= self.KILLS_A_MINUTE:
            return False
        self.killed[child.name].append(now)
        self.watch.blame(child.pid, "killed")
        os.kill(child.pid, signal.SIGKILL)
        self.note(f"kill {child.name} {child.pid}")
        return True

    def may_lose(self, child):
        if child.role != "ingress" or not (self.away or time.monotonic() < self.adopted_s):
            return True
        others = [c for c in self.watch.living("ingress") if c.pid not in self.stopped | {child.pid}]
        return bool(others) and self.pages_may_be_lost

    def halt(self, role, seconds, why):
        """SIGSTOP. why: it is so long that it may be killed for it; "" if it may not."""
        child = self.one(role)
        if not child or (why and not self.may_lose(child)):
            return False
        self.stopped.add(child.pid)
        self.watch.blame(child.pid, why) if why else None
        os.kill(child.pid, signal.SIGSTOP)
        self.note(f"stop {child.name} {child.pid} for {seconds:.1f} s")

        def go_on():
            self.stopped.discard(child.pid)
            self.watch.forgive(child.pid)
            if child in self.watch.living(role):
                os.kill(child.pid, signal.SIGCONT)
                self.note(f"continue {child.name} {child.pid}")

        self.later(seconds, go_on)
        return True

    def kill_worker(self):
        return self.kill("worker")

    def kill_ingress(self):
        return self.kill("ingress")

    def kill_control(self):
        return self.kill("control")

    def stop_worker(self):
        return self.halt("worker", STALL_S + 4, "stopped")

    def pause_worker(self):
        return self.halt("worker", self.dice.uniform(0, STALL_S / 2), "")

    def stop_ingress(self):
        return self.halt("ingress", 14, "stopped")

    def pause_ingress(self):
        # A new supervisor waits 5 s for an orphan, and then kills it.
        return self.halt("ingress", self.dice.uniform(0, 3), "")

    def stop_control(self):
        return self.halt("control", 38, "stopped")

    def pause_control(self):
        # A new supervisor kills one that says nothing.
        return self.halt("control", self.dice.uniform(0, size(3, 8)), "stopped")

    # -- the supervisor

    def lose_supervisor(self):
        self.server.process.kill()
        self.server.process.wait()
        self.away = time.monotonic_ns()
        self.later(self.dice.uniform(0, 3), self.serve_again)

    def kill_supervisor(self):
        if self.away or len(self.watch.living("ingress")) < 2:
            return False
        if not self.pages_may_be_lost and self.stopped & {
            c.pid for c in self.watch.living("ingress")
        }:
            return False  # it would be killed by the next one
        self.note(f"kill supervisor {self.server.process.pid}")
        self.lose_supervisor()
        return True

    def pause_supervisor(self):
        pid = self.server.process.pid
        if self.away or pid in self.stopped:
            return False
        seconds = self.dice.uniform(0, size(2, 5))
        self.stopped.add(pid)
        os.kill(pid, signal.SIGSTOP)
        self.note(f"stop supervisor {pid} for {seconds:.1f} s")

        def go_on():
            self.stopped.discard(pid)
            if not self.away and self.server.process.pid == pid:
                os.kill(pid, signal.SIGCONT)
                self.note(f"continue supervisor {pid}")

        self.later(seconds, go_on)
        return True

    def serve_again(self):
        command = list(self.server.command)
        if self.dice.random() < 0.5:  # then what is in the store holds
            command.remove(self.server.file)
        self.note(f"serve {'again' if command == self.server.command else 'without FILE'}")
        with open(self.server.log_path, "ab") as log:
            self.server.process = subprocess.Popen(
                [str(a) for a in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.away_times.append((self.away or time.monotonic_ns(), time.monotonic_ns()))
        self.away = None
        self.adopted_s = time.monotonic() + ADOPTS_S

    def supervisor_lives(self):
        code = self.server.process.poll()
        if self.away or code is None:
            return
        if not self.disk_full:
            self.wrong.append(f"the supervisor left with {code} at {time.monotonic():.3f}")
        self.note(f"the supervisor left with {code}")
        self.away = time.monotonic_ns()
        self.later(0.5, self.serve_again)

    def hangup(self):
        # Between exec and main() nothing can be done about a signal.
        if self.away or time.monotonic() < self.adopted_s - ADOPTS_S + 0.2:
            return False
        self.note("hangup")
        self.server.hangup()
        return True

    # -- deploys

    def put(self, kind, text):
        try:
            status, answer = self.server.admin("PUT", APPS, text, timeout=5)
        except (OSError, http.client.HTTPException):
            status, answer = "no answer", ""
        self.note(f"{kind}: {status} {str(answer)[:200] if status != 200 else ''}")
        self.answers[f"{kind} {status}"] += 1
        # 503: a control that has just started; 507: no room; 500: no descriptor left.
        if status not in (200, "no answer", 503, 507) and not self.narrow:
            self.wrong.append(f"{kind}: {status} {answer}")
        return status

    def deploy(self):
        return self.put("deploy", self.texts.good(self.dice)) and None

    def deploy_broken(self):
        self.put("deploy broken", self.texts.broken(self.dice))
        self.later(self.dice.uniform(1, 6), self.deploy)

    # -- resources

    def fill_disk(self):
        if not self.small_disk or self.disk_full:
            return False
        self.disk_full = True
        self.note("disk full")

        def empty():
            (self.small_disk / "filler").unlink(missing_ok=True)
            self.disk_full = False
            self.note("disk empty")

        self.later(self.dice.uniform(0.5, size(2, 6)), empty)
        return True

    def keep_full(self):
        if self.disk_full:
            with contextlib.suppress(OSError), open(
                self.small_disk / "filler", "ab", buffering=0
            ) as f:
                while True:
                    f.write(bytes(4096))

    def fill_files(self):
        """No descriptor is left for a while, to whoever it is."""
        names = ["supervisor", *(["control", "ingress", "ingress", "worker"] * 2)]
        role = self.dice.choice(names)
        child = (
            Child(self.server.process.pid, role, role) if role == "supervisor" else self.one(role)
        )
        if not child or child.pid in self.narrow:
            return False
        # One that takes over and has no place for a listener kills whose it is.
        if role == "supervisor" and (self.away or time.monotonic() < self.adopted_s):
            return False
        used = {int(n) for n in os.listdir(f"/proc/{child.pid}/fd")}
        free = next(n for n in range(len(used) + 1) if n not in used)
        soft, hard = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
        self.narrow[child.pid] = soft
        began = time.monotonic_ns()
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (free, hard))
        self.note(f"no descriptors for {child.name} {child.pid}: {free} of {soft}")
        entry = [began, None]
        if role == "ingress":
            self.narrow_times.append(entry)

        def widen():
            entry[1] = time.monotonic_ns()
            self.narrow.pop(child.pid)
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (soft, hard))
            self.note(f"descriptors for {child.name} {child.pid}")

        self.later(self.dice.uniform(0.3, size(2, 4)), widen)
        return True


# ---- what is deployed --------------------------------------------------------------------------


class Texts:
    """The applications, good and broken."""

    BROKEN = (
        {"do": "load:segv"},
        {"do": "load:fail=-500"},
        {"do": "load:hang"},
        {"do": "run:segv"},
        {"do": "create:abort"},
        {"do": "plan:segv"},
    )

    def __init__(self, ledger):
        self.path = str(ledger.path)
        self.rest = {}  # of the text: what a server that starts without FILE has to know

    def first(self):
        each = {"num_replicas": 2, "stall_timeout_s": STALL_S}
        zero = {
            "min_replicas": 0,
            "max_replicas": 3,
            "target_ongoing_requests": 2,
            "look_back_period_s": 0.5,
            "upscale_delay_s": 0,
            "downscale_delay_s": 0.5,
        }
        plain = {"path": self.path, "busy_us": 30000}
        streams = {"path": self.path}
        return [
            application("plain", "ledger", plain, max_ongoing_requests=16, max_batch_size=8, **each),
            application("safe", "ledger", plain, max_ongoing_requests=8, retry="safe", **each),
            application("streams", "streams", streams, max_ongoing_requests=64, **each),
            application("up", "streams", {**streams, "stream_in": True}, **each),
            application(
                "zero",
                "ledger",
                plain,
                max_ongoing_requests=5,
                stall_timeout_s=STALL_S,
                autoscaling_config=zero,
            ),
        ]

    def text(self, apps=None):
        return {**self.rest, "applications": apps or self.first()}

    def good(self, dice):
        apps = self.first()
        for app in dice.sample(apps[:4], dice.randrange(3)):
            [deployment] = app["deployments"]
            what = dice.randrange(4)
            if what == 0:
                deployment["num_replicas"] = 3
            elif what == 1:  # another version
                deployment["max_batch_size"] = dice.randrange(4, 9)
                deployment["config"]["busy_us"] = dice.randrange(25000, 35000)
                if app["plugin"] == "streams":
                    del deployment["config"]["busy_us"], deployment["max_batch_size"]
                    deployment["concurrency"] = 1
            elif what == 2:  # told, not replaced
                deployment["max_ongoing_requests"] = dice.randrange(8, 32)
        if dice.random() < 0.3:
            apps.append(application("odd", "fake_run"))
        return self.text(apps)

    def broken(self, dice):
        apps = self.first()
        victim = dice.choice(apps)
        [deployment] = victim["deployments"]
        what = dice.randrange(4)
        if what == 0:
            deployment["config"]["path"] = "/nowhere"
        elif what == 1:
            victim["plugin"] = "nowhere"
        else:
            victim["plugin"] = "fake_run"
            deployment["config"] = dict(dice.choice(self.BROKEN))
            deployment["load_timeout_s"] = 2
        return self.text(apps)


# ---- traffic beside bench/load -------------------------------------------------------------------

Seen = collections.namedtuple("Seen", "id app sent_ns done_ns status error request_id")
NOBODY_WAITS_S = 90  # a stopped ingress under a stopped control is noticed after 10 + 35 s


class Traffic:
    """Event streams, uploads, and bursts that find nobody there. seen: what became of each. error:
    "", "cut" (the connection or the body ended early), "event" (of an error), "hang"."""

    def __init__(self, port, dice):
        self.port, self.stop, self.lock = port, threading.Event(), threading.Lock()
        self.seen, self.wrong = [], []
        self.ids = iter(range(3 * 10**8, 9 * 10**8))
        works = [self.stream] * size(4, 8) + [self.upload] * size(2, 4)
        self.threads = [
            threading.Thread(target=self.work, args=(w, dice.randrange(1 << 30))) for w in works
        ]
        self.threads.append(threading.Thread(target=self.bursts, args=(dice.randrange(1 << 30),)))
        for t in self.threads:
            t.start()

    def work(self, how, seed):
        dice = random.Random(seed)
        while not self.stop.is_set():
            self.once(how, dice)

    def once(self, how, dice):
        with self.lock:
            number = next(self.ids)
        seen = {"id": number, "app": "", "status": 0, "error": "", "request_id": ""}
        sent_ns = time.monotonic_ns()
        try:
            with Raw(self.port, timeout=NOBODY_WAITS_S) as c:
                how(c, dice, number, seen)
        except (TimeoutError, BlockingIOError):
            seen["error"] = "hang"
        except ConnectionRefusedError:
            seen["error"] = "connect"
        except (ConnectionError, ValueError, IndexError):  # within a line
            seen["error"] = "cut"
        except AssertionError as e:
            self.wrong.append(f"{how.__name__} {number}: {e}")
        with self.lock:
            self.seen.append(Seen(sent_ns=sent_ns, done_ns=time.monotonic_ns(), **seen))

    def stream(self, c, dice, number, seen):
        n = dice.randrange(1, 40)
        seen["app"] = "streams"
        c.ask(f"/streams/?id={number}&n={n}&every_us={dice.choice([2000, 20000])}&bytes=64")
        status, headers = c.head()
        seen["request_id"] = headers.get("x-request-id", "")
        seen["status"] = status
        if status != 200:
            c.file.read(int(headers["content-length"]))
            return
        got = 0
        for text in c.events():
            if text.startswith("{"):
                seen["error"] = "event"
                return
            assert text == "x" * 64, f"event {got} is {text[:80]}"
            got += 1
        assert got == n, f"{got} of {n} events"

    def upload(self, c, dice, number, seen):
        pieces = [dice.randrange(20, 60000) for _ in range(dice.randrange(1, 8))]
        seen["app"] = "up"
        c.send(f"POST /up/?upload=1&id={number} HTTP/1.1\r\nhost: a\r\n")
        c.send("transfer-encoding: chunked\r\n\r\n")
        for n in pieces:
            c.send(b"%x\r\n%s\r\n" % (n, b"x" * n))
            time.sleep(dice.choice([0, 0.005, 0.02]))
        c.send("0\r\n\r\n")
        answer = c.answer()
        seen["status"], seen["request_id"] = answer.status, answer.headers.get("x-request-id", "")
        if answer.status == 200:
            assert answer.body == str(sum(pieces)).encode(), f"{answer.body} of {sum(pieces)}"

    def from_zero(self, c, dice, number, seen):
        seen["app"] = "zero"
        c.ask(f"/zero/?id={number}")
        answer = c.answer()
        seen["status"], seen["request_id"] = answer.status, answer.headers.get("x-request-id", "")
        if answer.status == 200:
            assert answer.body.startswith(b"%d " % number), answer.body

    def bursts(self, seed):
        dice = random.Random(seed)
        while not self.stop.wait(dice.uniform(0.2, 5)):
            burst = [
                threading.Thread(target=self.once, args=(self.from_zero, dice))
                for _ in range(dice.randrange(1, 9))
            ]
            for t in burst:
                t.start()
            for t in burst:
                t.join()

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(NOBODY_WAITS_S + 10)
            assert not t.is_alive(), "a client hangs"


# ---- counters ----------------------------------------------------------------------------------


def counters(text):
    """Every sample of a scrape that only grows."""
    kinds, found = {}, {}
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# TYPE"):
            kinds[words[2]] = words[3]
        elif line and not line.startswith("#"):
            name = words[0].split("{")[0]
            if name not in kinds:
                for end in ("_bucket", "_sum", "_count"):
                    name = name.removesuffix(end) if name.removesuffix(end) in kinds else name
            if kinds.get(name) in ("counter", "histogram"):
                found[line.rsplit(" ", 1)[0]] = float(words[-1])
    return found


class Scraper(threading.Thread):
    """Looks whether counters go back. `lost`: for good; `dips`: for a moment, between two ingresses
    that learn of a process's end at different times."""

    GONE_S = 5  # so long below what was there is no dip

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.most, self.below = {}, {}  # sample -> its largest value; since when it is below
        self.scrapes, self.dips = 0, collections.Counter()
        self.lost, self.fallen = [], []
        self.start()

    def look(self):
        try:
            answer = self.server.get("/metrics", timeout=3)
        except (OSError, ValueError, IndexError):
            return
        if answer.status != 200:  # turned away
            return
        found = counters(answer.body.decode())
        now = time.monotonic()
        self.scrapes += 1
        for name, most in self.most.items():
            if found.get(name, 0) >= most - 1e-6:
                self.below.pop(name, None)
                continue
            since = self.below.setdefault(name, now)
            if since == now:
                self.dips[name.split("{")[0]] += 1
                self.fallen.append(f"{now:.3f} {name} {most} -> {found.get(name)}")
            if now - since > self.GONE_S:
                self.lost.append((now, name, most, found.get(name)))
                self.below.pop(name)
                self.most[name] = found.get(name, 0)
        for name, value in found.items():
            self.most[name] = max(value, self.most.get(name, 0))

    def run(self):
        while not self.over.wait(size(0.3, 0.5)):
            self.look()

    def end(self):
        self.over.set()
        self.join()


def status_of(server):
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        return server.status()
    return None


def dump(path, *lists):
    """Everything a failed run needs to be understood."""
    with open(path, "w", encoding="utf-8") as f:
        for one in lists:
            f.write("\n".join(str(x) for x in one) + "\n----\n")
    return path


