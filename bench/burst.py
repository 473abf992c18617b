#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Arcadia's block and 200 requests at once, from zero: what waits, what runs and how many replicas there are,
until there are none again. The block is as Arcadia writes it, Ray's delays included (30 s up, 600 s down), so that
it takes more than 20 minutes, nearly all of them idle. The model is SmolLM2-135M, which BENCH_MODEL names, else it
is fetched.

Usage: SALVER_BUILD=build bench/burst.py bench/data/autoscaling.csv       (`--quick`: short delays, to look at it)
Then:  bench/burst_plot.py bench/data/autoscaling.csv docs/autoscaling.svg

       bench/burst.py --peer     the block as Ray Serve was measured with it: 50 clients for 45 s, requests that sleep
                                 0.2 s, downscale_delay_s 10; three rounds
The file gets a row whenever something has changed since the last look, twice a second.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests" / "e2e"), str(REPO / "tests" / "tools")]
import fetch_model  # noqa: E402
import harness  # noqa: E402
import llm  # noqa: E402
import scaling  # noqa: E402

REQUESTS, TOKENS = 200, 64
EVERY_S, GIVE_UP_S, BEFORE_S, AFTER_S = 0.5, 2400, 5, 20


def changes(rows):
    """What is needed to draw the rows: each that differs from the one before, that one, and the last."""

    def differs(i):
        return any(rows[i][k] != rows[i - 1][k] for k in scaling.Watch.FIELDS[1:])

    last = len(rows) - 1
    return [r for i, r in enumerate(rows) if i in (0, last) or differs(i) or differs(i + 1)]


def first(rows, holds):
    return next((r["seconds"] for r in rows if holds(r)), None)


def peer_round(server, out):
    with scaling.Watch(server, "a", 0.2) as watch:
        began = time.monotonic()
        with harness.Load(server.port, "/a/", 50, seconds=45, out=out) as load:
            rows = load.rows()
        ended = time.monotonic() - watch.begin
        harness.wait_for("none is left", 200, lambda: scaling.at_zero(server, "a"), 0.2)
        zero = time.monotonic() - watch.begin
    sent = min(r.sent_ns for r in rows)
    done = sorted((r.done_ns - sent) / 1e9 for r in rows)
    began -= watch.begin
    two = first(watch.rows, lambda r: r["running"] >= 2) - began
    alone = [d for d in done if done[4] < d < two - 0.5]
    return {
        "statuses": scaling.statuses(rows), "first_answer_s": round(done[0], 3), "second_replica_s": round(two, 1),
        "five_replicas_s": round(first(watch.rows, lambda r: r["running"] >= 5) - began, 1),
        "answers_a_second_on_one": round(len(alone) / (alone[-1] - done[4]), 2),
        "answers_a_second_on_five": round(sum(1 for d in done if 38 < d < 44) / 6, 1),
        "last_to_zero_s": round(zero - ended, 1),
    }  # fmt: skip


def peer():
    block = {"max_ongoing_requests": 5}
    block["autoscaling_config"] = {**scaling.ARCADIA["autoscaling_config"], "downscale_delay_s": 10}
    app = harness.application("a", "fake_step", {"defaults": "sleep_ms=200"}, **block)
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        server = scaling.asleep(folder, [app])
        try:
            for nth in range(3):
                foreign = harness.foreign_load(server.pids)
                print(json.dumps({**peer_round(server, f"{folder}/load{nth}"), **foreign()}), flush=True)
        finally:
            server.__exit__(None, None, None)


def main():
    if "--peer" in sys.argv:
        peer()
        return 0
    quick, out = "--quick" in sys.argv, Path(sys.argv[-1])
    model = os.environ.get("BENCH_MODEL") or fetch_model.fetch("smollm2", fetch_model.CACHE, fetch_model.PINS)
    deployment = scaling.block() if quick else scaling.ARCADIA
    app = llm.app(model, name="smollm2", deployment=deployment, threads=1, kv_cache_bytes=64 << 20)
    body = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": TOKENS, "ignore_eos": True}
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        server = scaling.asleep(folder, [app], plugins=llm.PLUGINS)
        try:
            burst = None
            offered = lambda: burst.open if burst else 0
            with scaling.Watch(server, "smollm2", EVERY_S, offered) as watch:
                time.sleep(BEFORE_S)
                foreign = harness.foreign_load(server.pids)
                began = time.monotonic()
                burst = scaling.Burst(server.port, "/v1/completions", [body] * REQUESTS, GIVE_UP_S)
                replies = burst.replies(GIVE_UP_S)
                busy = foreign()
                harness.wait_for("none is left", GIVE_UP_S, lambda: scaling.at_zero(server, "smollm2"), 1)
                time.sleep(1 if quick else AFTER_S)
            began -= watch.begin
        finally:
            server.__exit__(None, None, None)
    for row in watch.rows:
        row["seconds"] = round(row["seconds"] - began, 1)
    rows = watch.rows
    watch.rows = changes(rows)
    watch.write(out)
    took = sorted(r.done_s - r.sent_s for r in replies)
    texts = [r for r in replies if r.status == 200 and json.loads(r.body)["usage"]["completion_tokens"] == TOKENS]
    print(json.dumps({
        "answered": scaling.statuses(replies), "whole": len(texts), **busy,
        "first_answer_s": round(took[0], 2), "median_s": round(statistics.median(took), 1), "last_s": round(took[-1], 1),
        **{f"to_{n}_s": first(rows, lambda r, n=n: r["running"] >= n) for n in range(1, 6)},
        "most": max(r["running"] for r in rows),
        "to_target_1_s": first(rows, lambda r: r["seconds"] > took[-1] and r["target"] == 1),
        "to_zero_s": first(rows, lambda r: r["seconds"] > took[-1] and r["target"] == 0),
        "left_s": first(rows, lambda r: r["seconds"] > took[-1] and r["running"] + r["leaving"] == 0),
    }, indent=1))  # fmt: skip
    return 0 if scaling.statuses(replies) == {200: REQUESTS} else 1


if __name__ == "__main__":
    sys.exit(main())
