# SPDX-License-Identifier: Apache-2.0
"""`salver serve --plugin llm --model PATH`, without a file."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from harness import BUILD, REPO, SALVER, free_port, request, wait_for

TINY = REPO / "tests/data/llm/tiny-llama.gguf"
QUESTIONS = [  # those whose answer does not hang on the last bit: docs/design/005
    ("Tell me the capital of France.", "Paris"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is 2+2?", "4"),
]


@contextlib.contextmanager
def serving(folder, model, *words):
    port = free_port()
    command = [SALVER, "serve", "--plugin", "llm", "--model", model, "--port", port, "--state", folder / "state"]
    command += ["--plugins", BUILD / "plugins", *words]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([str(w) for w in command], cwd=folder, stdout=log, stderr=log)
    try:
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        print((folder / "log").read_text()[-4000:])


def post(port, path, **body):
    answer = request(port, path, "POST", json.dumps(body).encode(), ["content-type: application/json"], 60)
    return answer.status, json.loads(answer.body)


def answers(port, process):
    assert process.poll() is None
    with contextlib.suppress(OSError):
        return request(port, "/v1/completions", "POST", b"{}", timeout=30).status != 503
    return False


def test_a_relative_path_names_the_model(tmp_path):
    shutil.copy(TINY, tmp_path / "my-tiny.gguf")
    with serving(tmp_path, "my-tiny.gguf") as (port, process):
        wait_for("the plugin answers", 30, lambda: answers(port, process))
        (card,) = json.loads(request(port, "/v1/models").body)["data"]
        assert card["id"] == "my-tiny" and card["root"] == str(tmp_path / "my-tiny.gguf")
        status, got = post(port, "/v1/completions", model="my-tiny", prompt="Hello", max_tokens=4, ignore_eos=True)
        assert status == 200 and got["model"] == "my-tiny" and got["usage"]["completion_tokens"] == 4
        status, got = post(port, "/v1/completions", model="other", prompt="Hello")
        assert status == 404


def test_what_the_plugin_brings_is_copied(tmp_path):
    with serving(tmp_path, TINY) as (port, process):
        wait_for("the plugin answers", 30, lambda: answers(port, process))
        (copy,) = (tmp_path / "state/plugins").iterdir()
        installed = {p.name for p in (BUILD / "plugins" / "llm").glob("*.so")}
        assert {p.name for p in copy.glob("*.so")} == installed >= {"llm.so", "kernels_cpu.so"}
        maps = [line.split()[-1] for pid in pids(process.pid) for line in open(f"/proc/{pid}/maps")]
        assert str(copy / "kernels_cpu.so") in maps  # and not the one that was installed


def pids(parent):
    out = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True)
    return out.stdout.split()


@pytest.mark.parametrize(
    "words, says",
    [
        (["--modle", TINY], "did you mean 'model'"),
        (["--max_model_len", "-1"], "max_model_len"),
    ],
)
def test_wrong_options_are_refused_at_once(tmp_path, words, says):
    command = [SALVER, "serve", "--plugin", "llm", "--model", TINY, "--port", free_port()]
    command += ["--plugins", BUILD / "plugins", *words]
    got = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=30, check=False)
    assert got.returncode == 2 and says in got.stderr, got.stderr


@pytest.mark.skipif("SALVER_SMOLLM2" not in os.environ, reason="needs the demo's model: make chat")
def test_smollm2_answers(tmp_path):
    with serving(tmp_path, os.environ["SALVER_SMOLLM2"], "--served_model_name", "smollm2") as (port, process):
        wait_for("the plugin answers", 60, lambda: answers(port, process))
        for question, word in QUESTIONS:
            messages = [{"role": "user", "content": question}]
            status, got = post(
                port, "/v1/chat/completions", model="smollm2", messages=messages, temperature=0, max_tokens=48
            )
            assert status == 200, got
            choice = got["choices"][0]
            assert word in choice["message"]["content"] and choice["finish_reason"] == "stop", got
