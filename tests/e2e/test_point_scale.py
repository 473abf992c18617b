# SPDX-License-Identifier: Apache-2.0
"""A full replica has no idle slot while requests wait, and a decision comes at once (issue 6, point 1)."""

import time

from harness import Load, figures, foreign_load, quantile, size, wait_for
from scaling import asleep, at_zero, block, deployment_of, fake, gets, statuses

CLIENTS, SLOTS, WORK_S = 50, 5, 0.2
SECONDS = size(3, 30)  # that are counted
USED = size(0.85, 0.95)  # of the slots' time; a busy machine wakes the plugin late
BURSTS = size(3, 20)
DECIDED_S = size(2, 1)  # after a burst, with upscale_delay_s 0


def used(rows):
    """The part of the slots' time in which they worked: from the answer that was the last to use a
    slot for the first time to that of SECONDS later. In whole rounds of all slots: they run in step."""
    done = sorted(r.done_ns for r in rows)[SLOTS - 1 :]
    until = done[0] + SECONDS * 1_000_000_000
    n = sum(1 for d in done[1:] if d <= until) // SLOTS * SLOTS
    return n * WORK_S / (SLOTS * (done[n] - done[0]) / 1e9)


def test_no_slot_idles_while_requests_wait(tmp_path):
    """As Ray Serve was measured: 50 clients in a closed loop, requests that sleep 0.2 s."""
    app = fake(config={"defaults": f"sleep_ms={WORK_S * 1000:.0f}"}, **block(max_replicas=1))
    server = asleep(tmp_path / "server", [app])
    try:
        foreign = foreign_load(server.pids)
        with Load(server.port, "/a/", CLIENTS, seconds=SECONDS + 2, out=tmp_path / "load") as load:
            rows = load.rows()
        busy = foreign()
    finally:
        server.__exit__(None, None, None)
    assert {r.status for r in rows} == {200}
    share = used(rows)
    wait_s = quantile([(r.done_ns - r.sent_ns) / 1e9 for r in rows], 0.5)
    figures("capacity_with_50_waiting", used=round(share, 3), median_s=round(wait_s, 2), **busy)
    assert share >= USED


def test_a_burst_is_decided_about_within_a_second(tmp_path):
    app = fake(config={"defaults": "sleep_ms=300"})
    server = asleep(tmp_path / "server", [app])
    took = []
    try:
        for _ in range(BURSTS):
            assert statuses(gets(server, "/a/?sleep_ms=0", 1).replies()) == {200: 1}
            begin = time.monotonic()
            burst = gets(server, "/a/", 40)
            target = lambda: deployment_of(server, "a")["target_num_replicas"]
            wait_for("five are wanted", 10, lambda: target() == 5)
            took.append(time.monotonic() - begin)
            assert statuses(burst.replies()) == {200: 40}
            wait_for("none is left", 20, lambda: at_zero(server, "a"), 0.05)
    finally:
        server.__exit__(None, None, None)
    figures(
        "decision", bursts=BURSTS, median_s=round(quantile(took, 0.5), 2), most_s=round(max(took), 2)
    )
    assert quantile(took, 0.5) < DECIDED_S
