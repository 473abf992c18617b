#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the server around a language model costs: the LLM plugin over a backend that computes nothing
(kernels_null.c), STREAMS streamed completions at once. Prints Markdown.

The worker's CPU time (scheduler, detokeniser, chunks, hand-over to the ingress) over the tokens it
gave, and the ingress's beside it. Steps last SALVER_NULL_STEP_US without using the processor, so that
every stream takes part in every step, as with a model.

`make bench K=cost`. Environment: SALVER_BUILD (build), BENCH_ROUNDS (7), BENCH_STREAMS (256), SALVER_NULL_STEP_US (4000).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests" / "e2e"), str(REPO / "tests" / "tools")]
import fetch_model  # noqa: E402
import harness  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 7))
STREAMS = int(os.environ.get("BENCH_STREAMS", 256))
SECONDS = 3
os.environ.setdefault("SALVER_NULL_STEP_US", "4000")


def cpu_ns(pid):
    """CPU time of all threads of a process."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def one_round(server, body):
    reader = subprocess.Popen(
        [str(harness.TOOLS / "sse_read"), "-p", str(server.port), "-u", "/v1/completions",
         "-n", str(STREAMS), "-d", str(SECONDS), "-w", "1", "-b", json.dumps(body)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    time.sleep(1.2)  # every stream runs
    pids = {role: server.pids(role)[0] for role in ("worker", "ingress")}
    name = "vllm:generation_tokens_total"
    before, tokens = {r: cpu_ns(p) for r, p in pids.items()}, server.metrics().sum(name)
    time.sleep(SECONDS - 1)
    running = server.metrics().sum("vllm:num_requests_running")
    tokens = server.metrics().sum(name) - tokens
    spent = {r: cpu_ns(p) - before[r] for r, p in pids.items()}
    seen = harness.sse_result(reader)
    assert seen["answered"] == STREAMS, seen
    return {"running": running, "tokens": tokens, **{r: ns / tokens for r, ns in spent.items()}}


def between_steps():
    """The scheduler alone, in one process."""
    out = subprocess.run([str(harness.TOOLS / "engine")], capture_output=True, check=True, text=True).stdout
    print(f"\n```\n{out.rstrip()}\n```")


def run(folder):
    model = fetch_model.fetch("smollm2", fetch_model.CACHE, fetch_model.PINS)
    app = {
        "name": "llm",
        "route_prefix": "/",
        "plugin": "llm",
        "deployments": [
            {
                "name": "model",
                "config": {
                    "model": str(model),
                    "max_num_seqs": STREAMS,
                    "kv_cache_bytes": 64 << 20,
                },
            }
        ],
    }
    body = {"model": "model", "prompt": "Once upon a time", "max_tokens": 8000, "stream": True,
            "ignore_eos": True, "temperature": 0}  # fmt: skip
    with harness.Server(folder, [app], plugins=harness.TOOLS / "null", ready={"llm": "v1/models"}) as server:
        rounds = [one_round(server, body) for _ in range(ROUNDS)]
    print(f"\n## Around the model: {STREAMS} streams, steps of "
          f"{os.environ['SALVER_NULL_STEP_US']} us that compute nothing\n")  # fmt: skip
    print("| process | CPU a token, us: median | min | max |\n|---|---|---|---|")
    for role in ("worker", "ingress"):
        us = [r[role] / 1e3 for r in rounds]
        print(f"| {role} | {statistics.median(us):.2f} | {min(us):.2f} | {max(us):.2f} |")
    print(f"\n{ROUNDS} rounds; running {min(r['running'] for r in rounds):.0f} to "
          f"{max(r['running'] for r in rounds):.0f}; {sum(r['tokens'] for r in rounds):.0f} tokens")  # fmt: skip

    between_steps()
