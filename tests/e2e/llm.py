# SPDX-License-Identifier: Apache-2.0
"""A language model behind a server, and clients for it. The model is the tiny random one of
tests/data: 320 tokens, two layers, its text is nonsense."""

import json

from harness import BUILD, REPO

DATA = REPO / "tests" / "data" / "llm"
TINY = DATA / "tiny-llama"
REFERENCE = json.loads((TINY / "reference.json").read_text())
VOCAB, EOS = 320, (2, 0)
PLUGINS = BUILD / "plugins"
HELLO = [{"role": "user", "content": "Hello, world!"}]


def app(model=TINY, name="tiny", prefix="/", deployment=None, **config):
    return {
        "name": name,
        "route_prefix": prefix,
        "plugin": "llm",
        "deployments": [
            {"name": name, "config": {"model": str(model), **config}, **(deployment or {})}
        ],
    }


def options(name="tiny", ready="v1/models"):
    """What Server needs beside the application. ready: what answers below the route prefix."""
    return {"plugins": PLUGINS, "ready": {name: ready}}


def client(server, **more):
    import openai  # not on every machine that has a GPU

    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0, **more
    )


def post(server, path, body, headers=("content-type: application/json",)):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.get(path, "POST", raw, headers, timeout=60)
    return answer.status, json.loads(answer.body) if answer.body else None


def events(server, path, body):
    """The data of each event of a stream, as the server wrote them."""
    answer = server.get(path, "POST", json.dumps({**body, "stream": True}).encode(), timeout=60)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    text = answer.body.decode()
    assert text.endswith("\n\n")
    found = text[:-2].split("\n\n")
    assert all(e.startswith("data: ") and "\n" not in e for e in found), found
    return [e[6:] for e in found]
