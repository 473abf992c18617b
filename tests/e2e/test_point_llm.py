# SPDX-License-Identifier: Apache-2.0
"""Language models under load: many streams in a cache too small for them, and a long prompt that
arrives beside running streams (issue 4, points 5 and 6). In full size with SmolLM2, whose file
$SALVER_SMOLLM2 names; else with the tiny model of tests/data."""

import asyncio
import json
import os
import random
import time

import pytest
from harness import BUILD, REPO, Server, figures, quantile, size, wait_for


TINY = REPO / "tests" / "data" / "llm" / "tiny-llama"
SMOLLM2 = os.environ.get("SALVER_SMOLLM2")
PLUGINS = BUILD / "plugins"


def llm(model, **config):
    return {
        "name": "llm",
        "route_prefix": "/",
        "plugin": "llm",
        "deployments": [{"name": "model", "config": {"model": str(model), **config}}],
    }


def serve(folder, app):
    return Server(folder, [app], plugins=PLUGINS, ready={"llm": "v1/models"})


class Stream:
    """One streamed completion over a connection of its own; tokens() yields its pieces."""

    def __init__(self, port, body):
        self.port = port
        self.body = json.dumps({**body, "model": "model", "stream": True}).encode()
        self.finish = self.usage = self.writer = None
        self.done = False

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(self.body)
            + self.body
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split()[1])
        length = head.lower().partition(b"content-length:")[2].split()
        self.length = int(length[0]) if length else None
        if self.status != 200:
            raise AssertionError((self.status, await self.reader.readexactly(self.length)))
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()

    async def pieces(self):
        if self.length is not None:  # it was whole before its head was sent
            yield await self.reader.readexactly(self.length)
            return
        while (n := int(await self.reader.readline(), 16)) > 0:
            yield (await self.reader.readexactly(n + 2))[:-2]
        await self.reader.readexactly(2)

    async def events(self):
        rest = b""
        async for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n\n")
            for event in whole:
                assert event.startswith(b"data: "), event
                yield event[6:].decode()
        assert rest == b""

    async def tokens(self):
        async for event in self.events():
            if event == "[DONE]":
                self.done = True
                continue
            chunk = json.loads(event)
            assert "error" not in chunk, chunk
            self.usage = chunk.get("usage") or self.usage
            for choice in chunk["choices"]:
                self.finish = choice["finish_reason"] or self.finish
                yield choice["text"]


async def whole(port, body):
    async with Stream(port, body) as s:
        text = "".join([piece async for piece in s.tokens()])
        assert s.done and s.finish in ("stop", "length"), (s.done, s.finish)
        return text, s.finish


# ---- point 5 ---------------------------------------------------------------------------------

STREAMS = size(32, 200)
SECONDS = size(6, 300)
KINDS = size(24, 120)


def kinds(rng, vocab, longest):
    """Requests whose answers alone are known before the load: shared and single prefixes, greedy and
    seeded, short and long."""
    shared = [[rng.randrange(3, vocab) for _ in range(longest // 2)] for _ in range(3)]
    made = []
    for i in range(KINDS):
        prompt = list(rng.choice(shared)) if i % 3 else []
        prompt += [rng.randrange(3, vocab) for _ in range(rng.randint(1, longest // 4))]
        body = {"prompt": prompt, "max_tokens": rng.randint(1, longest // 4), "ignore_eos": True}
        if i % 2:
            body |= {"temperature": 0.9, "top_p": 0.95, "seed": i, "frequency_penalty": 0.3}
        else:
            body |= {"temperature": 0}
        made.append(body)
    return made


async def hammer(port, made, alone, seconds, counts):
    until = time.monotonic() + seconds
    rng = random.Random(5)

    async def client(number):
        mine = random.Random(number)
        while time.monotonic() < until:
            i = mine.randrange(len(made))
            leave_after = mine.randint(0, 8) if mine.random() < 0.25 else None
            async with Stream(port, made[i]) as s:
                counts["sent"] += 1
                text = ""
                async for piece in s.tokens():
                    text += piece
                    if leave_after is not None:
                        leave_after -= 1
                        if leave_after < 0:
                            break
                if s.done:
                    counts["whole"] += 1
                    assert (text, s.finish) == alone[i], f"request {i} differs from the one alone"
                else:
                    counts["left"] += 1
                    assert alone[i][0].startswith(text), f"request {i} differs from the one alone"

    await asyncio.gather(*(client(rng.random()) for _ in range(STREAMS)))


@pytest.mark.timeout(900)  # five minutes in full size, and each request once more alone
def test_many_streams_in_a_small_cache(tmp_path):
    model, vocab, longest = (SMOLLM2, 40000, 256) if SMOLLM2 and size(0, 1) else (TINY, 250, 200)
    blocks = max(2, STREAMS // 16) * (longest // 16 + 1)  # what a sixteenth of the streams would take
    per_block = 16 * 2 * 4 * (30 * 3 * 64 if model == SMOLLM2 else 2 * 2 * 16)
    app = llm(
        model,
        kv_cache_bytes=blocks * per_block,
        kv_cache_dtype="f32",
        max_model_len=longest,
        max_num_seqs=64,
        max_waiting_seqs=1024,
        max_num_batched_tokens=128,
    )
    made = kinds(random.Random(7), vocab, longest)
    with serve(tmp_path, app) as server:

        async def one_by_one():
            return [await whole(server.port, body) for body in made]

        alone = asyncio.run(one_by_one())
        before = server.metrics()
        counts = {"sent": 0, "whole": 0, "left": 0}
        asyncio.run(hammer(server.port, made, alone, SECONDS, counts))

        def idle():
            m = server.metrics()
            nothing = ("vllm:num_requests_running", "vllm:num_requests_waiting")
            return m if all(m.sum(n) == 0 for n in nothing) else None

        after = wait_for("nothing runs", 30, idle)

        def grew(name, **labels):
            return int(after.sum(name, **labels) - before.sum(name, **labels))

        seen = {
            "finished": grew("vllm:request_success_total"),
            "requests": grew("salver_requests_total", application="llm"),
            "preemptions": grew("vllm:num_preemptions_total"),
            "prefix_hits": grew("vllm:prefix_cache_hits_total"),
            "prefix_queries": grew("vllm:prefix_cache_queries_total"),
        }
        figures("llm_small_cache", streams=STREAMS, seconds=SECONDS, **counts, **seen)
        assert counts["sent"] == counts["whole"] + counts["left"]
        assert seen["requests"] == counts["sent"]
        assert counts["whole"] <= seen["finished"] <= counts["sent"]
        assert counts["left"] > 0 and seen["preemptions"] > 0 and seen["prefix_hits"] > 0
        assert after.sum("vllm:kv_cache_usage_perc") == 0, "blocks are left in use"

        async def again():
            return [await whole(server.port, body) for body in made]

        assert asyncio.run(again()) == alone


# ---- point 6 ---------------------------------------------------------------------------------


async def gaps_beside_a_long_prompt(port, long_prompt, running):
    """The gaps between two tokens of the running streams before and while the long prompt is read, how
    long its first token took, and how many tokens the slowest stream got meanwhile."""
    streams = [
        Stream(port, {"prompt": [100 + i] * 8, "max_tokens": 2000, "ignore_eos": True,
                      "temperature": 0})
        for i in range(running)
    ]
    stamps = [[] for _ in streams]
    started = asyncio.Event()

    async def follow(i, stream):
        async with stream as s:
            async for _ in s.tokens():
                stamps[i].append(time.monotonic())
                if all(len(x) >= 8 for x in stamps):
                    started.set()

    tasks = [asyncio.create_task(follow(i, s)) for i, s in enumerate(streams)]
    await started.wait()
    begin = time.monotonic()
    async with Stream(port, {"prompt": long_prompt, "max_tokens": 2, "temperature": 0}) as s:
        async for _ in s.tokens():
            first = time.monotonic()
            break
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    during, before = [], []
    for x in stamps:
        for a, b in zip(x, x[1:]):
            (during if b > begin and a < first else before).append(b - a)
    meanwhile = min(sum(begin < t < first for t in x) for x in stamps)
    return before, during, first - begin, meanwhile


@pytest.mark.skipif(not SMOLLM2, reason="needs SmolLM2: $SALVER_SMOLLM2")
def test_a_long_prompt_beside_running_streams(tmp_path):
    running, long = 16, size(1000, 4000)
    long_prompt = [random.Random(1).randrange(100, 40000) for _ in range(long)]
    found = {}
    for chunked, budget in ((True, 64), (True, 256), (False, 4096)):
        app = llm(
            SMOLLM2,
            max_num_batched_tokens=budget,
            enable_chunked_prefill=chunked,
            max_model_len=4096,
            max_num_seqs=32,
            enable_prefix_caching=False,
        )
        with serve(tmp_path / f"{chunked}{budget}", app) as server:
            before, during, ttft, meanwhile = asyncio.run(
                gaps_beside_a_long_prompt(server.port, long_prompt, running)
            )
        found[budget] = meanwhile
        figures(
            "llm_long_prompt",
            chunked=chunked,
            budget=budget,
            prompt=long,
            gap_before_p50_ms=round(quantile(before, 0.5) * 1e3, 1),
            gap_before_max_ms=round(max(before) * 1e3, 1),
            gap_during_p50_ms=round(quantile(during, 0.5) * 1e3, 1),
            gap_during_max_ms=round(max(during) * 1e3, 1),
            first_token_s=round(ttft, 2),
            tokens_meanwhile=meanwhile,
        )
    # In chunks of what the budget leaves beside the running streams, each of which gets a token a step;
    # without chunks they stand still for the whole prompt.
    for budget in (64, 256):
        assert found[budget] >= long // budget - 1, found
    assert found[4096] <= 2, found
