# SPDX-License-Identifier: Apache-2.0
"""Clients that leave, that do not read and that are too many; what the metrics say of them."""

import asyncio
import contextlib
import json
import threading
import time

import pytest
from clients import Raw
from harness import PATIENCE, Server, wait_for
from llm import HELLO, app, client, options, post

LONG = {"prompt": "Hello", "max_tokens": 8000, "ignore_eos": True, "temperature": 0, "stream": True}


@pytest.fixture
def server(shared):
    """One for all; what a test before left behind would be counted by the next."""
    s = shared("llm", [app(max_num_seqs=4, max_waiting_seqs=4)], **options())
    wait_for("nothing is left of the test before", 10, lambda: idle(s))
    return s


def gauge(server, name):
    return server.metrics().sum("vllm:" + name, model_name="tiny")


def idle(server):
    return gauge(server, "num_requests_running") == 0 and gauge(server, "kv_cache_usage_perc") == 0


def ask(server, body=LONG, rcvbuf=None):
    """A connection that has asked and was not answered yet."""
    c = Raw(server.port, timeout=60, rcvbuf=rcvbuf)
    c.ask("/v1/completions", "POST", json.dumps(body).encode())
    return c


def test_whoever_leaves_frees_the_blocks(server):
    with ask(server) as c:
        assert c.head()[0] == 200
        next(c.chunks())
        assert gauge(server, "num_requests_running") == 1 and gauge(server, "kv_cache_usage_perc") > 0
        before = server.metrics().sum("vllm:request_success_total", finished_reason="abort")
    wait_for("its blocks are free", 5, lambda: idle(server))
    after = server.metrics().sum("vllm:request_success_total", finished_reason="abort")
    assert after == before + 1


def test_whoever_leaves_a_reply_in_one_piece(server):
    with ask(server, {**LONG, "stream": False, "n": 3, "temperature": 1}):
        wait_for("all three run", 5, lambda: gauge(server, "num_requests_running") == 3)
    wait_for("their blocks are free", 5, lambda: idle(server))


def test_the_clients_close_ends_it(server):
    api = client(server)
    stream = api.chat.completions.create(
        model="tiny", messages=HELLO, stream=True, max_tokens=8000, extra_body={"ignore_eos": True}
    )
    for i, _ in enumerate(stream):
        if i == 3:
            break
    stream.close()
    wait_for("its blocks are free", 5, lambda: idle(server))


def test_whoever_waits_can_leave_too(server):
    waiting = lambda: server.metrics().sum("vllm:num_requests_waiting", replica="tiny/tiny/0")
    with contextlib.ExitStack() as streams:
        for _ in range(4):
            assert streams.enter_context(ask(server)).head()[0] == 200
        with ask(server):
            wait_for("one waits", 5, lambda: waiting() == 1)
        wait_for("none waits", 5, lambda: waiting() == 0)
        assert gauge(server, "num_requests_running") == 4
    wait_for("their blocks are free", 5, lambda: idle(server))


def test_whoever_does_not_read_waits_and_nobody_else(server):
    """3000 events are 1.5 MB: more than is kept for a client, so its sequence pauses."""
    begin = gauge(server, "generation_tokens_total")

    def stands():
        before = gauge(server, "generation_tokens_total")
        time.sleep(0.3)
        return before > begin and gauge(server, "generation_tokens_total") == before

    with ask(server, {**LONG, "max_tokens": 3000, "logprobs": 20}, rcvbuf=4096) as c:
        assert c.head()[0] == 200
        wait_for("it pauses", 20, stands)
        assert gauge(server, "generation_tokens_total") - begin < 3000, "it has said everything"
        status, got = post(server, "/v1/completions", {"prompt": "Hi", "max_tokens": 20, "ignore_eos": True})
        assert status == 200 and got["usage"]["completion_tokens"] == 20
        text = b"".join(c.chunks()).decode()
    events = text.split("\n\n")[:-1]
    assert events[-1] == "data: [DONE]" and len(events) == 3001
    assert json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"
    wait_for("its blocks are free", 5, lambda: idle(server))


def test_more_than_it_holds_wait_in_the_core_and_all_are_answered(server):
    async def all_of_them():
        loop = asyncio.get_running_loop()
        ask = {"prompt": "Hello", "max_tokens": 50, "ignore_eos": True}
        return await asyncio.gather(
            *(loop.run_in_executor(None, post, server, "/v1/completions", ask) for _ in range(24))
        )

    for status, got in asyncio.run(all_of_them()):
        assert status == 200 and got["usage"]["completion_tokens"] == 50
    wait_for("nothing is left", 5, lambda: idle(server))


def test_alone_and_in_company_it_says_the_same(server):
    bodies = [
        {"prompt": [3 + i, 9, 27] * (1 + i), "max_tokens": 40, "ignore_eos": True,
         "temperature": [0, 1.0][i % 2], "seed": i, "logprobs": 1}
        for i in range(8)
    ]  # fmt: skip
    alone = [post(server, "/v1/completions", b)[1]["choices"] for b in bodies]

    async def together():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(None, post, server, "/v1/completions", b) for b in bodies)
        )

    assert [got["choices"] for _, got in asyncio.run(together())] == alone


def test_the_prefix_cache_and_its_salt(shared):
    s = shared("cache", [app(name="tiny", enable_prompt_tokens_details=True)], **options())
    prompt = [(7 * i) % 200 + 3 for i in range(100)]

    def cached(**more):
        body = {"prompt": prompt, "max_tokens": 1, **more}
        return post(s, "/v1/completions", body)[1]["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached() == 0
    assert cached() == 96  # whole blocks of 16
    assert cached(cache_salt="mine") == 0
    assert cached(cache_salt="mine") == 96
    assert cached(cache_salt="yours") == 0
    m = s.metrics()
    assert m.sum("vllm:prefix_cache_hits_total") == 192
    assert m.sum("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 192
    assert m.sum("vllm:prompt_tokens_by_source_total", source="local_compute") == 308
    assert m.sum("vllm:prompt_tokens_total") == 500


def test_priority(tmp_path):
    """One runs at a time, here until its client leaves; of those that wait, the lower number goes first."""
    a = app(max_num_seqs=1, max_waiting_seqs=32, scheduling_policy="priority")
    with Server(tmp_path, [a], **options()) as s:
        order, threads = [], []

        # Several sequences each, one after the other: that takes long enough to tell who was first.
        def wait_in_line(priority):
            body = {"prompt": "x", "max_tokens": 4000 // PATIENCE**2, "ignore_eos": True, "priority": priority, "n": 4}
            assert post(s, "/v1/completions", body)[0] == 200
            order.append(priority)

        # Not a stream: that gives its place away whenever its client is slower than the model.
        with ask(s, {**LONG, "priority": -9, "stream": False, "n": 8, "temperature": 1}):
            wait_for("the first runs", 5, lambda: there(s) == 8)
            for i, priority in enumerate((5, 1, -3)):
                threads.append(threading.Thread(target=wait_in_line, args=(priority,)))
                threads[-1].start()
                wait_for("it is there", 5, lambda i=i: s.metrics().sum("salver_ongoing_requests") == i + 2)
            assert not order and gauge(s, "num_requests_running") == 1
        for t in threads:
            t.join(60 * PATIENCE)
        assert order == [-3, 1, 5]


def there(s):
    return gauge(s, "num_requests_running") + s.metrics().sum(
        "vllm:num_requests_waiting", replica="tiny/tiny/0"
    )


METRICS = """
num_requests_running num_requests_waiting num_requests_waiting_by_reason kv_cache_usage_perc
cache_config_info prompt_tokens_total generation_tokens_total request_success_total
num_preemptions_total prefix_cache_queries_total prefix_cache_hits_total
request_prompt_tokens_bucket request_generation_tokens_bucket request_params_max_tokens_bucket
iteration_tokens_total_bucket request_params_n_bucket time_to_first_token_seconds_bucket
inter_token_latency_seconds_bucket e2e_request_latency_seconds_bucket
request_queue_time_seconds_bucket request_inference_time_seconds_bucket
request_prefill_time_seconds_bucket request_decode_time_seconds_bucket
""".split()


def test_vllms_names(server):
    """EXPECTED_METRICS_V1 of vLLM's tests/entrypoints/serve/instrumentator/test_metrics.py."""
    body = {"prompt": [5] * 20, "max_tokens": 7, "ignore_eos": True, "n": 2, "temperature": 1}
    before = server.metrics()
    assert post(server, "/v1/completions", body)[0] == 200
    after = server.metrics()
    for name in METRICS:
        assert after.samples["vllm:" + name], name
        for labels, _ in after.samples["vllm:" + name]:
            assert labels["model_name"] == "tiny"
            assert labels.get("engine", "0") == "0"

    def grew(name, **labels):
        return after.sum("vllm:" + name, **labels) - before.sum("vllm:" + name, **labels)

    assert grew("generation_tokens_total") == 14
    assert grew("request_success_total", finished_reason="length") == 2
    assert grew("request_prompt_tokens_sum") == 20 and grew("request_prompt_tokens_count") == 1
    assert grew("request_generation_tokens_sum") == 14
    assert grew("time_to_first_token_seconds_count") == 2
    assert grew("inter_token_latency_seconds_count") == 12
    assert grew("request_params_n_sum") == 2 and grew("request_params_max_tokens_sum") == 7
    for name in ("e2e_request_latency", "request_queue_time", "request_prefill_time",
                 "request_decode_time", "request_inference_time"):  # fmt: skip
        assert grew(f"{name}_seconds_count") == 2, name
    info = after.samples["vllm:cache_config_info"][0][0]
    assert info["block_size"] == "16" and int(info["num_gpu_blocks"]) > 0
