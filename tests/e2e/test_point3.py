# SPDX-License-Identifier: Apache-2.0
"""max_ongoing_requests holds over all ingresses, and no slot idles (issue 3, point 3)."""

import bisect
import collections

from harness import (
    FULL,
    Ledger,
    Load,
    Server,
    application,
    figures,
    foreign_load,
    quantile,
    size,
)

REQUESTS = size(600, 10000)
BURST = 100
INGRESSES = 4
UNFAIR = size(3, 1.5)  # mean waits of two ingresses; a few bursts on a busy machine say little
IDLE_WHILE_WAITED_S = 0.002  # p99


def waiting_spans(rows, given):
    """[(from, to)) in which at least one request waited: sent and not yet at the plugin."""
    edges = sorted([(r.sent_ns, 1) for r in rows] + [(given[r.id].start_ns, -1) for r in rows])
    spans, waiting, since = [], 0, 0
    for at, change in edges:
        if waiting == 0 and change == 1:
            since = at
        waiting += change
        if waiting == 0:
            spans.append((since, at))
    return spans


def overlap(spans, starts, low, high):
    total = 0
    for begin, end in spans[max(0, bisect.bisect_right(starts, low) - 1) :]:
        if begin >= high:
            break
        total += max(0, min(high, end) - max(low, begin))
    return total


def idle_while_waited(rows, given):
    """For each pause of a replica between two requests: seconds of it in which one waited."""
    spans = waiting_spans(rows, given)
    starts = [s[0] for s in spans]
    by_pid = collections.defaultdict(list)
    for row in given.values():
        by_pid[row.pid].append(row)
    idle = []
    for work in by_pid.values():
        work.sort(key=lambda r: r.start_ns)
        for before, after in zip(work, work[1:]):
            assert before.end_ns <= after.start_ns, "two at once in a plugin"
            waited = overlap(spans, starts, before.end_ns, after.start_ns)
            if waited > 0:
                idle.append(waited / 1e9)
    return idle


def burst(server, ledger, sockets, first_id, out):
    foreign = foreign_load(server.pids)
    with Load(
        server.port,
        "/ledger/?id=%s",
        connections=len(sockets),
        requests=REQUESTS // 2,
        first_id=first_id,
        pause_us=3000,
        sockets=sockets,
        out=out,
    ) as load:
        for s in sockets:
            s.close()  # the load has its own descriptor of it
        rows = load.rows()
    assert not [r for r in rows if r.status != 200], "every request is answered"
    ids = {r.id for r in rows}
    given = {g.id: g for g in ledger.rows() if g.id in ids}
    assert len(given) == len(rows), "every request was given to a plugin once"
    return rows, given, foreign()


def test_one_at_a_time_and_never_idle(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    app = application(
        "ledger",
        "ledger",
        {"path": str(ledger.path), "busy_us": 1000},
        num_replicas=2,
        max_ongoing_requests=1,
        max_batch_size=1,
    )
    with Server(tmp_path, [app], http={"num_ingress": INGRESSES}) as server:
        ingresses = server.pids("ingress")
        assert len(ingresses) == INGRESSES
        for name, sockets_of, first_id in (
            ("one_ingress", [BURST, 0, 0, 0], 1),
            ("all_ingresses", [BURST // 4] * 4, 10**6),
        ):
            mixed = []
            for pid, n in zip(ingresses, sockets_of):
                opened = server.connections_to(pid, n) if n else []
                mixed += [(i, pid, s) for i, s in enumerate(opened)]
            mixed.sort(key=lambda entry: entry[0])  # no ingress hears of a burst before the others
            sockets = [s for _, _, s in mixed]
            owner = {at: pid for at, (_, pid, _) in enumerate(mixed)}
            rows, given, foreign = burst(server, ledger, sockets, first_id, tmp_path / name)
            idle = idle_while_waited(rows, given)
            waits = collections.defaultdict(list)
            for row in rows:
                waits[owner[row.connection]].append((given[row.id].start_ns - row.sent_ns) / 1e6)
            means = {pid: sum(w) / len(w) for pid, w in waits.items()}
            figures(
                f"slots_{name}",
                requests=len(rows),
                most_at_once=ledger.head()["most_at_once"],
                pauses=len(idle),
                idle_while_waited_p50_ms=round(quantile(idle, 0.5) * 1e3, 3),
                idle_while_waited_p99_ms=round(quantile(idle, 0.99) * 1e3, 3),
                wait_mean_ms=[round(m, 2) for m in means.values()],
                wait_p99_ms=[round(quantile(w, 0.99), 2) for w in waits.values()],
                **foreign,
            )
            assert ledger.head()["most_at_once"] == 1
            assert all(g.n_batch == 1 for g in given.values())
            assert len({g.pid for g in given.values()}) == 2, "both replicas work"
            if FULL:
                assert quantile(idle, 0.99) <= IDLE_WHILE_WAITED_S
            assert max(means.values()) <= UNFAIR * min(means.values()), f"unfair: {means}"
