# SPDX-License-Identifier: Apache-2.0
"""One URL for every model: who answers a request by the `model` in its body, and what is said when
nobody does. R1, R4 and R5 are FastChat's cases for a gateway with several models."""

import json
import os
import signal
import threading
import time

import pytest
from clients import Raw, WebSocket, error_of
from harness import application, wait_for

SIXTEEN_MIB = 16 << 20


def app(name, models=None, prefix=None, plugin="fake_run", **config):
    if models:
        config["models"] = models
    return {**application(name, plugin, config), "route_prefix": prefix}


@pytest.fixture(scope="module")
def s(shared):
    return shared(
        "registry",
        [
            app("chat", "small,small-alias"),
            app("other", "org/large,large"),
            app("prefixed", "third", "/third"),
            app("plain", None, "/plain"),
            app("streams", "ears", plugin="fake_step", stream_in=True),
            {**application("echo", "echo"), "route_prefix": "/echo"},
            {**application("sock", "wsecho"), "route_prefix": "/sock"},
        ],
        ready={"chat": None, "other": None, "streams": None, "echo": None, "sock": None},
    )


@pytest.fixture(autouse=True, scope="module")
def ready(s):
    for model in ("small", "large", "ears"):
        wait_for(f"{model} answers", 20, lambda model=model: ask(s, model).status == 200)


def ask(s, model, path="/v1/chat/completions", **more):
    return s.get(path, method="POST", body=json.dumps({"model": model, **more}).encode())


def who(answer):
    assert answer.status == 200, answer.body
    got = json.loads(answer.body)
    return got["replica"].split("/")[0], got["path"]


def form(**fields):
    parts = [
        f'--bound\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in fields.items()
    ]
    return b"".join(parts) + b"--bound--\r\n"


def test_r1_every_model_behind_one_url(s):
    cards = json.loads(s.get("/v1/models").body)["data"]
    names = ["small", "small-alias", "org/large", "large", "third", "ears"]
    assert [c["id"] for c in cards] == names
    by = dict(zip(names, ["chat", "chat", "other", "other", "prefixed"]))
    for path in ("/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize"):
        for name, application_name in by.items():
            assert who(ask(s, name, path)) == (application_name, path)


def test_the_card_of_one(s):
    cards = {c["id"]: c for c in json.loads(s.get("/v1/models").body)["data"]}
    for name in ("small", "small-alias", "org/large"):
        answer = s.get(f"/v1/models/{name}")
        assert answer.status == 200 and json.loads(answer.body) == cards[name]
    answer = s.get("/v1/models/none")
    assert answer.status == 404 and "`none` does not exist" in error_of(answer)["message"]
    assert s.get("/v1/models/small", method="DELETE").status == 405


def test_a_longer_prefix_wins(s):
    assert who(ask(s, "small", "/third/v1/completions")) == ("prefixed", "/v1/completions")
    assert who(ask(s, "small", "/plain/v1/completions")) == ("plain", "/v1/completions")


def test_r4_an_unknown_model(s):
    answer = ask(s, "gpt-9")
    assert answer.status == 404
    assert json.loads(answer.body) == {
        "error": {
            "message": "The model `gpt-9` does not exist. Known models: `small`, `small-alias`, "
            "`org/large`, `large`, `third`, `ears`",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
    }
    for body in (b"{}", b"no json", b'{"model":7}', b"[]", form(file=b"x")):
        answer = s.get("/v1/completions", method="POST", body=body)
        assert answer.status == 400 and error_of(answer)["param"] == "model", body
    assert s.get("/v1/responses/1").status == 400
    assert s.get("/tokenizer", method="POST", body=b'{"model":"small"}').status == 404


def test_r5_prefixes_stay_what_they_were(s):
    assert s.get("/echo/hello", method="POST", body=b"hi").status == 200
    with WebSocket(s.port, "/sock") as ws:
        ws.send_text("hello")
        assert ws.message()


@pytest.mark.parametrize("first", [True, False])
def test_sixteen_mebibytes(s, first):
    head, tail = (b'{"model":"large","x":"', b'"}') if first else (b'{"x":"', b'","model":"large"}')
    text = b'no \\"model\\":\\"small\\" here '
    body = (head + text * (SIXTEEN_MIB // len(text)))[: SIXTEEN_MIB - len(tail) - 1]
    body = body.rstrip(b"\\") + tail
    answer = s.get("/v1/completions", method="POST", body=body)
    assert who(answer) == ("other", "/v1/completions")
    assert json.loads(answer.body)["body_len"] == len(body)


def test_forms(s):
    kind = ["content-type: multipart/form-data; boundary=bound"]
    sound = os.urandom(1 << 20) + b'\r\n--bou\r\n{"model":"small"}'
    for fields in ({"model": b"org/large", "file": sound}, {"file": sound, "model": b"org/large"}):
        body = form(**fields)
        answer = s.get("/v1/audio/transcriptions", method="POST", body=body, headers=kind)
        assert who(answer) == ("other", "/v1/audio/transcriptions")
        assert json.loads(answer.body)["body_len"] == len(body)
    answer = s.get("/v1/audio/x", method="POST", body=form(model=b"nobody"), headers=kind)
    assert answer.status == 404


def test_the_last_of_two_counts(s):
    body = b'{"model":"small","x":{"model":"third"},"model":"large","y":[{"model":"small"}]}'
    assert who(s.get("/v1/completions", method="POST", body=body))[0] == "other"


def test_a_body_that_streams_in(s):
    with Raw(s.port) as c:
        c.send(b"POST /v1/audio HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        pieces = [b'{"x":1,', b'"model":"ears",', b'"y":"' + b"z" * 300000, b'"}']
        for piece in pieces:
            c.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(0.02)
        c.send(b"0\r\n\r\n")
        got = json.loads(c.answer().body)
    assert got["replica"].startswith("streams/") and got["body_len"] == 0
    assert got["in_bytes"] == sum(map(len, pieces)) and got["in_pieces"] > 2
    assert got["in_sum"] == sum(sum(piece) for piece in pieces)


def test_answers_stream_out(s):
    with Raw(s.port) as c:
        body = json.dumps({"model": "large"}).encode()
        c.ask("/v1/chat/completions?n=5&interval_ms=5", "POST", body)
        status, headers = c.head()
        assert status == 200 and headers["content-type"].startswith("text/event-stream")
        assert len(list(c.events())) >= 5


def test_many_at_once(s):
    """Each answer is its own request's: models, sizes and pieces mixed over 8 connections."""
    wrong = []

    def client(i):
        for k in range(40):
            name, want = [("small", "chat"), ("large", "other"), ("third", "prefixed")][(i + k) % 3]
            got = who(ask(s, name, pad="p" * (997 * k % 70000)))
            if got[0] != want:
                wrong.append((name, got))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_killed_workers_model_stays(s):
    pid = next(c.pid for c in s.children("worker") if c.name.startswith("prefixed/"))
    os.kill(pid, signal.SIGKILL)
    assert "third" in [c["id"] for c in json.loads(s.get("/v1/models").body)["data"]]
    assert who(ask(s, "third"))[0] == "prefixed"  # held until the next one is ready


def test_the_one_at_the_root_is_the_default(server):
    s = server([app("first", "a,b", "/"), app("second", "c")], ready={"second": None})
    wait_for("c answers", 20, lambda: ask(s, "c").status == 200)
    assert who(ask(s, "c"))[0] == "second"
    for body in (b"{}", b"no json"):
        assert who(s.get("/v1/completions", method="POST", body=body))[0] == "first"
    assert who(s.get("/v1/responses/1"))[0] == "first"
    assert ask(s, "d").status == 404
    assert who(ask(s, "d", "/elsewhere"))[0] == "first"


def test_one_without_models_at_the_root(server):
    s = server([app("first", None, "/"), app("second", "c")], ready={"second": None})
    wait_for("c is known", 20, lambda: who(ask(s, "c"))[0] == "second")
    assert who(ask(s, "whatever"))[0] == "first"
    assert who(s.get("/v1/completions", method="POST", body=b"{}"))[0] == "first"


def test_the_only_one_with_models_is_the_default(server):
    s = server([app("first", "a"), app("second", None, "/x")], ready={"first": None})
    wait_for("it answers", 20, lambda: s.get("/v1/x", method="POST", body=b"{}").status == 200)
    assert ask(s, "b").status == 404
