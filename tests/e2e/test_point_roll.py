# SPDX-License-Identifier: Apache-2.0
"""Twenty rolling updates under constant load, five of them to versions that break (issue 6, point
2): no request fails, the broken ones are taken back, no stream crosses versions."""

import threading
import time

from harness import (
    BUILD,
    SANITIZED,
    TEST_PLUGINS,
    Load,
    fd_count,
    figures,
    foreign_load,
    quantile,
    rss_bytes,
    size,
    wait_for,
)
from rolls import (
    STEP_S,
    Clients,
    app_of,
    deploy,
    deployment_of,
    gave_up,
    is_settled,
    replicas,
    roller,
    settled,
    tag_of,
)

REPLICAS = size(2, 4)
PAUSE_S = size(0, 3)  # between two updates
ROLLS = size(12, 100)  # of the test of leaks
FLAT_BYTES = 4 << 20  # what a process may grow by after a quarter of them
LLM = BUILD / "plugins" / "llm" / "llm.so"


def broken(kind):
    def bad(do="", **options):
        return roller("broken", do, num_replicas=REPLICAS, **options)

    missing = {"name": "app", "num_replicas": REPLICAS, "config": {"model": "/nonexistent.gguf"}}
    return {
        "crash in load": (bad("load:segv"), "SIGSEGV"),
        "crash on first request": (bad("submit:segv@1"), "SIGSEGV"),
        "hang": (bad("load:hang", load_timeout_s=1), "load"),
        "bad config": (bad(config={"max_batch": "lots"}), "max_batch"),
        "missing model": ({**bad(), "plugin": str(LLM), "deployments": [missing]}, "nonexistent"),
    }[kind]


PLAN = [None, None, "crash in load", None, None, None, "crash on first request", None, None, None,
        "hang", None, None, None, "bad config", None, None, None, "missing model", None]  # fmt: skip


def one_update(server, i, kind, held):
    """Rolls to version i, or to a broken one and back. Seconds it took."""
    was, begin = deployment_of(server)["version"], time.monotonic()
    if kind:
        app, says = broken(kind)
        deploy(server, app)
        gave_up(server, says)
        assert deployment_of(server)["version"] == was
    else:
        deploy(server, roller(f"v{i}", num_replicas=REPLICAS))
        settled(server, before=was)
        held = f"v{i}"
    took = time.monotonic() - begin
    assert tag_of(server) == held
    return took, held


def test_twenty_updates_under_load(server, tmp_path):
    assert len(PLAN) == 20 and sum(kind is not None for kind in PLAN) == 5
    s = server([roller("v0", num_replicas=REPLICAS)])
    before = s.metrics().sum("salver_requests_total", application="app")
    foreign = foreign_load(s.pids)
    good, bad, held, asked = [], {}, "v0", 0
    least = []
    done = threading.Event()

    def count_ready():
        while not done.is_set():
            least.append(sum(r["state"] == "RUNNING" for r in replicas(s)))
            time.sleep(size(0.05, 0.01))

    watch = threading.Thread(target=count_ready, daemon=True)
    watch.start()
    load = Load(s.port, f"/app/?sleep_ms={size(10, 2)}", connections=4, seconds=len(PLAN) * STEP_S, out=tmp_path / "rows")
    begin = time.monotonic()
    with load, Clients(s, plain=4, streams=4, uploads=4) as clients:
        for i, kind in enumerate(PLAN, 1):
            took, held = one_update(s, i, kind, held)
            assert not clients.wrong, f"update {i}, {kind}: {clients.wrong[:5]}"
            asked += 1
            if kind:
                bad[kind] = round(took, 2)
            else:
                good.append(took)
            time.sleep(PAUSE_S)
        clients.stop()
        load.stop()
        rows = load.rows()
    seconds = time.monotonic() - begin
    done.set()
    watch.join()

    def counted():
        return s.metrics().sum("salver_requests_total", application="app") - before

    sent = len(rows) + clients.sent + asked
    wait_for("every request is counted", 5, lambda: counted() >= sent)
    failed = [r for r in rows if r.status != 200 or r.error]
    figures(
        "rolling_updates",
        updates=len(PLAN),
        broken=len(bad),
        replicas=REPLICAS,
        seconds=round(seconds, 1),
        requests=sent,
        failed=len(failed) + len(clients.wrong),
        requests_s=round(sent / seconds),
        by_kind={k: sum(clients.tags(k).values()) for k in ("plain", "stream", "upload")},
        update_p50_s=round(quantile(good, 0.5), 2),
        update_max_s=round(max(good), 2),
        roll_back_s=bad,
        least_ready=min(least),
        latency_p50_ms=round(quantile([(r.done_ns - r.sent_ns) / 1e6 for r in rows], 0.5), 2),
        latency_p99_ms=round(quantile([(r.done_ns - r.sent_ns) / 1e6 for r in rows], 0.99), 2),
        latency_max_ms=round(max((r.done_ns - r.sent_ns) / 1e6 for r in rows), 2),
        **foreign(),
    )
    assert not failed, failed[:5]
    assert not clients.wrong, clients.wrong[:5]
    assert sum(clients.tags().values()) == clients.sent, "each has one outcome"
    assert counted() == sent, "and the server knows of each, and of no other"
    assert "broken" not in clients.tags()
    assert min(least) >= REPLICAS, "the old version stays routable all the time"
    assert set(clients.tags()) <= {f"v{i}" for i in range(len(PLAN) + 1)}


def test_nothing_leaks_over_many_rolls(server, tmp_path):
    """Descriptors, memory, copies and processes after a hundred rolls, half of them new files."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    code = (TEST_PLUGINS / "fake_step.so").read_bytes()

    def new_file(i):
        (plugins / "new").write_bytes(code + b"." * i)
        (plugins / "new").rename(plugins / "mine.so")

    def app(i):
        return {**roller(f"v{i}"), "plugin": "mine"}

    new_file(0)
    s = server([app(0)], plugins=plugins)
    fixed = [s.process.pid, *s.pids("control"), *s.pids("ingress")]

    def sizes():
        wait_for("the dead are buried", 15, lambda: len(s.pids("worker")) == 1)
        time.sleep(2.5)
        return [(rss_bytes(pid), fd_count(pid)) for pid in fixed]

    flat = None
    begin = time.monotonic()
    with Clients(s, plain=1, streams=1, uploads=1, events=5) as clients:
        for i in range(1, ROLLS + 1):
            was = deployment_of(s)["version"]
            if i % 2:
                deploy(s, app(i))
            else:
                new_file(i)
            settled(s, before=was)
            if i == ROLLS // 4:
                flat = sizes()
    end = sizes()
    growth = [(after[0] - before[0], after[1] - before[1]) for before, after in zip(flat, end)]
    names = ("supervisor", "control", "ingress")
    wait_for("copies went", 20, lambda: len(list((s.state / "plugins").iterdir())) <= 2, 0.2)
    figures(
        "rolls_leak",
        rolls=ROLLS,
        seconds=round(time.monotonic() - begin, 1),
        failed=len(clients.wrong),
        rss_mb={n: round(e[0] / 1e6, 1) for n, e in zip(names, end)},
        rss_growth_kb={n: g[0] >> 10 for n, g in zip(names, growth)},
        fd_growth={n: g[1] for n, g in zip(names, growth)},
        copies=len(list((s.state / "plugins").iterdir())),
    )
    assert not clients.wrong, clients.wrong[:5]
    assert all(g[1] <= 0 for g in growth), "descriptors are left open"
    assert SANITIZED or max(g[0] for g in growth) < FLAT_BYTES
    assert is_settled(app_of(s))
