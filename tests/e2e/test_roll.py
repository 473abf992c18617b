# SPDX-License-Identifier: Apache-2.0
"""Rolling updates: who is replaced, who is told, who is left alone; and versions that break."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from clients import Raw, WebSocket
from harness import BUILD, TEST_PLUGINS, wait_for
from rolls import (
    Clients,
    app_of,
    deploy,
    deployment_of,
    gave_up,
    is_settled,
    pids,
    replicas,
    roller,
    rolled,
    settled,
    tag_of,
)

LLM = BUILD / "plugins" / "llm" / "llm.so"


def live_of(server):
    return json.loads(server.get("/app/").body)["live"]


def kill_control(server):
    (control,) = server.pids("control")
    os.kill(control, signal.SIGKILL)
    wait_for("a new control", 20, lambda: server.pids("control") not in ([], [control]))
    wait_for("it answers", 10, lambda: answers(server))


def answers(server):
    with contextlib.suppress(OSError):
        return server.admin("GET", "/healthz")[0] == 200
    return False


def in_the_middle(server, name="app"):
    """A new replica is there beside the old ones."""
    return len({r["version"] for r in replicas(server, name) if r["state"] != "STOPPING"}) > 1


# ---- what a change does to the replicas ---------------------------------------------------------


def test_the_same_again_touches_nobody(server):
    s = server([roller(num_replicas=2)])
    before = pids(s)
    deploy(s, roller(num_replicas=2))
    settled(s)
    time.sleep(1.2)
    assert pids(s) == before


@pytest.mark.parametrize("change", [
    {"max_queued_requests": 5},
    {"rolling_update_percentage": 0.5},
    {"warmup_requests": [{"method": "GET", "path": "/"}]},
    {"health_check_period_s": 3},
    {"graceful_shutdown_timeout_s": 3},
    {"max_ongoing_requests": 3},
])
def test_numbers_change_in_place(server, change):
    s = server([roller(num_replicas=2)])
    before = pids(s)
    deploy(s, roller(num_replicas=2, **change))
    settled(s)
    assert pids(s) == before
    if "max_ongoing_requests" in change:
        assert deployment_of(s)["deployment_config"]["max_ongoing_requests"] == 3


def test_a_live_option_is_told(server):
    s = server([roller(num_replicas=2, config={"live": "one"})])
    before = pids(s)
    with Clients(s) as clients:
        deploy(s, roller(num_replicas=2, config={"live": "two"}))
        for _ in range(2):  # both say so, whoever answers
            wait_for("it is told", 5, lambda: {live_of(s) for _ in range(12)} == {"two"})
    assert not clients.wrong
    assert pids(s) == before
    settled(s)
    # What is started again has it too.
    os.kill(before["app/app/0"], signal.SIGKILL)
    wait_for("it is back", 10, lambda: is_settled(app_of(s)) and pids(s) != before)
    assert {live_of(s) for _ in range(12)} == {"two"}


def test_a_live_option_that_is_refused_is_taken_back(server):
    s = server([roller(num_replicas=2, do="reconfigure:fail=-400@2", config={"live": "one"})])
    before = pids(s)
    deploy(s, roller(num_replicas=2, do="reconfigure:fail=-400@2", config={"live": "two"}))
    wait_for("it is told", 5, lambda: {live_of(s) for _ in range(12)} == {"two"})
    deploy(s, roller(num_replicas=2, do="reconfigure:fail=-400@2", config={"live": "three"}))
    app = gave_up(s, "refuses the new config")
    assert pids(s) == before
    assert {live_of(s) for _ in range(12)} == {"two"}
    assert "the fake plugin was told to fail" in app["message"]
    # A worker that dies now comes back with what holds.
    os.kill(before["app/app/1"], signal.SIGKILL)
    wait_for("it is back", 10, lambda: is_settled(app_of(s)) and pids(s) != before)
    assert {live_of(s) for _ in range(12)} == {"two"}


def test_another_option_rolls(server):
    s = server([roller("one", num_replicas=2)])
    before = pids(s)
    with Clients(s) as clients:
        deploy(s, roller("two", "load:sleep=500", num_replicas=2))
        least = []

        def through():
            seen = replicas(s)
            least.append(sum(r["state"] == "RUNNING" for r in seen))
            return is_settled(app_of(s)) and not set(pids(s).values()) & set(before.values())

        wait_for("all are new", 30, through, 0.02)
        time.sleep(0.3)
    assert not clients.wrong, clients.wrong
    assert min(least) >= 2, "the old ones serve until the new ones do"
    assert set(clients.tags()) == {"one", "two"}
    assert tag_of(s) == "two"


def test_num_replicas_up_and_down(server):
    s = server([roller(num_replicas=1)])
    (first,) = pids(s).values()
    with Clients(s) as clients:
        deploy(s, roller(num_replicas=4))
        wait_for("four", 10, lambda: is_settled(app_of(s)) and len(pids(s)) == 4)
        assert first in pids(s).values()
        four = set(pids(s).values())
        deploy(s, roller(num_replicas=2))
        wait_for("two", 15, lambda: is_settled(app_of(s)) and len(pids(s)) == 2)
        assert set(pids(s).values()) < four
    assert not clients.wrong, clients.wrong


def test_a_route_prefix_moves_without_a_restart(server):
    s = server([roller()])
    before = pids(s)
    moved = {**roller(), "route_prefix": "/elsewhere"}
    deploy(s, moved)
    wait_for("it answers there", 5, lambda: s.get("/elsewhere/").status == 200)
    assert s.get("/app/").status == 404
    assert pids(s) == before


def test_a_deployment_gets_another_name(server):
    s = server([roller(num_replicas=2)])
    app = roller(num_replicas=2)
    app["deployments"][0]["name"] = "other"
    with Clients(s) as clients:
        deploy(s, app)
        wait_for("renamed", 30, lambda: is_settled(app_of(s)) and all("/other/" in r for r in pids(s)))
    assert not clients.wrong, clients.wrong
    metrics = s.metrics()
    assert metrics.sum("salver_replicas", deployment="other", state="RUNNING") == 2
    assert metrics.sum("salver_replicas", deployment="app", state="RUNNING") == 0
    assert metrics.sum("salver_target_replicas", deployment="app") == 0


def test_bodies_that_begin_to_stream_in(server):
    """Two versions of which one takes bodies in pieces share a queue: both get what they can take."""
    s = server([roller("one", config={"stream_in": False}, num_replicas=2)])
    with Clients(s, plain=1, streams=1, uploads=4, whole=("one", "three")) as clients:
        deploy(s, roller("two", num_replicas=2))
        rolled(s, "two")
        deploy(s, roller("three", config={"stream_in": False}, num_replicas=2))
        rolled(s, "three")
    assert not clients.wrong, clients.wrong
    assert set(clients.tags("upload")) == {"one", "two", "three"}


def test_an_update_at_zero(server):
    scaling = {
        "min_replicas": 0,
        "max_replicas": 2,
        "initial_replicas": 0,
        "downscale_delay_s": 0.2,
        "look_back_period_s": 1,
    }
    s = server([roller("one", autoscaling_config=scaling)], ready={"app": None})
    wait_for("it is there", 10, lambda: answers(s) and app_of(s)["status"] == "RUNNING")
    assert s.pids("worker") == []
    deploy(s, roller("two", autoscaling_config=scaling))
    time.sleep(1)
    assert s.pids("worker") == [], "an update wakes nobody"
    assert tag_of(s) == "two"
    wait_for("zero again", 20, lambda: s.pids("worker") == [])
    deploy(s, roller("bad", "load:segv", autoscaling_config=scaling))
    time.sleep(1)
    assert tag_of(s) == "two", "the first request finds out, and is answered by the version before"
    gave_up(s, "SIGSEGV")


def test_a_version_at_zero_outlives_a_broken_one_and_control(server):
    """Nobody had asked for it yet, so nothing but the store says that it was there."""
    scaling = {"min_replicas": 0, "max_replicas": 1, "initial_replicas": 0}
    s = server([roller("one", autoscaling_config=scaling)], ready={"app": None})
    wait_for("it is there", 10, lambda: app_of(s)["status"] == "RUNNING")
    deploy(s, roller("bad", "create:segv", autoscaling_config=scaling))
    gave_up(s, "SIGSEGV")
    kill_control(s)
    wait_for("it is known", 10, lambda: "serves on" in app_of(s)["message"])
    assert tag_of(s) == "one"


# ---- versions that break ------------------------------------------------------------------------

BROKEN = {
    "crash in load": (roller("bad", "load:segv"), "SIGSEGV"),
    "crash in warm": (roller("bad", "warm:abort"), "SIGABRT"),
    "error in load": (roller("bad", "load:fail=-404"), "told to fail"),
    "hang in load": (roller("bad", "load:hang", load_timeout_s=0.5), "load"),
    "crash on first request": (roller("bad", "submit:segv@1"), "SIGSEGV"),
    "hang on first request": (roller("bad", "submit:hang@1", stall_timeout_s=0.5, load_timeout_s=1), ""),
    "exit on first request": (roller("bad", "step:exit=3"), ""),
    "crash on a request of the file's": (
        roller("bad", config={"defaults": "do=input:segv"},
               warmup_requests=[{"path": "/x", "body": "hello"}]),
        "SIGSEGV",
    ),
    "an error on a request of the file's": (
        roller("bad", warmup_requests=[{"path": "/x?status=404", "expect_status": 200}]),
        "404",
    ),
    "bad config": (roller("bad", config={"max_batch": "lots"}), "max_batch"),
    "unknown option": (roller("bad", config={"modell": 1}), "modell"),
    "crash in create": (roller("bad", "create:segv"), "SIGSEGV"),
    "error in create": (roller("bad", "create:fail=-404"), "create"),
    "missing plugin": ({**roller("bad"), "plugin": "nosuch"}, "nosuch"),
    "missing model": (
        {**roller("bad"), "plugin": str(LLM), "deployments": [
            {"name": "app", "config": {"model": "/nonexistent/model.gguf"}}]},
        "/nonexistent/model.gguf",
    ),
    "not a plugin": ({**roller("bad"), "plugin": "fake_dlcrash"}, ""),
    "more GPUs than there are": (roller("bad", config={"devices": 2, "device_bytes": "1GiB"}), "GPU"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_version_costs_nothing(server, name):
    bad, says = BROKEN[name]
    s = server([roller("good", num_replicas=1)])
    before = pids(s)
    with Clients(s, plain=1, streams=1, uploads=1) as clients:
        deploy(s, bad)
        app = gave_up(s, says)
        assert "serves on" in app["message"]
        assert pids(s) == before, "the old one was never touched"
        deploy(s, roller("better"))
        rolled(s, "better")
    assert not clients.wrong, clients.wrong
    assert set(clients.tags()) == {"good", "better"}


def test_a_broken_version_with_another_prefix_costs_nothing(server):
    s = server([roller("good", num_replicas=2)])
    bad = {**roller("bad", "load:sleep=300,load:segv", num_replicas=2), "route_prefix": "/elsewhere"}
    with Clients(s) as clients:
        deploy(s, bad)
        gave_up(s, "SIGSEGV")
        assert s.get("/elsewhere/").status == 404
    assert not clients.wrong, clients.wrong
    deploy(s, {**roller("better", num_replicas=2), "route_prefix": "/elsewhere"})
    while s.get("/app/").status == 200:
        pass  # until its version is there alone
    assert s.get("/elsewhere/").status == 200
    assert tag_of(s, "/elsewhere/") == "better"


def test_a_broken_version_with_another_model_costs_nothing(server):
    """Its name is nobody's, and the one before keeps its own."""
    def named(model, do=""):
        app = roller(do=do, name="m")
        return {**app, "plugin": "named", "deployments": [{"name": "m", "config": {"models": model}}]}

    def names(s):
        return [m["id"] for m in json.loads(s.get("/v1/models").body)["data"]]

    s = server([named("one")], ready={"m": None})
    wait_for("it runs", 10, lambda: answers(s) and app_of(s, "m")["status"] == "RUNNING")
    assert names(s) == ["one"]
    bad = named("two")
    bad["deployments"][0]["warmup_requests"] = [{"path": "/", "expect_status": 418}]
    deploy(s, bad)
    end = time.monotonic() + 1
    while time.monotonic() < end or app_of(s, "m")["status"] != "DEPLOY_FAILED":
        assert names(s) == ["one"]
    deploy(s, named("two"))
    wait_for("the new name", 10, lambda: names(s) == ["two"])


def test_a_version_that_breaks_after_its_first_second_is_given_up(server):
    """Warm-up and canary pass, the old ones are gone, and then it dies again and again."""
    s = server([roller("good")])
    deploy(s, roller("bad", config={"defaults": "do=submit:segv*4", "state": str(s.folder)},
                     warmup_requests=[{"method": "GET", "path": "/?do="}]))  # fmt: skip
    settled(s, before=deployment_of(s)["version"])
    for _ in range(4):
        with contextlib.suppress(ConnectionError):
            s.get("/app/")
    gave_up(s, "SIGSEGV")
    assert tag_of(s) == "good"


def test_the_same_broken_version_is_tried_again(server, tmp_path):
    s = server([roller("good")])
    rule = "load:fail=-500*1000"
    bad = roller("bad", rule, config={"state": str(tmp_path)})
    deploy(s, bad)
    gave_up(s, "told to fail")
    (tmp_path / rule).write_text("x" * 1000)  # it has failed often enough, and loads from now on
    time.sleep(1.5)
    assert tag_of(s) == "good", "not by itself"
    deploy(s, bad)
    rolled(s, "bad")
    assert app_of(s)["message"] == ""


def test_a_second_change_while_the_first_rolls(server):
    s = server([roller("one", num_replicas=2)])
    with Clients(s) as clients:
        deploy(s, roller("two", "load:sleep=500", num_replicas=2))
        wait_for("it has begun", 10, lambda: in_the_middle(s), 0.02)
        deploy(s, roller("three", num_replicas=2))
        rolled(s, "three")
        deploy(s, roller("four", num_replicas=2))
        deploy(s, roller("five", num_replicas=2))
        rolled(s, "five")
    assert not clients.wrong, clients.wrong


def test_back_to_the_first_while_the_second_rolls(server):
    s = server([roller("one", num_replicas=2)])
    before = pids(s)
    deploy(s, roller("two", "load:sleep=2000", num_replicas=2, load_timeout_s=5))
    wait_for("it has begun", 10, lambda: in_the_middle(s), 0.02)
    deploy(s, roller("one", num_replicas=2))
    rolled(s, "one")
    assert pids(s) == before


def test_a_broken_one_while_another_rolls(server):
    """What was never seen whole is nothing to go back to: the one before it is."""
    s = server([roller("one", num_replicas=2)])
    with Clients(s) as clients:
        deploy(s, roller("two", "load:sleep=1000", num_replicas=2))
        wait_for("it has begun", 10, lambda: in_the_middle(s), 0.02)
        deploy(s, roller("bad", "load:segv", num_replicas=2))
        gave_up(s, "SIGSEGV")
        assert tag_of(s) == "one"
    assert not clients.wrong, clients.wrong


# ---- while processes die ------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", range(3))
def test_control_is_killed_in_the_middle(server, rounds):
    s = server([roller("one", num_replicas=3)])
    with Clients(s) as clients:
        deploy(s, roller("two", num_replicas=3))
        wait_for("it has begun", 10, lambda: in_the_middle(s), 0.02)
        time.sleep(0.4 * rounds)
        kill_control(s)
        rolled(s, "two")
        wait_for("three, and no more", 10, lambda: len(s.pids("worker")) == 3)
    assert not clients.wrong, clients.wrong


def test_control_is_killed_while_an_old_one_drains(server):
    """What an earlier control has told to leave is not taken for a replica that stays."""
    s = server([roller("one", num_replicas=2, graceful_shutdown_timeout_s=20)])
    with Raw(s.port, timeout=30) as c, Raw(s.port, timeout=30) as other:
        for one in (c, other):
            one.ask("/app/?n=40&interval_ms=100")
            one.head()
            events = one.events()
            next(events)
        assert [r["num_ongoing_requests"] for r in replicas(s)] == [1, 1]
        deploy(s, roller("one", num_replicas=1, graceful_shutdown_timeout_s=20))
        wait_for("one leaves", 10, lambda: [r for r in replicas(s) if r["state"] == "STOPPING"])
        kill_control(s)
        wait_for("one stays", 20, lambda: is_settled(app_of(s)), 0.1)
        assert len(list(events)) == 39
        assert len(list(c.events())) == 39
    assert len(s.pids("worker")) == 1
    deploy(s, roller("two", num_replicas=2))
    rolled(s, "two")
    wait_for("two, and no more", 10, lambda: len(s.pids("worker")) == 2)


def test_an_old_worker_is_killed_in_the_middle(server):
    s = server([roller("one", num_replicas=2)])
    old = pids(s)
    deploy(s, roller("two", "load:sleep=1000", num_replicas=2))
    wait_for("it has begun", 10, lambda: in_the_middle(s), 0.02)
    os.kill(old["app/app/0"], signal.SIGKILL)
    assert tag_of(s) == "one"
    rolled(s, "two")


def test_a_roll_back_survives_control(server):
    s = server([roller("good", num_replicas=2)])
    before = pids(s)
    deploy(s, roller("bad", "load:segv", num_replicas=2))
    message = gave_up(s, "SIGSEGV")["message"]
    starts = s.log().count("SIGSEGV")
    kill_control(s)
    assert gave_up(s, "SIGSEGV")["message"] == message
    time.sleep(1.5)
    assert pids(s) == before
    assert s.log().count("SIGSEGV") == starts, "it is not tried again"
    deploy(s, roller("better", num_replicas=2))
    rolled(s, "better")


def test_a_roll_back_survives_the_server(server, tmp_path):
    s = server([roller("good")])
    deploy(s, roller("bad", "load:segv"))
    gave_up(s, "SIGSEGV")
    s.__exit__(None, None, None)
    s.command.remove(s.file)  # resumes what the store says
    with s:
        gave_up(s, "SIGSEGV")
        assert tag_of(s) == "good"
        deploy(s, roller("better"))
        rolled(s, "better")


def test_who_stops_starts_nobody(server):
    s = server([roller(do="unload:sleep=500", num_replicas=2)])
    (slow, quick) = s.pids("worker")
    s.process.send_signal(signal.SIGTERM)
    wait_for("they drain", 5, lambda: s.log().count("draining: 0 in flight") == 2)
    os.kill(quick, signal.SIGKILL)  # its end is told to control, which may not replace it
    s.process.wait(10)
    tail = s.log().split("got signal 15")[1]
    assert not re.search(r"worker \S+ ready: plugin", tail) and tail.count("] left") == 1, tail
    assert "stopped" in tail


# ---- a new file of the plugin -------------------------------------------------------------------


@pytest.fixture
def plugins(tmp_path):
    """A plugins folder of the test's own: put(NAME) makes that test plugin `mine`."""
    folder = tmp_path / "plugins"
    folder.mkdir()

    def put(name):
        new = folder / "new"
        if isinstance(name, bytes):
            new.write_bytes(name)
        else:
            shutil.copy(TEST_PLUGINS / f"{name}.so", new)
        new.rename(folder / "mine.so")

    put.folder = folder
    put("fake_step")
    return put


def plugin_of(server):
    return deployment_of(server)["plugin"].split()[0]


def mine(*args, **kwargs):
    return {**roller(*args, **kwargs), "plugin": "mine"}


def test_a_new_file_rolls(server, plugins):
    s = server([mine(num_replicas=2)], plugins=plugins.folder)
    was = deployment_of(s)["version"]
    assert plugin_of(s) == "fake_step"
    with Clients(s, whole=None) as clients:
        plugins("fake_run")
        settled(s, before=was)
    assert not clients.wrong, clients.wrong
    assert plugin_of(s) == "fake_run"


def test_a_broken_file_is_left_alone(server, plugins):
    s = server([mine(num_replicas=1)], plugins=plugins.folder)
    before = pids(s)
    with Clients(s, whole=None) as clients:
        plugins("fake_dlcrash")
        gave_up(s, "new file")
        seen = s.log().count("DEPLOY_FAILED")
        time.sleep(3.5)
        assert s.log().count("DEPLOY_FAILED") == seen, "until it changes again"
        kill_control(s)
        time.sleep(3.5)
        assert s.log().count("DEPLOY_FAILED") == seen, "nor after a control's death"
        assert pids(s) == before
        gave_up(s, "new file")
        plugins("fake_run")
        settled(s)
    assert not clients.wrong, clients.wrong
    assert plugin_of(s) == "fake_run"


def test_a_file_that_breaks_at_the_first_request_is_tried_once(server, plugins):
    """It passes the inspection, its replicas fail, and it is left alone from then on."""
    do = "submit:segv@1"
    plugins("fake_run")  # never calls submit
    s = server([mine("one", do, config={"stream_in": False})], plugins=plugins.folder)
    before = pids(s)
    plugins("fake_step")
    gave_up(s, "new file")
    crashes = s.log().count("SIGSEGV")
    time.sleep(3.5)
    assert s.log().count("SIGSEGV") == crashes
    kill_control(s)
    time.sleep(3.5)
    assert s.log().count("SIGSEGV") == crashes
    gave_up(s, "new file")
    assert pids(s) == before and tag_of(s) == "one"


def copies(server):
    return {p.name for p in (server.state / "plugins").iterdir()}


def test_copies_that_nobody_uses_go(server, plugins):
    shutil.copy(TEST_PLUGINS / "fake_step.so", plugins.folder)
    s = server([mine("one"), roller(name="other")], plugins=plugins.folder)
    code = (TEST_PLUGINS / "fake_step.so").read_bytes()
    plugins(code + b"0")
    settled(s, before=deployment_of(s)["version"])
    for i in range(4):  # behind the end of an ELF file there may be anything
        was = deployment_of(s)["version"]
        plugins(code + b"x" * (i + 1))
        settled(s, before=was)
    # What runs; the one before it until that is proven; `other` is of its own file.
    wait_for("the others went", 20, lambda: len(copies(s)) == 3, 0.2)
    used = {Path(deployment_of(s, n)["plugin_path"]).parent.name for n in ("app", "other")}
    left = copies(s)
    assert used < left
    plugins("fake_dlcrash")
    gave_up(s, "new file")
    wait_for("what was refused went", 10, lambda: copies(s) == left, 0.2)
    os.kill(next(iter(pids(s).values())), signal.SIGKILL)
    wait_for("it starts from its copy", 10, lambda: is_settled(app_of(s)))
    assert tag_of(s) == "one"


# ---- where there is no room ---------------------------------------------------------------------


def test_without_a_second_gpu_the_old_one_leaves_first(server, gpus):
    gpus(1)
    config = {"devices": 1, "device_bytes": "1GiB"}
    s = server([roller("one", config=config)])
    with Clients(s, streams=1) as clients:
        deploy(s, roller("two", config=config))
        rolled(s, "two")
        deploy(s, roller("bad", "load:segv", config=config))
        gave_up(s, "SIGSEGV")
        assert tag_of(s) == "two"
    assert not clients.wrong, clients.wrong  # they waited in the queue


def test_control_is_killed_while_the_only_one_drains(server, gpus):
    """It is of the version that is wanted again, and still it does not stay."""
    gpus(1)
    config = {"devices": 1, "device_bytes": "1GiB"}
    s = server([roller("one", config=config)])
    with Raw(s.port, timeout=30) as c:
        c.ask("/app/?n=40&interval_ms=100")
        c.head()
        events = c.events()
        next(events)
        deploy(s, roller("two", config=config))
        wait_for("it leaves", 10, lambda: [r for r in replicas(s) if r["state"] == "STOPPING"])
        deploy(s, roller("one", config=config))
        kill_control(s)
        assert len(list(events)) == 39
    rolled(s, "one")


def test_with_a_second_gpu_the_new_one_starts_beside_it(server, gpus):
    gpus(2)
    config = {"devices": 1, "device_bytes": "1GiB"}
    s = server([roller("one", config=config)])
    deploy(s, roller("two", "load:sleep=1000", config=config))
    wait_for("both are there", 10, lambda: in_the_middle(s), 0.02)
    rolled(s, "two")


# ---- streams across a roll ----------------------------------------------------------------------


def test_a_stream_ends_where_it_began(server):
    s = server([roller("one")])
    with Raw(s.port, timeout=30) as c:
        c.ask("/app/?n=40&interval_ms=100")
        c.head()
        events = c.events()
        seen = [json.loads(next(events))]
        deploy(s, roller("two"))
        wait_for("the new one answers", 15, lambda: tag_of(s) == "two")
        seen += [json.loads(e) for e in events]
    assert [e["i"] for e in seen] == list(range(40))
    assert len({(e["tag"], e["pid"]) for e in seen}) == 1
    rolled(s, "two")


def test_a_websocket_ends_where_it_began(server):
    s = server([roller("one", graceful_shutdown_timeout_s=3)])
    with WebSocket(s.port, "/app/?ws=echo", timeout=20) as c:
        c.send_text("before")
        assert c.message() == (c.TEXT, b"before")
        deploy(s, roller("two"))
        wait_for("the new one answers", 15, lambda: tag_of(s) == "two")
        c.send_text("after")
        assert c.message() == (c.TEXT, b"after")
        c.send_close()
        assert c.close_code() == 1000
    rolled(s, "two")


def test_what_stays_too_long_is_cut(server):
    """graceful_shutdown_timeout_s of the old version counts for what is aboard the old version."""
    s = server([roller("one", graceful_shutdown_timeout_s=1)])
    with WebSocket(s.port, "/app/?ws=echo", timeout=20) as ws, Raw(s.port, timeout=20) as c:
        ws.send_text("before")
        assert ws.message() == (ws.TEXT, b"before")
        c.ask("/app/?n=100000&interval_ms=20")
        c.head()
        events = c.events()
        next(events)
        deploy(s, roller("two", graceful_shutdown_timeout_s=1))
        last = list(events)[-1]
        assert '"error"' in last, last
        assert ws.close_code() == 1011
    rolled(s, "two")


# ---- what it waits for --------------------------------------------------------------------------


def test_status_says_what_it_waits_for(server):
    s = server([roller("one", graceful_shutdown_timeout_s=4)])
    said = []

    def note():
        message = app_of(s)["message"]
        if message and (not said or said[-1] != message):
            said.append(message)
        return is_settled(app_of(s)) and tag_of(s) == "two"

    with Raw(s.port, timeout=20) as c:
        c.ask("/app/?hold=1")
        wait_for("it is given", 5, lambda: replicas(s)[0]["num_ongoing_requests"] == 1)
        deploy(s, roller("two", "load:sleep=500"))
        wait_for("it is through", 20, note, 0.02)
    text = " | ".join(said)
    assert "rolling update: waits for app/app/1 to be ready" in text
    assert "waits for app/app/1 to stay ready for a moment" in text
