# SPDX-License-Identifier: Apache-2.0
"""A model that computes what is no number, and a server that is stopped in the middle of an answer."""

import json
import shutil
import signal
import struct
import threading

import pytest
from harness import Server, wait_for
from llm import DATA, app, events, options, post

POISON = 77  # its embedding is no number


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A copy of an untied model in float16, so that every logit is fine until POISON is read."""
    folder = tmp_path_factory.mktemp("poisoned") / "model"
    shutil.copytree(DATA / "tiny-mistral", folder)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    (n,) = struct.unpack_from("<Q", data)
    entry = json.loads(data[8 : 8 + n])["model.embed_tokens.weight"]
    assert entry["dtype"] == "F16"
    width = entry["shape"][1]
    at = 8 + n + entry["data_offsets"][0] + POISON * width * 2
    data[at : at + width * 2] = struct.pack("<H", 0x7E00) * width
    file.write_bytes(data)
    return folder


def test_logits_that_are_no_numbers(poisoned, shared):
    s = shared("poisoned", [app(model=poisoned)], **options())
    good = {"prompt": [5, 6, 7], "max_tokens": 8, "ignore_eos": True, "temperature": 0}
    status, alone = post(s, "/v1/completions", good)
    assert status == 200

    status, got = post(s, "/v1/completions", {**good, "prompt": [5, POISON]})
    assert status == 500 and got["error"]["type"] == "InternalServerError"
    assert "not numbers" in got["error"]["message"]

    # It is drawn as the first token, sent, and read in the next step.
    body = {**good, "logit_bias": {str(POISON): 100}, "n": 1}
    first, error, done = events(s, "/v1/completions", body)
    assert json.loads(first)["choices"][0]["finish_reason"] is None
    assert json.loads(error)["error"]["code"] == 500 and done == "[DONE]"

    # One bad prompt of two takes the whole request, and nobody else's.
    status, got = post(s, "/v1/completions", {**good, "prompt": [[5, 6, 7], [POISON]]})
    assert status == 500
    assert post(s, "/v1/completions", good)[1]["choices"] == alone["choices"]
    m = s.metrics()
    assert m.sum("vllm:request_success_total", finished_reason="error") >= 3
    assert m.sum("vllm:kv_cache_usage_perc") == 0 and m.sum("vllm:num_requests_running") == 0


def test_a_stop_waits_for_answers(tmp_path):
    with Server(tmp_path, [app()], **options()) as s:
        found = []
        body = {"prompt": "Hello", "max_tokens": 3000, "ignore_eos": True}
        t = threading.Thread(target=lambda: found.extend(events(s, "/v1/completions", body)))
        t.start()
        wait_for("it runs", 5, lambda: s.metrics().sum("vllm:num_requests_running") == 1)
        s.process.send_signal(signal.SIGTERM)
        t.join(30)
        assert found[-1] == "[DONE]" and len(found) == 3001
