# SPDX-License-Identifier: Apache-2.0
"""Replicas by load, from zero and back: who waits, who is answered, how many there are."""

import json
import os
import random
import shutil
import signal
import time

import pytest
from harness import Load, wait_for
from llm import DATA, PLUGINS, app
from scaling import (
    Burst,
    Watch,
    app_of,
    asleep,
    at_zero,
    block,
    deployment_of,
    fake,
    gets,
    running,
    starts,
    statuses,
)

LATER_S = 60  # a delay that no test lives to see


@pytest.fixture
def server(tmp_path, request):
    """Servers that nobody has asked anything yet."""
    started = []

    def start(applications, **options):
        s = asleep(tmp_path / f"server{len(started)}", applications, **options)
        started.append(s)
        return s

    yield start
    for s in started:
        s.__exit__(None, None, None)
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            print(s.log()[-16000:])


def error_of(reply):
    return json.loads(reply.body)["error"]["message"]


def wait_zero(server, name="a", seconds=20):
    wait_for("no replica is left", seconds, lambda: at_zero(server, name), 0.05)


# ---- from zero ---------------------------------------------------------------------------------


def test_one_start_for_all_who_wait(server):
    s = server([fake(config={"do": "load:sleep=500"}, **block(upscale_delay_s=LATER_S))])
    assert not s.pids("worker")
    replies = gets(s, "/a/", 100).replies()
    assert statuses(replies) == {200: 100}
    assert len({json.loads(r.body)["pid"] for r in replies}) == 1
    assert starts(s, "a") == 1


def test_the_next_one_wakes_it_again(server):
    s = server([fake()])
    seen = set()
    for _ in range(3):
        (reply,) = gets(s, "/a/", 1).replies()
        assert reply.status == 200
        seen.add(json.loads(reply.body)["pid"])
        wait_zero(s)
        assert app_of(s, "a")["status"] == "RUNNING"
    assert len(seen) == 3


def test_whoever_waits_keeps_the_deadline(server):
    slow = fake(config={"do": "load:sleep=2500"}, **block(upscale_delay_s=LATER_S))
    s = server([slow], http={"request_timeout_s": 1})
    first = gets(s, "/a/", 20).replies()
    assert statuses(first) == {504: 20}
    assert all("request_timeout_s" in error_of(r) for r in first)
    assert len(s.pids("worker")) == 1, "the start goes on for whoever comes next"
    wait_for("it runs", 10, lambda: running(s, "a"))
    (reply,) = gets(s, "/a/", 1).replies()
    assert reply.status == 200
    assert starts(s, "a") == 1


def test_whoever_does_not_fit_is_told_when_to_come(server):
    s = server([fake(config={"do": "load:sleep=2500"}, max_queued_requests=10)])
    for nth in range(2):
        replies = gets(s, "/a/", 30).replies()
        assert statuses(replies) == {200: 10, 503: 20}
        refused = [r for r in replies if r.status == 503]
        assert all("max_queued_requests 10" in error_of(r) for r in refused)
        after = {int(r.headers["retry-after"]) for r in refused}
        # Of the first start nobody knows how long it takes.
        assert after <= ({2, 3, 4} if nth else {1, 2, 3, 4}), after
        wait_zero(s)


def test_who_waits_is_told_of_a_start_that_fails(server, tmp_path):
    fails = {"do": "load:fail=-500*6", "state": str(tmp_path)}
    s = server([fake(config=fails, **block(upscale_delay_s=LATER_S))])
    replies = gets(s, "/a/", 20, timeout=20).replies()
    assert statuses(replies) == {503: 20}
    assert all("load" in error_of(r) for r in replies), error_of(replies[0])
    assert app_of(s, "a")["status"] != "RUNNING"
    assert "load" in app_of(s, "a")["message"]
    wait_for("the seventh start", 20, lambda: app_of(s, "a")["status"] == "RUNNING")
    (reply,) = gets(s, "/a/", 1).replies()
    assert reply.status == 200
    wait_zero(s)


def test_it_slept_and_its_model_went_away(server, tmp_path):
    model = tmp_path / "tiny.gguf"
    shutil.copy(DATA / "tiny-llama.gguf", model)
    s = server([app(model, deployment=block())], plugins=PLUGINS)
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 2}
    (reply,) = Burst(s.port, "/v1/completions", [body]).replies()
    assert reply.status == 200
    wait_zero(s, "tiny")
    model.rename(tmp_path / "elsewhere")
    replies = Burst(s.port, "/v1/completions", [body] * 3, timeout=20).replies()
    assert statuses(replies) == {503: 3}
    assert "tiny.gguf" in error_of(replies[0])
    assert "tiny.gguf" in app_of(s, "tiny")["message"]
    (tmp_path / "elsewhere").rename(model)
    wait_for("it runs", 20, lambda: app_of(s, "tiny")["status"] == "RUNNING")
    (reply,) = Burst(s.port, "/v1/completions", [body]).replies()
    assert reply.status == 200


@pytest.mark.parametrize("ingresses", [1, 2])
def test_looking_at_it_wakes_nothing(server, ingresses):
    llm = app(deployment=block())
    s = server([llm], plugins=PLUGINS, http={"num_ingress": ingresses})
    for _ in range(4 * ingresses):
        for path in ("/health", "/-/healthz", "/-/routes", "/metrics", "/version"):
            assert s.get(path).status == 200
        assert [m["id"] for m in json.loads(s.get("/v1/models").body)["data"]] == ["tiny"]
        assert s.get("/v1/models/tiny").status == 200
    time.sleep(0.5)
    assert not s.pids("worker")
    assert deployment_of(s, "tiny")["target_num_replicas"] == 0
    assert starts(s, "tiny") == 0


# ---- the burst ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ingresses", [1, 2])
def test_a_burst_from_zero(server, ingresses):
    s = server([fake(config={"defaults": "sleep_ms=150"})], http={"num_ingress": ingresses})
    with Watch(s, "a") as watch:
        replies = gets(s, "/a/", 200).replies()
        wait_zero(s)
    assert statuses(replies) == {200: 200}
    assert watch.most("running") == 5
    assert watch.most("target") == 5
    assert starts(s, "a") == 5
    assert max(json.loads(r.body)["open_max"] for r in replies) <= 5


def test_a_burst_for_a_language_model(server):
    s = server([app(deployment=block())], plugins=PLUGINS)
    body = {"prompt": "Hello", "max_tokens": 200, "ignore_eos": True, "temperature": 0}
    with Watch(s, "tiny") as watch:
        replies = Burst(s.port, "/v1/completions", [{**body, "model": "tiny"}] * 200).replies()
        wait_zero(s, "tiny")
    assert statuses(replies) == {200: 200}
    texts = {json.loads(r.body)["choices"][0]["text"] for r in replies}
    assert len(texts) == 1, "every replica says the same"
    assert watch.most("running") == 5
    assert watch.most("target") == 5


def test_no_more_are_started_while_some_start(server):
    s = server([fake(config={"do": "load:sleep=2500", "defaults": "sleep_ms=300"})])
    with Watch(s, "a") as watch:
        replies = gets(s, "/a/", 4).replies()
        wait_zero(s)
    assert statuses(replies) == {200: 4}
    assert watch.most("target") == 2, "4 requests, 2 a replica"
    assert starts(s, "a") == 2


def test_a_burst_is_decided_about_at_once(server):
    s = server([fake(config={"defaults": "sleep_ms=1500"}, **block(downscale_delay_s=LATER_S))])
    (first,) = gets(s, "/a/?sleep_ms=0", 1).replies()
    assert first.status == 200
    begin = time.monotonic()
    burst = gets(s, "/a/", 20)
    wait_for("five are wanted", 5, lambda: deployment_of(s, "a")["target_num_replicas"] == 5)
    took = time.monotonic() - begin
    assert took < 4, f"decided after {took:.2f} s"
    assert statuses(burst.replies()) == {200: 20}


# ---- deaths ------------------------------------------------------------------------------------


def test_control_dies_in_a_burst(server):
    s = server([fake(config={"do": "load:sleep=300", "defaults": "sleep_ms=200"})])
    with Watch(s, "a") as watch:
        burst = gets(s, "/a/", 200)
        for _ in range(3):
            time.sleep(0.4)
            (control,) = s.pids("control")
            os.kill(control, signal.SIGKILL)
            wait_for("another control", 5, lambda: s.pids("control") not in ([], [control]))
        replies = burst.replies()
        wait_zero(s)
    assert statuses(replies) == {200: 200}
    assert watch.most("running") == 5
    assert starts(s, "a") == 5, "each control goes on with what runs"


def test_control_dies_while_it_wakes(server):
    s = server([fake(config={"do": "load:sleep=1000"})])
    burst = gets(s, "/a/", 10)
    wait_for("it starts", 5, lambda: s.pids("worker"))
    os.kill(s.pids("control")[0], signal.SIGKILL)
    assert statuses(burst.replies()) == {200: 10}
    wait_zero(s)


def test_a_new_control_is_told_of_the_load(server):
    s = server([fake(config={"defaults": "sleep_ms=4000"})])
    burst = gets(s, "/a/", 10)
    wait_for("five run", 5, lambda: len(running(s, "a")) == 5)
    (control,) = s.pids("control")
    os.kill(control, signal.SIGKILL)
    wait_for("another control", 5, lambda: s.pids("control") not in ([], [control]))
    wait_for("it knows", 3, lambda: deployment_of(s, "a")["num_ongoing_requests"] == 10)
    assert len(running(s, "a")) == 5
    assert statuses(burst.replies()) == {200: 10}


def test_an_ingress_dies_while_clients_wait(server):
    s = server([fake(config={"do": "load:sleep=1500"})])
    burst = gets(s, "/a/", 10)
    (worker,) = wait_for("it starts", 5, lambda: s.pids("worker"))
    time.sleep(0.2)
    os.kill(s.pids("ingress")[0], signal.SIGKILL)
    assert statuses(burst.replies()) == {0: 10}
    wait_for("another ingress", 5, lambda: s.pids("ingress"))
    (reply,) = gets(s, "/a/", 1).replies()
    assert reply.status == 200
    assert json.loads(reply.body)["pid"] == worker, "the start goes on"
    wait_zero(s)


def test_what_waited_at_a_dead_ingress_is_no_load(server):
    s = server([fake(config={"do": "load:sleep=700"}, **block(upscale_delay_s=LATER_S))])
    burst = gets(s, "/a/", 10)
    wait_for("it starts", 5, lambda: s.pids("worker"))
    os.kill(s.pids("ingress")[0], signal.SIGKILL)
    assert statuses(burst.replies()) == {0: 10}
    wait_for("nothing waits", 5, lambda: deployment_of(s, "a")["num_ongoing_requests"] == 0)
    wait_zero(s)


def test_a_worker_dies_while_it_wakes(server):
    s = server([fake(config={"do": "load:sleep=700"})])
    burst = gets(s, "/a/", 10)
    (worker,) = wait_for("it starts", 5, lambda: s.pids("worker"))
    os.kill(worker, signal.SIGKILL)
    assert statuses(burst.replies()) == {200: 10}, "the next start serves them"


def test_it_is_deleted_while_clients_wait(server):
    s = server([fake(config={"do": "load:sleep=1500"}), fake("b")])
    burst = gets(s, "/a/", 10)
    wait_for("it starts", 5, lambda: s.pids("worker"))
    time.sleep(0.2)
    assert s.admin("DELETE", "/api/serve/applications/a")[0] == 200
    replies = burst.replies(10)
    assert statuses(replies) == {503: 10}
    assert all("removed" in error_of(r) for r in replies)
    assert s.get("/a/").status == 404
    wait_for("its worker is gone", 10, lambda: not s.pids("worker"))
    assert s.get("/b/").status == 200


# ---- down --------------------------------------------------------------------------------------


def test_no_request_fails_on_the_way_down(server, tmp_path):
    s = server([fake(config={"defaults": "sleep_ms=100"}, **block(min_replicas=1))])
    rows = []
    with Watch(s, "a") as watch:
        for nth in range(3):
            with Load(s.port, "/a/", 30, seconds=2, out=tmp_path / f"many{nth}") as many:
                rows += many.rows()
            with Load(s.port, "/a/?sleep_ms=20", 2, seconds=2, out=tmp_path / f"few{nth}") as few:
                rows += few.rows()
    assert watch.most("running") == 5
    assert min(r["target"] for r in watch.rows[-5:]) <= 2
    assert {r.status for r in rows} == {200}
    assert len(rows) > 500


# ---- changes while it sleeps -------------------------------------------------------------------


def deploy(s, *apps):
    code, answer = s.admin("PUT", "/api/serve/applications/", {"applications": list(apps)})
    assert code == 200, answer
    wait_for("it is accepted", 10, lambda: app_of(s, "a")["status"] != "DEPLOYING")


def test_a_new_version_of_what_sleeps(server):
    s = server([fake(config={"live": "one"})])
    deploy(s, fake(config={"live": "one", "defaults": "note=1"}))
    time.sleep(0.3)
    assert not s.pids("worker"), "nobody asked for it"
    wait_for("it is deployed", 5, lambda: app_of(s, "a")["status"] == "RUNNING")
    deploy(s, fake(config={"live": "two", "defaults": "note=1"}))
    (reply,) = gets(s, "/a/", 1).replies()
    assert json.loads(reply.body)["live"] == "two"
    wait_zero(s)


def test_a_new_version_while_it_wakes(server):
    s = server([fake(config={"do": "load:sleep=1000"})])
    burst = gets(s, "/a/", 10)
    wait_for("it starts", 5, lambda: s.pids("worker"))
    deploy(s, fake(config={"do": "load:sleep=900", "live": "two"}))
    assert statuses(burst.replies()) == {200: 10}
    (reply,) = gets(s, "/a/", 1).replies()
    assert reply.status == 200
    wait_zero(s)


def test_a_broken_version_of_what_sleeps(server):
    s = server([fake(config={"live": "good"})])
    assert statuses(gets(s, "/a/", 1).replies()) == {200: 1}
    wait_zero(s)
    deploy(s, fake(config={"live": "bad", "do": "load:fail=-500"}))
    replies = gets(s, "/a/", 10, timeout=30).replies()
    assert statuses(replies) == {200: 10}
    assert {json.loads(r.body)["live"] for r in replies} == {"good"}
    wait_for("it is told", 5, lambda: app_of(s, "a")["status"] == "DEPLOY_FAILED")
    assert "load" in app_of(s, "a")["message"]
    wait_zero(s)
    assert statuses(gets(s, "/a/", 1).replies()) == {200: 1}


def test_a_request_in_the_moment_of_falling_asleep(server):
    s = server([fake(**block(look_back_period_s=0.1, downscale_delay_s=0))])
    draw = random.Random(6)
    asked = 60
    for _ in range(asked):
        (reply,) = gets(s, "/a/", 1, timeout=10).replies()
        assert reply.status == 200, reply
        time.sleep(draw.uniform(0.08, 0.18))
    assert starts(s, "a") > asked // 10
    wait_zero(s)


# ---- other bounds ------------------------------------------------------------------------------


def test_num_replicas_auto(server):
    quick = block()["autoscaling_config"]
    del quick["min_replicas"]  # auto means 1
    scaling = {**quick, "max_replicas": 3}
    s = server(
        [fake(config={"defaults": "sleep_ms=300"}, num_replicas="auto", autoscaling_config=scaling)]
    )
    assert len(running(s, "a")) == 1
    with Watch(s, "a") as watch:
        assert statuses(gets(s, "/a/", 60).replies()) == {200: 60}
        wait_for("one is left", 10, lambda: len(deployment_of(s, "a")["replicas"]) == 1)
    assert watch.most("running") == 3
    time.sleep(1)
    assert len(running(s, "a")) == 1, "never fewer than one"


def test_never_fewer_than_min(server):
    s = server([fake(config={"defaults": "sleep_ms=300"}, **block(min_replicas=2, max_replicas=4))])
    assert len(running(s, "a")) == 2
    with Watch(s, "a") as watch:
        assert statuses(gets(s, "/a/", 60).replies()) == {200: 60}
        wait_for("two are left", 10, lambda: len(deployment_of(s, "a")["replicas"]) == 2)
    assert watch.most("running") == 4
    time.sleep(1)
    assert len(running(s, "a")) == 2
