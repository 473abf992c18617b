# SPDX-License-Identifier: Apache-2.0
"""What changes in a running worker: options that a plugin marks live, slots, batches. The process
stays; what is not live costs a new one. How workers take orders: tests/unit/worker_change.c."""

import concurrent.futures
import json
import subprocess

from harness import BUILD, SALVER, Server, application, wait_for
from llm import app as llm_app
from llm import options as llm_options
from llm import post


def deploy(server, *applications):
    server.file.write_text(
        json.dumps(
            {
                "http_options": {"host": "127.0.0.1", "port": server.port},
                "applications": list(applications),
            }
        )
    )
    got = subprocess.run(
        [SALVER, "deploy", server.file, "--state", server.state],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert got.returncode == 0, got.stderr


def test_options_of_a_language_model(tmp_path):
    body = {"model": "tiny", "prompt": "x", "max_tokens": 2, "logprobs": 4}
    with Server(tmp_path, [llm_app(max_logprobs=2, max_model_len=100)], **llm_options()) as server:
        (pid,) = server.pids("worker")
        status, answer = post(server, "/v1/completions", body)
        assert status == 400 and "logprobs" in answer["error"]["message"]
        deploy(server, llm_app(max_logprobs=5, max_model_len=100))
        wait_for("four are allowed", 10, lambda: post(server, "/v1/completions", body)[0] == 200)
        assert server.pids("worker") == [pid]
        deploy(server, llm_app(max_logprobs=5, max_model_len=90))  # this one needs a new process
        wait_for("a new process", 30, lambda: server.pids("worker") not in ([], [pid]))
        wait_for("it serves", 30, lambda: post(server, "/v1/completions", body)[0] == 200)


def test_prefix_of_echo(tmp_path):
    def app(prefix):
        return application("a", "echo", {"prefix": prefix})

    def answer():
        return server.get("/a/", "POST", b"x").body

    with Server(tmp_path, [app("old ")], plugins=BUILD / "plugins", ready={"a": None}) as server:
        wait_for("it answers", 10, lambda: answer() == b"old x")
        pids = server.pids("worker")
        deploy(server, app("new "))
        wait_for("it is new", 10, lambda: answer() == b"new x")
        assert server.pids("worker") == pids


def most_at_once(server, n):
    """n requests at the same time: how many the plugin had open, of those that ended last."""
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        asked = [pool.submit(server.get, "/a/?sleep_ms=200") for _ in range(n)]
        bodies = [json.loads(a.result().body) for a in asked]
    return max(b["open"] for b in bodies)


def test_max_ongoing_requests(tmp_path):
    def app(n):
        return application("a", "fake_step", max_ongoing_requests=n)

    with Server(tmp_path, [app(2)]) as server:
        pids = server.pids("worker")
        assert most_at_once(server, 12) == 2
        deploy(server, app(6))
        wait_for("six at once", 10, lambda: most_at_once(server, 12) == 6)
        deploy(server, app(3))
        wait_for("three at once", 10, lambda: most_at_once(server, 12) == 3)
        assert server.pids("worker") == pids


def test_batches(tmp_path):
    def app(n):
        return application(
            "a", "fake_run", {"batch_sleep_ms": 50}, max_ongoing_requests=16, max_batch_size=n
        )

    def largest():
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(server.get, "/a/") for _ in range(16)]
            return max(json.loads(a.result().body)["batch"] for a in asked)

    with Server(tmp_path, [app(1)]) as server:
        pids = server.pids("worker")
        assert largest() == 1
        deploy(server, app(4))
        wait_for("four in a batch", 20, lambda: largest() == 4)
        assert server.pids("worker") == pids


def test_orders_outlive_the_process(tmp_path):
    """A worker that dies is started again with what holds now, not with what it began with."""
    with Server(tmp_path, [application("a", "fake_run", {"live": "old"})]) as server:
        (pid,) = server.pids("worker")

        def live():
            answer = server.get("/a/")
            return json.loads(answer.body)["live"] if answer.status == 200 else None

        deploy(server, application("a", "fake_run", {"live": "new"}))
        wait_for("it is new", 10, lambda: live() == "new")
        assert server.pids("worker") == [pid]
        assert server.get("/a/?do=run:kill").status == 502
        wait_for("another process", 10, lambda: server.pids("worker") not in ([], [pid]))
        wait_for("it answers", 10, lambda: live() is not None)
        assert live() == "new"
