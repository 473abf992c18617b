# SPDX-License-Identifier: Apache-2.0
"""Ten minutes in which any process may be killed or stopped at any time, the supervisor too, the
disk and the tables of descriptors fill up, and applications are deployed, good and broken, all at
random and under load (issue 6, point 4). Only what was aboard a process that died fails, all
requests and descriptors are accounted for, and a stop leaves nothing behind.

SALVER_SEED repeats a run's faults, SALVER_CHAOS_S says how long they go on. An ingress that dies or
is given up while there is no supervisor takes its counters with it: nobody else has its page. That
is done with odd seeds only, so that with even ones the counters must be exact.
"""

import bisect
import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from chaos import NOBODY_WAITS_S, NS, Chaos, Scraper, Seen, Texts, Traffic, Watch, dump, status_of
from harness import (
    ENDED,
    OPEN,
    SALVER,
    Ledger,
    Load,
    Server,
    fd_count,
    figures,
    foreign_load,
    quantile,
    seed_of,
    size,
    wait_for,
)
from test_upgrade import patched, program_of, upgrade

SECONDS = int(os.environ.get("SALVER_CHAOS_S", size(10, 600)))
SLACK_NS = NS // 2  # between a death and when it is noticed, by us and by clients
WHOLE_S = 100  # a restart may have been put off by up to 60 s
APPLICATIONS = "/api/serve/applications/"
APPS = ("plain", "safe", "streams", "up", "zero")
SAFE_ID = 10**8  # the first id of each load
ERRORS = {"": "", "eof": "cut", "reset": "cut", "broken": "cut", "timeout": "hang"}


@pytest.fixture
def small_disk(tmp_path):
    """The state folder on a file system of 16 MiB; None where that may not be mounted."""
    folder = tmp_path / "state"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    if not mounted:
        print("no tmpfs may be mounted: the disk does not fill up in this run")
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Run:
    """What happened: filled by the test, read by the checks."""

    def __init__(self, server, ledger, watch, chaos):
        self.server, self.watch, self.chaos = server, watch, chaos
        self.seen, self.wrong = [], []
        self.outcomes = collections.Counter()
        self.given, self.last_of_prefix = collections.defaultdict(list), collections.Counter()
        self.ledger = ledger

    def read(self, loads, traffic):
        for app, load in loads.items():
            for r in load.rows(NOBODY_WAITS_S + 30):
                error = ERRORS.get(r.error, r.error)
                self.seen.append(
                    Seen(r.id, app, r.sent_ns, r.done_ns, r.status, error, r.request_id)
                )
        self.seen += traffic.seen
        self.wrong += traffic.wrong + self.chaos.wrong
        for row in self.ledger.rows():
            if row.id:
                self.given[row.id].append(row)
        for seen in self.seen:
            if seen.request_id and not seen.error:
                prefix = int(seen.request_id, 16) >> 40  # says which ingress
                self.last_of_prefix[prefix] = max(self.last_of_prefix[prefix], seen.done_ns)
        self.deaths = {d.child.pid: d for d in self.watch.deaths}
        self.lost_ingresses = [d for d in self.watch.deaths if d.why and d.child.role == "ingress"]

    # -- who is to blame

    def by_ingress(self, seen):
        """It was at an ingress whose end was a fault's."""
        for d in self.lost_ingresses:
            if not d.within(seen.sent_ns - SLACK_NS, seen.done_ns + SLACK_NS):
                continue
            rows = self.given.get(seen.id, [])
            last = max((self.last_of_prefix[r.request_id >> 40] for r in rows), default=0)
            if seen.done_ns - d.died_ns < 3 * NS and last <= d.died_ns + SLACK_NS:
                return True
        return False

    def ends_of(self, app, seen):
        return [
            d
            for d in self.watch.deaths
            if d.why
            and d.child.name.startswith(app + "/")
            and d.within(seen.sent_ns - SLACK_NS, seen.done_ns + SLACK_NS)
        ]

    def by_worker(self, seen):
        """It was aboard a worker whose end was a fault's."""
        rows, ends = self.given.get(seen.id, []), self.ends_of(seen.app, seen)
        pids = {d.child.pid for d in ends}
        if any(r.pid not in pids for r in rows):
            return False
        return len(ends) >= (2 if seen.app == "safe" else 1)

    def turned_away(self, seen):
        """An ingress without a free descriptor says so to who comes, and nobody is given it."""
        if seen.id in self.given:
            return False
        return any(
            begin <= seen.done_ns and (end is None or seen.sent_ns <= end)
            for begin, end in self.chaos.narrow_times
        )

    def alone(self, seen):
        times = self.chaos.away_times
        return any(begin <= seen.done_ns <= end + 8 * NS for begin, end in times)

    def judge(self, seen):
        """What became of a request, in a word; None: it should not have."""
        rows = self.given.get(seen.id, [])
        if seen.status == 200 and not seen.error:
            dead = {d.child.pid for d in self.ends_of("safe", seen)}
            whole = rows and rows[-1].outcome == ENDED and all(r.pid in dead for r in rows[:-1])
            return "answered" if whole else None
        if seen.error == "cut" and self.turned_away(seen):
            return "turned away"  # in the middle of what it sent, so it did not hear why
        if seen.error in ("cut", "event", "connect"):
            # Refused: while there is no supervisor its listener ends with it, within a handshake.
            if self.by_ingress(seen) and (seen.error != "connect" or self.alone(seen)):
                return "cut with its ingress"
            if seen.status == 200 and self.by_worker(seen):
                return "cut with its worker"
        if seen.error == "" and seen.status == 502 and self.by_worker(seen):
            return "502 aboard"
        if seen.error == "" and seen.status == 503 and self.turned_away(seen):
            return "turned away"
        return None

    # -- the checks

    def check_requests(self):
        for seen in self.seen:
            word = self.judge(seen)
            self.outcomes[f"{seen.app}: {word}"] += 1
            if word is None:
                self.wrong.append(f"{seen} given as {self.given.get(seen.id)}")
        assert len({s.id for s in self.seen}) == len(self.seen), "one outcome each"

    def check_ledger(self):
        apps = {s.id: s.app for s in self.seen}
        for number, rows in self.given.items():
            if number not in apps:
                self.wrong.append(f"nobody asked for {rows}")
            elif len(rows) > 1 and apps[number] != "safe":
                self.wrong.append(f"given twice: {rows}")
            for row in rows:
                death = self.deaths.get(row.pid)
                if row.outcome == OPEN and not (death and death.why):
                    self.wrong.append(f"never ended by {row.pid}, {death}: {row}")

    def check_obituaries(self):
        """Who got a 502 is named in the log as aboard."""
        aboard = set(re.findall(r"aboard: request ([0-9a-f]{16})", self.server.log()))
        for seen in self.seen:
            if seen.status == 502 and seen.request_id not in aboard:
                self.wrong.append(f"not named in an obituary: {seen}")

    def check_deaths(self):
        """Nobody fell but by a fault: a core process never, a worker of good code neither."""
        for d in self.watch.deaths:
            if d.status not in (None, 0) and not d.why and not self.was_broken(d.child):
                self.wrong.append(f"fell by itself: {d}")

    def was_broken(self, child):
        """Broken code is fake_run in another application's place. Its ends are seen here only when an
        earlier server had started it."""
        died = rf"\(pid {child.pid}, generation \d+\) died: .*, plugin fake_run "
        return not child.name.startswith("odd/") and re.search(died, self.server.log())

    def check_counters(self, before, after):
        """The server counted what the clients saw."""
        answered = sum(1 for s in self.seen if s.status and s.error in ("", "event"))
        unsure = len(self.seen) - answered
        pages_lost = self.lost_pages()
        counted = after - before
        low = 0 if pages_lost else answered - self.outcomes_of("turned away")
        if not low <= counted <= answered + unsure:
            self.wrong.append(f"{answered} answers, {unsure} unsure, {counted} counted")
        return {"answered": answered, "unsure": unsure, "counted": counted, "pages_lost": pages_lost}

    def outcomes_of(self, word):
        return sum(n for key, n in self.outcomes.items() if key.endswith(word))

    def lost_pages(self):
        """Ingresses that died while there was no supervisor, or before the next one knew them."""
        starts = sorted(self.chaos.away_times)
        found = 0
        for d in self.watch.deaths:
            at = bisect.bisect(starts, (d.died_ns, d.died_ns)) - 1
            lost = d.child.role == "ingress" and d.why
            if lost and at >= 0 and d.died_ns < starts[at][1] + 7 * NS:
                found += 1
        return found


# ---- the server before and after ----------------------------------------------------------------


def counted(server):
    m = server.metrics()
    return sum(m.sum("salver_requests_total", application=app) for app in APPS)


def descriptors(watch, server):
    """Most descriptors of a process of each role."""
    found = collections.Counter({"supervisor": fd_count(server.process.pid)})
    for c in watch.living():
        with contextlib.suppress(OSError):
            found[c.role] = max(found[c.role], fd_count(c.pid))
    return found


def is_whole(watch, server):
    status = status_of(server)
    if status is None:
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        m = server.metrics()
        names = [c.name for c in watch.living()]
        kinds = collections.Counter(name.split("/")[0] for name in names)
        wanted = {"control": 1, "ingress": 2, "plain": 2, "safe": 2, "streams": 2, "up": 2}
        apps = status["applications"]
        return (
            kinds == wanted
            and len(names) == len(set(names))
            and set(apps) == set(APPS)
            and all(app["status"] == "RUNNING" for app in apps.values())
            and m.sum("salver_ongoing_requests") == m.sum("salver_queued_requests") == 0
        )
    return False


def all_run(server):
    status = status_of(server)
    return status and all(app["status"] == "RUNNING" for app in status["applications"].values())


def whole(watch, server):
    try:
        wait_for("all is well", WHOLE_S, lambda: is_whole(watch, server), 0.3)
    except AssertionError:
        print(status_of(server))
        print([c.name for c in watch.living()], server.log()[-4000:], sep="\n")
        m = server.metrics()
        print(m.samples["salver_ongoing_requests"], m.samples["salver_queued_requests"])
        raise


def same_descriptors(watch, server, before):
    assert not [pid for pid, state in salvers_of(server.process.pid) if state == "Z"], "zombies"
    try:
        wait_for(
            "descriptors as before",
            10,
            lambda: all(n <= before[role] + 1 for role, n in descriptors(watch, server).items()),
            0.2,
        )
    except AssertionError:
        for c in watch.living():
            links = [os.readlink(f"/proc/{c.pid}/fd/{n}") for n in os.listdir(f"/proc/{c.pid}/fd")]
            kinds = collections.Counter(re.sub(r"\d+", "N", link) for link in links)
            print(c.name, len(links), dict(kinds))
        print("before", before)
        raise


def listeners(port):
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "0A":
            yield line


def salvers_of(parent):
    """The children of a process, by inheritance too, that are of a server: (pid, state)."""
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if not entry.isdigit():
                continue
            state, its = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[:2]
            if int(its) == parent and Path(f"/proc/{entry}/comm").read_text() == "salver\n":
                yield int(entry), state


def nothing_left(watch, server, _):
    """A stop ends every process, every listener, every socket of the state folder."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(40) == 0
    watch.end()
    assert not watch.living()
    assert not list(listeners(server.port))
    assert str(server.state) not in Path("/proc/net/unix").read_text()
    for pid, state in salvers_of(os.getpid()):
        if state == "Z":  # its supervisor was killed before we saw it: it is ours to wait for
            os.waitpid(pid, 0)
        else:
            raise AssertionError(f"{pid} {state} is left")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), 1)


# ---- the test ----------------------------------------------------------------------------------


def judge(run, before, after):
    run.check_requests()
    run.check_ledger()
    run.check_obituaries()
    run.check_deaths()
    return run.check_counters(before, after)


def load_on(port, folder, app, first_id, connections):
    return Load(
        port,
        f"/{app}/?id=%s",
        connections=connections,
        first_id=first_id,
        timeout_s=NOBODY_WAITS_S,
        out=folder / f"rows-{app}",
    )


def under_chaos(run, server, folder, dice):
    """Load and faults side by side; then the faults are over, and then the load."""
    with (
        load_on(server.port, folder, "plain", 1, size(4, 8)) as plain,
        load_on(server.port, folder, "safe", SAFE_ID, size(3, 4)) as safe,
    ):
        traffic = Traffic(server.port, dice)
        try:
            run.chaos.start()
            time.sleep(SECONDS)
        finally:
            run.chaos.end()
            time.sleep(1)
            traffic.stop.set()
        plain.stop()
        safe.stop()
        traffic.end()
        run.read({"plain": plain, "safe": safe}, traffic)


def waits_ms(run):
    """How long those who were answered took, from when they were sent."""
    took = [(s.done_ns - s.sent_ns) / 1e6 for s in run.seen if s.app == "plain" and s.status == 200]
    return {f"p{q}": round(quantile(took, q / 100), 1) for q in (50, 99)} | {"max": round(max(took), 1)}


@pytest.mark.timeout(SECONDS * 2 + 500)
def test_chaos_of_everything(tmp_path, small_disk):
    seed = seed_of(7)
    dice = random.Random(seed)
    ledger = Ledger(tmp_path / "ledger", 2000000)
    texts = Texts(ledger)
    ready = {app: None for app in APPS}
    with Server(tmp_path, texts.first(), http={"num_ingress": 2}, ready=ready) as server:
        texts.rest = json.loads(server.file.read_text())
        watch = Watch(server)
        scraper = None
        chaos = Chaos(server, watch, dice, texts, small_disk, seed % 2 == 1)
        run = Run(server, ledger, watch, chaos)
        try:
            whole(watch, server)
            before, fds = counted(server), descriptors(watch, server)
            foreign = foreign_load(server.pids)
            scraper = Scraper(server)
            under_chaos(run, server, tmp_path, dice)
            final = server.admin("PUT", APPLICATIONS, texts.text())
            assert final[0] == 200, final
            whole(watch, server)
            scraper.end()
            sums = judge(run, before, counted(server))
            if scraper.lost and not sums["pages_lost"]:
                run.wrong += [f"a counter went back: {lost}" for lost in scraper.lost]
            for check in (same_descriptors, nothing_left):
                try:
                    check(watch, server, fds)
                except AssertionError as e:
                    run.wrong.append(str(e))
        finally:
            fallen = scraper.fallen if scraper else []
            dump(tmp_path / "chaos", chaos.log, watch.deaths, run.wrong, fallen)
            show(run, scraper)
        figures(
            "chaos_of_everything",
            seed=seed,
            seconds=SECONDS,
            faults=dict(sorted(chaos.done.items())),
            deploys=dict(sorted(chaos.answers.items())),
            deaths=dict(collections.Counter(d.child.role for d in watch.deaths if d.why)),
            outcomes=dict(sorted(run.outcomes.items())),
            **sums,
            tried_again=sum(len(rows) - 1 for rows in run.given.values()),
            scrapes=scraper.scrapes,
            dips=dict(scraper.dips),
            counters_lost=len(scraper.lost),
            plain_ms=waits_ms(run),
            **foreign(),
        )
        assert not run.wrong, f"{len(run.wrong)} wrong; see {tmp_path / 'chaos'}"


@pytest.mark.timeout(400)
def test_an_upgrade_under_load_fails_nobody(tmp_path):
    """To an executable of another version and back, with streams and uploads on their way."""
    seed = seed_of(7)
    newer = patched(tmp_path, b"9.9.9")
    ledger = Ledger(tmp_path / "ledger")
    texts = Texts(ledger)
    ready = {app: None for app in APPS}
    with Server(tmp_path, texts.first(), http={"num_ingress": 2}, ready=ready) as server:
        watch = Watch(server)
        chaos = Chaos(server, watch, random.Random(seed), texts, None, False)  # which is not started
        run = Run(server, ledger, watch, chaos)
        whole(watch, server)
        before, took = counted(server), []
        with (
            load_on(server.port, tmp_path, "plain", 1, 8) as plain,
            load_on(server.port, tmp_path, "safe", SAFE_ID, 4) as safe,
        ):
            traffic = Traffic(server.port, random.Random(seed))
            try:
                for program in (newer, SALVER) * size(1, 10):
                    start = time.monotonic()
                    assert upgrade(server, program).returncode == 0
                    wait_for(
                        "everybody is of the new program",
                        60,
                        lambda program=program: {program_of(p) for p in server.pids()}
                        == {str(program)},
                    )
                    wait_for("all run", 60, lambda: all_run(server), 0.1)
                    took.append(time.monotonic() - start)
                time.sleep(1)
            finally:
                traffic.stop.set()
            plain.stop()
            safe.stop()
            traffic.end()
            run.read({"plain": plain, "safe": safe}, traffic)
        whole(watch, server)
        sums = judge(run, before, counted(server))
        failed = sum(n for word, n in run.outcomes.items() if not word.endswith(": answered"))
        figures(
            "upgrade_under_load",
            seed=seed,
            upgrades=len(took),
            seconds_p50=round(quantile(took, 0.5), 2),
            outcomes=dict(sorted(run.outcomes.items())),
            failed=failed,
            **sums,
            plain_ms=waits_ms(run),
        )
        show(run, None)
        assert not run.wrong and failed == 0
        nothing_left(watch, server, None)


def show(run, scraper):
    print("\n".join(run.chaos.log[-400:]))
    print(dict(run.outcomes), scraper and (scraper.scrapes, scraper.dips))
    for text in run.wrong[:30]:
        print("wrong:", text)
