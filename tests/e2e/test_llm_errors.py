# SPDX-License-Identifier: Apache-2.0
"""What the API refuses, and how: status, type, param and a message that names value and limit."""

import json

import openai
import pytest
from harness import Server, wait_for
from llm import HELLO, PLUGINS, app, client, options, post


@pytest.fixture(scope="module")
def server(shared):
    return shared("llm", [app(max_model_len=100, max_num_seqs=4, max_waiting_seqs=2)], **options())


@pytest.fixture(scope="module")
def api(server):
    return client(server)


def refused(got, param, *says, kind="BadRequestError", status=400):
    code, body = got
    error = body["error"]
    assert set(body) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert (code, error["code"], error["type"], error["param"]) == (status, status, kind, param), error
    for word in says:
        assert word in error["message"], error["message"]


def test_bodies_that_are_not_json(server):
    for body in (b"", b"{", b"nonsense", b'{"prompt":"x"}}', b'{"prompt":"x",}', b'{"prompt":"\xff"}',
                 b'{"prompt": NaN}', b"[]", b'"x"'):  # fmt: skip
        refused(post(server, "/v1/completions", body), None, kind="Bad Request")
    deep = b'{"prompt":"x","user":' + b"[" * 100000 + b"]" * 100000 + b"}"
    refused(post(server, "/v1/completions", deep), None, kind="Bad Request")


def test_content_types(server):
    got = post(server, "/v1/completions", {"prompt": "x"}, ["content-type: text/xml"])
    refused(got, None, "application/json", "text/xml", kind="Bad Request")
    got = post(server, "/v1/completions", {"prompt": "x"}, ["content-type: application/json; charset=utf-8"])
    assert got[0] == 200


def test_paths_and_methods(server):
    refused(post(server, "/v1/nothing", {}), None, kind="NotFoundError", status=404)
    answer = server.get("/v1/completions")
    assert answer.status == 405 and answer.headers["allow"] == "POST"
    refused((405, json.loads(answer.body)), None, kind="MethodNotAllowedError", status=405)


def test_an_unknown_model(api, server):
    with pytest.raises(openai.NotFoundError) as e:
        api.chat.completions.create(model="gpt-9", messages=HELLO)
    assert e.value.body["message"] == "The model `gpt-9` does not exist. Known models: `tiny`"
    got = post(server, "/tokenize", {"prompt": "x", "model": "gpt-9"})
    refused(got, "model", kind="NotFoundError", status=404)


def test_values_and_types(api, server):
    with pytest.raises(openai.BadRequestError) as e:
        api.chat.completions.create(model="tiny", messages=HELLO, temperature=3)
    assert e.value.param == "temperature" and "[0, 2], got 3" in e.value.body["message"]
    got = post(server, "/v1/completions", {"prompt": "x", "max_tokens": "many"})
    refused(got, "max_tokens", "integer", "'many'", kind="Bad Request")
    got = post(server, "/v1/completions", {"prompt": [1, 320]})
    refused(got, "prompt", "320", "319")


def test_what_is_not_served_yet(server):
    tool = {"type": "function", "function": {"name": "f"}}
    for field, value in (
        ("tools", [tool]),
        ("tool_choice", "auto"),
        ("response_format", {"type": "json_object"}),
        ("structured_outputs", {"json": {}}),
        ("use_beam_search", True),
        ("best_of", 2),
    ):
        got = post(server, "/v1/chat/completions", {"messages": HELLO, field: value})
        refused(got, "tool_choice" if field == "tools" else field, "not supported yet")
    image = [{"type": "image_url", "image_url": {"url": "data:,x"}}]
    got = post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": image}]})
    refused(got, "messages", "image_url", "not supported yet")
    got = post(server, "/v1/chat/completions", {"messages": HELLO, "tools": []})
    refused(got, "tools", "must not be an empty array", kind="Bad Request")
    got = post(server, "/v1/completions", {"prompt": "x", "suffix": "y"})
    refused(got, "suffix", "not supported")


def test_too_long(server):
    ids = [50] * 90
    got = post(server, "/v1/completions", {"prompt": ids, "max_tokens": 11})
    refused(got, "input_tokens", "100 tokens", "requested 11", "90 input tokens", "101")
    assert post(server, "/v1/completions", {"prompt": ids, "max_tokens": 10})[0] == 200
    got = post(server, "/v1/completions", {"prompt": "x", "max_tokens": 101})
    refused(got, "input_tokens", "100 tokens", "requested 101")
    got = post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 500}]})
    refused(got, "input_tokens", "100 tokens", "at least 101 input tokens")
    body = {"prompt": [50] * 500, "max_tokens": 10, "truncate_prompt_tokens": 20}
    status, got = post(server, "/v1/completions", body)
    assert status == 200 and got["usage"]["prompt_tokens"] == 20
    status, got = post(server, "/v1/completions", {**body, "truncate_prompt_tokens": -1})
    assert status == 200 and got["usage"]["prompt_tokens"] == 90


def test_more_tokens_wanted_than_fit(server):
    body = {"messages": HELLO, "min_tokens": 99}
    got = post(server, "/v1/chat/completions", body)
    used = post(server, "/tokenize", {"messages": HELLO})[1]["count"]
    refused(got, "min_tokens", f"max_tokens={100 - used}, got 99")


def test_a_chat_that_leaves_no_room(server):
    def ask(n):
        messages = [{"role": "user", "content": "x" * n}]
        count = post(server, "/tokenize", {"messages": messages})[1]["count"]
        return count, post(server, "/v1/chat/completions", {"messages": messages})

    used = ask(1)[0] - 1
    count, got = ask(99 - used)
    assert count == 99 and got[0] == 200 and got[1]["usage"]["completion_tokens"] == 1
    count, got = ask(100 - used)
    assert count == 100
    refused(got, "input_tokens", "100 tokens", "prompt contains 100 input tokens")


def test_too_many_sequences(server):
    got = post(server, "/v1/completions", {"prompt": ["x"] * 7})
    refused(got, "n", "7 sequences", "holds 6")
    got = post(server, "/v1/completions", {"prompt": ["x", "y"], "n": 3, "temperature": 1, "max_tokens": 2})
    assert got[0] == 200 and len(got[1]["choices"]) == 6


def test_template_errors_name_the_line(server, shared):
    broken = shared(
        "broken",
        [app(name="broken", prefix="/b", chat_template="{{ 1 }}\n\n{{ raise_exception('no ' ~ messages[0].role) }}")],
        **options("broken", "/v1/models"),
    )
    got = post(broken, "/b/v1/chat/completions", {"messages": HELLO})
    refused(got, "messages", "no user")
    got = post(server, "/v1/chat/completions", {"messages": HELLO, "chat_template": "x"})
    refused(got, "chat_template", "trust_request_chat_template")


def test_a_template_of_the_request(shared):
    s = shared("trust", [app(name="trust", prefix="/t", trust_request_chat_template=True)], **options("trust", "/v1/models"))
    body = {"messages": HELLO, "chat_template": "{{ messages[0].content }} {{ word }}",
            "chat_template_kwargs": {"word": "yes"}}  # fmt: skip
    tokens = post(s, "/t/tokenize", body)[1]["tokens"]
    assert post(s, "/t/detokenize", {"tokens": tokens})[1]["prompt"] == "Hello, world! yes"
    got = post(s, "/t/v1/chat/completions", {"messages": HELLO, "chat_template": "a\n{% if %}"})
    refused(got, "chat_template", "line 2")


def test_options_that_are_refused(server, tmp_path):
    """Before anything is loaded, each with what to do."""
    cases = [
        ({"device": "cuda"}, "device is cuda, but there is no GPU for it"),
        ({"device": "tpu"}, "'tpu' is not one of auto, cpu, cuda"),
        ({"scheduling_policy": "lifo"}, "'lifo' is not one of fcfs, priority"),
        ({"max_model_len": 9000}, "max_model_len is 9000, but the model was made for 8192"),
        ({"max_model_len": 8000, "kv_cache_bytes": 1 << 20}, "raise kv_cache_bytes to 4096000 or"),
        ({"kv_cache_bytes": 1}, "0 blocks"),
        ({"enable_chunked_prefill": False, "max_num_batched_tokens": 64},
         "a prompt of 8192 tokens is read in one step"),
        ({"served_model_name": []}, "0 names; give 1 to 64"),
        ({"served_model_name": ["a", 1]}, "a string or a list of strings"),
        ({"chat_template": str(tmp_path / "none.jinja")}, "none.jinja"),
        ({"chat_template": "a\n{% if %}"}, "line 2"),
        ({"model": str(tmp_path)}, str(tmp_path)),
    ]
    apps = [app(name=f"c{i}", prefix=f"/c{i}", **config) for i, (config, _) in enumerate(cases)]
    for a, (config, _) in zip(apps, cases):
        a["deployments"][0]["config"].update(config)
    ready = {a["name"]: None for a in apps} | {"good": "/v1/models"}
    s = Server(tmp_path, [*apps, app(name="good", prefix="/good")], plugins=PLUGINS, ready=ready)
    with s:
        for i, (config, says) in enumerate(cases):
            got = wait_for(
                f"{config} is refused",
                20,
                lambda i=i: (a := s.status()["applications"][f"c{i}"])["status"] == "DEPLOY_FAILED" and a,
            )
            assert says in got["message"], (config, got["message"])
