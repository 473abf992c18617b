# SPDX-License-Identifier: Apache-2.0
"""A deployment that cannot start says why, and the others serve on."""

import json
import subprocess

from harness import SALVER, Server, application, wait_for


def app_of(server, name):
    return server.status()["applications"][name]


def text_status(server):
    return subprocess.run(
        [SALVER, "status", "--state", server.state], capture_output=True, text=True, check=True
    ).stdout


def test_a_failing_create_is_told(tmp_path):
    bad = application("bad", "fake_run", {"do": "create:fail=-500"})
    good = application("good", "fake_run")
    with Server(tmp_path, [bad, good], ready={"bad": None}) as server:
        wait_for("it failed", 10, lambda: app_of(server, "bad")["status"] == "DEPLOY_FAILED")
        assert "create" in app_of(server, "bad")["message"]
        assert app_of(server, "good")["status"] == "RUNNING"
        assert server.get("/good").status == 200
        answer = server.get("/bad")
        assert answer.status == 503
        assert "create" in json.loads(answer.body)["error"]["message"]
        assert "DEPLOY_FAILED" in text_status(server)


def test_a_crash_while_looking_at_it_is_told(tmp_path):
    bad = application("bad", "fake_run", {"do": "create:segv"})
    with Server(tmp_path, [bad, application("good", "fake_run")], ready={"bad": None}) as server:
        wait_for("it failed", 10, lambda: app_of(server, "bad")["status"] == "DEPLOY_FAILED")
        assert "SIGSEGV" in app_of(server, "bad")["message"]
        assert server.get("/good").status == 200


def test_five_failed_loads_are_a_failed_deployment(tmp_path):
    bad = application("bad", "fake_run", {"do": "load:fail=-500"})
    with Server(tmp_path, [bad, application("good", "fake_run")], ready={"bad": None}) as server:
        wait_for("it failed", 20, lambda: app_of(server, "bad")["status"] == "DEPLOY_FAILED")
        replica = app_of(server, "bad")["deployments"]["bad"]["replicas"][0]
        assert replica["failed_starts"] >= 5
        assert "load" in app_of(server, "bad")["message"]
        assert server.get("/good").status == 200


def test_a_load_that_fails_twice_runs_in_the_end(tmp_path):
    app = application("app", "fake_run", {"do": "load:fail=-500*2", "state": str(tmp_path)})
    with Server(tmp_path, [app], ready={"app": "/"}) as server:
        wait_for("it runs", 10, lambda: app_of(server, "app")["status"] == "RUNNING")
        assert app_of(server, "app")["deployments"]["app"]["replicas"][0]["restarts"] == 2


def test_status_names_everything(tmp_path):
    app = application("app", "fake_run", num_replicas=2, max_ongoing_requests=3)
    with Server(tmp_path, [app]) as server:
        status = server.status()
        assert status["http_options"]["port"] == server.port
        assert status["supervisor_pid"] == server.process.pid
        assert [p["status"] for p in status["proxies"]] == ["HEALTHY"]
        deployment = status["applications"]["app"]["deployments"]["app"]
        assert deployment["status"] == "HEALTHY"
        assert deployment["target_num_replicas"] == 2
        assert deployment["deployment_config"]["max_ongoing_requests"] == 3
        workers = {c.name: c.pid for c in server.children("worker")}
        assert {r["replica_id"]: r["pid"] for r in deployment["replicas"]} == workers
        assert [r["state"] for r in deployment["replicas"]] == ["RUNNING"] * 2
        text = text_status(server)
        for word in ("app/app/0", "app/app/1", "RUNNING", "HEALTHY", "replicas 2 of 2", "/app"):
            assert word in text
        replicas = server.metrics().by("salver_replicas", "state", deployment="app")
        assert replicas["RUNNING"] == 2
