# SPDX-License-Identifier: Apache-2.0
"""OpenAI's API through the official client: chat, completions, streams, logprobs, n, stop, usage."""

import json
import time

import pytest
from llm import EOS, HELLO, REFERENCE, TINY, VOCAB, app, client, events, options, post


@pytest.fixture(scope="module")
def server(shared):
    return shared("llm", [app(served_model_name=["tiny", "other-name"])], **options())


@pytest.fixture(scope="module")
def api(server):
    return client(server)


def complete(api, prompt="Hello", **more):
    return api.completions.create(**{"model": "tiny", "prompt": prompt, "temperature": 0, **more})


def chat(api, **more):
    return api.chat.completions.create(
        **{"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 8, **more}
    )


# ---- models ----------------------------------------------------------------------------------


def test_models(api):
    cards = {m.id: m for m in api.models.list().data}
    assert set(cards) == {"tiny", "other-name"}
    assert cards["tiny"].max_model_len == 8192 and cards["tiny"].root == str(TINY)


def test_an_alias_answers_under_the_models_name(api):
    assert complete(api, model="other-name").model == "tiny"


def test_no_model_is_the_default(server):
    assert post(server, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200


# ---- completions -----------------------------------------------------------------------------


def test_greedy_tokens_are_those_of_transformers(api):
    got = complete(
        api, REFERENCE["prompt"], max_tokens=64,
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )  # fmt: skip
    (choice,) = got.choices
    assert choice.token_ids == REFERENCE["greedy"]
    assert choice.prompt_token_ids == REFERENCE["prompt"]
    assert choice.finish_reason == "length" and choice.stop_reason is None
    assert got.usage.prompt_tokens == len(REFERENCE["prompt"])
    assert got.usage.completion_tokens == 64 and got.usage.total_tokens == got.usage.prompt_tokens + 64


def test_logprobs_are_those_of_transformers(api):
    """Of the first token after the reference's prompt: softmax over its last logits."""
    import math

    logits = REFERENCE["logits"][-1]
    whole = math.log(sum(math.exp(x) for x in logits))
    best = sorted(range(VOCAB), key=lambda i: -logits[i])[:5]
    got = complete(
        api, REFERENCE["prompt"], max_tokens=1, logprobs=5,
        extra_body={"return_tokens_as_token_ids": True},
    )  # fmt: skip
    lp = got.choices[0].logprobs
    assert lp.tokens == [f"token_id:{best[0]}"]
    assert list(lp.top_logprobs[0]) == [f"token_id:{i}" for i in best]
    for i, x in zip(best, lp.top_logprobs[0].values()):
        assert abs(x - (logits[i] - whole)) < 1e-3
    assert lp.token_logprobs[0] == lp.top_logprobs[0][f"token_id:{best[0]}"]


def test_the_same_twice_and_streamed(api):
    """L1 and L2 of what people ask first: temperature 0 twice gives the same, streamed or not."""
    ask = {"prompt": "San Francisco is a", "temperature": 0}
    first = complete(api, **ask)
    assert complete(api, **ask).choices[0].text == first.choices[0].text
    for _ in range(2):
        chunks = list(complete(api, stream=True, **ask))
        assert "".join(c.choices[0].text for c in chunks) == first.choices[0].text
        assert chunks[-1].choices[0].finish_reason == first.choices[0].finish_reason
        assert {c.id for c in chunks} == {chunks[0].id} and chunks[0].id.startswith("cmpl-")
    assert first.object == "text_completion" and abs(first.created - time.time()) < 60


def test_curls_default_content_type(server):
    """curl -d sends application/x-www-form-urlencoded."""
    body = {"model": "tiny", "prompt": "San Francisco is a", "temperature": 0, "stream": False}
    status, got = post(
        server, "/v1/completions", body, ["content-type: application/x-www-form-urlencoded"]
    )
    assert status == 200 and got["usage"]["completion_tokens"] <= 16


def test_defaults_come_from_the_models_generation_config(server, shared):
    """The tiny model's says temperature 0.6, top_p 0.9: not greedy. Bigger than chance: 24 tokens."""
    body = {"prompt": "Hello", "max_tokens": 24, "ignore_eos": True}
    texts = {post(server, "/v1/completions", body)[1]["choices"][0]["text"] for _ in range(4)}
    assert len(texts) > 1


def test_a_seed_repeats(api):
    ask = {"temperature": 1.5, "seed": 7, "max_tokens": 24, "extra_body": {"ignore_eos": True}}
    first = complete(api, **ask).choices[0].text
    assert complete(api, **ask).choices[0].text == first
    assert complete(api, **{**ask, "seed": 8}).choices[0].text != first


def test_many_prompts_and_n(api):
    got = complete(
        api, ["Hello", "World of"], n=3, temperature=1.5, seed=3, max_tokens=12,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    )  # fmt: skip
    assert [c.index for c in got.choices] == list(range(6))
    assert got.choices[0].prompt_token_ids == got.choices[2].prompt_token_ids
    assert got.choices[0].prompt_token_ids != got.choices[3].prompt_token_ids
    assert len({c.text for c in got.choices[:3]}) == 3  # each its own seed
    assert got.usage.completion_tokens == 72
    prompts = [got.choices[i].prompt_token_ids for i in (0, 3)]
    assert got.usage.prompt_tokens == sum(map(len, prompts))
    same = complete(
        api, prompts, n=3, temperature=1.5, seed=3, max_tokens=12, extra_body={"ignore_eos": True}
    )
    assert [c.text for c in same.choices] == [c.text for c in got.choices]


def test_echo_with_logprobs(api):
    got = complete(api, "Hello there", max_tokens=3, echo=True, logprobs=2)
    alone = complete(api, "Hello there", max_tokens=3, logprobs=2)
    (choice,) = got.choices
    lp, own = choice.logprobs, alone.choices[0].logprobs
    assert choice.text == "Hello there" + alone.choices[0].text
    n = got.usage.prompt_tokens
    assert len(lp.tokens) == n + 3 == len(lp.text_offset) == len(lp.token_logprobs)
    assert lp.token_logprobs[0] is None and lp.top_logprobs[0] is None
    assert all(x <= 0 for x in lp.token_logprobs[1:])
    assert lp.token_logprobs[n:] == own.token_logprobs and lp.tokens[n:] == own.tokens
    assert "".join(lp.tokens[:n]) == "Hello there"
    for i in range(1, n):
        assert lp.text_offset[i] == lp.text_offset[i - 1] + len(lp.tokens[i - 1])


def test_echo_without_an_answer(api):
    got = complete(api, "Hello there", max_tokens=0, echo=True, logprobs=1)
    (choice,) = got.choices
    assert choice.text == "Hello there" and choice.finish_reason == "length"
    assert got.usage.completion_tokens == 0
    assert len(choice.logprobs.tokens) == got.usage.prompt_tokens
    chunks = list(complete(api, "Hello there", max_tokens=0, echo=True, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "Hello there"


def test_prompt_logprobs(api):
    got = complete(
        api, REFERENCE["prompt"], max_tokens=1, extra_body={"prompt_logprobs": 1}
    ).choices[0].prompt_logprobs  # fmt: skip
    assert len(got) == len(REFERENCE["prompt"]) and got[0] is None
    for token, entry in zip(REFERENCE["prompt"][1:], got[1:]):
        mine = entry[str(token)]
        assert mine["logprob"] <= 0 and mine["rank"] >= 1
        best = max(entry.values(), key=lambda e: e["logprob"])
        assert best["rank"] == 1 and 1 <= len(entry) <= 2


# ---- what ends a text ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_text(api):
    got = complete(api, max_tokens=40, extra_body={"ignore_eos": True, "return_token_ids": True})
    return got.choices[0]


def test_stop_strings(api, long_text):
    text = long_text.text
    stop = text[10:13]
    at = text.index(stop)
    for stream in (False, True):
        ask = {"max_tokens": 40, "stop": [stop, "never there"], "stream": stream}
        more = {"ignore_eos": True}
        cut, reason = ended(complete(api, **ask, extra_body=more), stream)
        assert cut == text[:at] and reason == ("stop", stop)
        kept, _ = ended(
            complete(api, **ask, extra_body={**more, "include_stop_str_in_output": True}), stream
        )
        assert kept == text[: at + len(stop)]


def ended(got, stream):
    choices = [c.choices[0] for c in got] if stream else [got.choices[0]]
    assert all(c.finish_reason is None for c in choices[:-1])
    return "".join(c.text for c in choices), (choices[-1].finish_reason, choices[-1].stop_reason)


def test_stop_token_ids(api, server, long_text):
    ids = long_text.token_ids
    stop = ids[5]
    first = ids.index(stop)
    got = complete(
        api, max_tokens=40,
        extra_body={"stop_token_ids": [stop], "ignore_eos": True, "return_token_ids": True},
    )  # fmt: skip
    (choice,) = got.choices
    assert choice.finish_reason == "stop" and choice.stop_reason == stop
    assert choice.token_ids == ids[: first + 1] and got.usage.completion_tokens == first + 1
    said = [post(server, "/detokenize", {"tokens": ids[:n]})[1]["prompt"] for n in (first, first + 1)]
    assert choice.text == said[0]
    more = {"stop_token_ids": [stop], "include_stop_str_in_output": True}
    assert complete(api, max_tokens=40, extra_body=more).choices[0].text == said[1]
    later = complete(
        api, max_tokens=40,
        extra_body={"stop_token_ids": [stop], "ignore_eos": True, "min_tokens": first + 2,
                    "return_token_ids": True},
    ).choices[0]  # fmt: skip
    assert len(later.token_ids) >= first + 2 and later.token_ids[first] != stop


def test_the_models_end(api):
    """With the end's id alone allowed, the model stops at once; its stop_reason is null."""
    ask = {"max_tokens": 5, "extra_body": {"allowed_token_ids": [EOS[0]]}}
    (choice,) = complete(api, **ask).choices
    assert choice.text == "" and choice.finish_reason == "stop" and choice.stop_reason is None
    ask["extra_body"]["ignore_eos"] = True
    got = complete(api, **ask)
    assert got.choices[0].finish_reason == "length" and got.usage.completion_tokens == 5
    assert got.choices[0].text == ""
    ask["extra_body"]["skip_special_tokens"] = False
    assert complete(api, **ask).choices[0].text == "<|im_end|>" * 5


def test_what_can_be_drawn(api, long_text):
    first = long_text.token_ids[0]
    more = {"return_token_ids": True}
    banned = complete(api, max_tokens=1, logit_bias={str(first): -100}, extra_body=more)
    assert banned.choices[0].token_ids[0] != first
    forced = complete(api, max_tokens=4, logit_bias={"80": 100}, extra_body=more)
    assert forced.choices[0].token_ids == [80] * 4
    forced = complete(
        api, max_tokens=4, logit_bias={"80": 100}, frequency_penalty=2,
        extra_body={**more, "bad_words": ["n"]},
    )  # fmt: skip
    assert set(forced.choices[0].token_ids) != {first}
    allowed = complete(
        api, max_tokens=20, temperature=2, extra_body={**more, "allowed_token_ids": [80, 81]}
    )
    assert set(allowed.choices[0].token_ids) <= {80, 81}


# ---- chat ------------------------------------------------------------------------------------


def test_chat(api):
    got = chat(api)
    (choice,) = got.choices
    assert got.object == "chat.completion" and got.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and choice.index == 0
    assert got.usage.completion_tokens <= 8 and choice.finish_reason in ("stop", "length")
    assert got.system_fingerprint.startswith("salver-")
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello, world!"}]}]
    assert chat(api, messages=parts).choices[0].message == choice.message
    assert chat(api, max_tokens=None, max_completion_tokens=8).choices[0].message == choice.message


def test_chat_stream(api, server):
    whole = chat(api, logprobs=True, top_logprobs=2)
    body = {"messages": HELLO, "temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 2,
            "stream_options": {"include_usage": True}}  # fmt: skip
    *found, done = events(server, "/v1/chat/completions", body)
    assert done == "[DONE]"
    role, *tokens, usage = map(json.loads, found)
    assert role["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
         "finish_reason": None}
    ]  # fmt: skip
    assert all(t["object"] == "chat.completion.chunk" and t["model"] == "tiny" for t in tokens)
    assert usage["choices"] == [] and usage["usage"] == {
        "prompt_tokens": whole.usage.prompt_tokens,
        "total_tokens": whole.usage.total_tokens,
        "completion_tokens": whole.usage.completion_tokens,
    }
    assert len(tokens) == whole.usage.completion_tokens  # one event a token
    text = "".join(t["choices"][0]["delta"]["content"] for t in tokens)
    assert text == whole.choices[0].message.content
    content = [e for t in tokens for e in t["choices"][0]["logprobs"]["content"]]
    assert content == whole.choices[0].logprobs.model_dump(exclude={"refusal"})["content"]
    for e in content:
        assert len(e["top_logprobs"]) == 2 and bytes(e["bytes"]).decode() == e["token"]
    assert all(t["choices"][0]["finish_reason"] is None for t in tokens[:-1])
    assert tokens[-1]["choices"][0]["finish_reason"] == whole.choices[0].finish_reason


def test_chat_stream_of_several(api):
    ask = {"n": 3, "temperature": 1.5, "seed": 5}
    whole = chat(api, **ask)
    texts, roles = ["", "", ""], []
    for chunk in chat(api, stream=True, **ask):
        (choice,) = chunk.choices
        roles += [choice.index] if choice.delta.role else []
        texts[choice.index] += choice.delta.content or ""
    assert roles == [0, 1, 2]
    assert texts == [c.message.content for c in whole.choices]


def test_continuous_usage(server):
    body = {"messages": HELLO, "temperature": 0, "max_tokens": 5, "ignore_eos": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}  # fmt: skip
    found = [json.loads(e) for e in events(server, "/v1/chat/completions", body)[:-1]]
    assert [e["usage"]["completion_tokens"] for e in found] == [0, 1, 2, 3, 4, 5, 5]


def test_continuing_a_message(api, server):
    messages = [*HELLO, {"role": "assistant", "content": "The answer"}]
    asked = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
    status, got = post(server, "/tokenize", asked)
    assert status == 200
    text = post(server, "/detokenize", {"tokens": got["tokens"]})[1]["prompt"]
    assert text.endswith("<|im_start|>assistant\nThe answer")
    more = {"continue_final_message": True, "add_generation_prompt": False, "echo": True}
    said = chat(api, messages=messages, extra_body=more).choices[0].message
    assert said.role == "assistant" and said.content.startswith("The answer")


def test_special_tokens_of_a_user_are_text(server):
    def tokens(content):
        body = {"messages": [{"role": "user", "content": content}]}
        return post(server, "/tokenize", body)[1]["tokens"]

    plain, sly = tokens("x"), tokens("<|im_end|>")
    assert [t for t in sly if t in (0, 1, 2)] == [t for t in plain if t in (0, 1, 2)]
    assert len(sly) > len(plain)


def test_tools_can_be_shown_with_tool_choice_none(server):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    body = {"messages": HELLO, "tools": tools, "tool_choice": "none", "max_tokens": 1}
    assert post(server, "/v1/chat/completions", body)[0] == 200


# ---- tokens ----------------------------------------------------------------------------------


def test_tokenize_and_back(server):
    text = "Hello, wörld! 日本 \U0001f600\n"
    status, got = post(server, "/tokenize", {"prompt": text, "return_token_strs": True})
    assert status == 200 and got["count"] == len(got["tokens"]) == len(got["token_strs"])
    assert got["max_model_len"] == 8192
    assert post(server, "/detokenize", {"tokens": got["tokens"]})[1] == {"prompt": text}
    used = post(server, "/v1/completions", {"prompt": text, "max_tokens": 1})[1]["usage"]
    assert used["prompt_tokens"] == got["count"]


def test_a_character_is_never_split(api):
    """Every chunk is whole UTF-8 though a token of this model is often a part of a character."""
    ask = {"temperature": 2, "seed": 11, "max_tokens": 200, "extra_body": {"ignore_eos": True}}
    whole = complete(api, **ask).choices[0].text
    assert "".join(c.choices[0].text for c in complete(api, stream=True, **ask)) == whole
    assert whole.encode().decode() == whole
