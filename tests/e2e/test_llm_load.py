# SPDX-License-Identifier: Apache-2.0
"""Clients that leave, that do not read and that are too many; what the metrics say of them."""

import asyncio
import json
import socket
import threading
import time

import pytest
from harness import Server, read_chunks, read_head, send_request, wait_for
from llm import HELLO, app, client, options, post

LONG = {"prompt": "Hello", "max_tokens": 8000, "ignore_eos": True, "temperature": 0, "stream": True}


@pytest.fixture(scope="module")
def server(shared):
    return shared("llm", [app(max_num_seqs=4, max_waiting_seqs=4)], **options())


def gauge(server, name):
    return server.metrics().sum("vllm:" + name, model_name="tiny")


def idle(server):
    return gauge(server, "num_requests_running") == 0 and gauge(server, "kv_cache_usage_perc") == 0


def open_stream(server, body=LONG):
    s = socket.create_connection(("127.0.0.1", server.port), 30)
    send_request(s, "/v1/completions", server.port, "POST", json.dumps(body).encode())
    f = s.makefile("rb")
    assert read_head(f)[0] == 200
    return s, f


def test_whoever_leaves_frees_the_blocks(server):
    s, f = open_stream(server)
    next(read_chunks(f))
    assert gauge(server, "num_requests_running") == 1 and gauge(server, "kv_cache_usage_perc") > 0
    before = server.metrics().sum("vllm:request_success_total", finished_reason="abort")
    f.close()
    s.close()
    wait_for("its blocks are free", 5, lambda: idle(server))
    after = server.metrics().sum("vllm:request_success_total", finished_reason="abort")
    assert after == before + 1


def test_whoever_leaves_a_reply_in_one_piece(server):
    s = socket.create_connection(("127.0.0.1", server.port), 30)
    body = {**LONG, "stream": False, "n": 3, "temperature": 1}
    send_request(s, "/v1/completions", server.port, "POST", json.dumps(body).encode())
    wait_for("all three run", 5, lambda: gauge(server, "num_requests_running") == 3)
    s.close()
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
    streams = [open_stream(server) for _ in range(4)]
    waits = socket.create_connection(("127.0.0.1", server.port), 30)
    send_request(waits, "/v1/completions", server.port, "POST", json.dumps(LONG).encode())
    waiting = lambda: server.metrics().sum("vllm:num_requests_waiting", replica="tiny/tiny/0")
    wait_for("one waits", 5, lambda: waiting() == 1)
    waits.close()
    wait_for("none waits", 5, lambda: waiting() == 0)
    assert gauge(server, "num_requests_running") == 4
    for s, f in streams:
        f.close()
        s.close()
    wait_for("their blocks are free", 5, lambda: idle(server))


def test_whoever_does_not_read_waits_and_nobody_else(server):
    """8000 events are 1.6 MB: more than is kept for a client, so its sequence pauses."""
    begin = gauge(server, "generation_tokens_total")
    s, f = open_stream(server)

    def stands():
        before = gauge(server, "generation_tokens_total")
        time.sleep(0.3)
        return before > begin and gauge(server, "generation_tokens_total") == before

    wait_for("it pauses", 20, stands)
    assert gauge(server, "generation_tokens_total") - begin < 8000, "it has said everything"
    status, got = post(server, "/v1/completions", {"prompt": "Hi", "max_tokens": 20, "ignore_eos": True})
    assert status == 200 and got["usage"]["completion_tokens"] == 20
    text = b"".join(read_chunks(f)).decode()
    events = text.split("\n\n")[:-1]
    assert events[-1] == "data: [DONE]" and len(events) == 8001
    assert json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"
    f.close()
    s.close()
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
    """One runs at a time; of those that wait, the lower number goes first."""
    a = app(max_num_seqs=1, max_waiting_seqs=8, scheduling_policy="priority")
    with Server(tmp_path, [a], **options()) as s:
        order, threads = [], []

        def ask(priority, tokens):
            body = {"prompt": "x", "max_tokens": tokens, "ignore_eos": True, "priority": priority}
            assert post(s, "/v1/completions", body)[0] == 200
            order.append(priority)

        for i, (priority, tokens) in enumerate(((-9, 8000), (5, 400), (1, 400), (-3, 400))):
            threads.append(threading.Thread(target=ask, args=(priority, tokens)))
            threads[-1].start()
            wait_for("it is there", 5, lambda i=i: there(s) == i + 1)
        assert not order, "the first was done before the last came"
        for t in threads:
            t.join(60)
        assert order == [-9, -3, 1, 5]


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
