# SPDX-License-Identifier: Apache-2.0
"""Deploying over the admin API: what a PUT, a DELETE and a dry run do, and what they leave alone."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from contextlib import closing

import pytest
from harness import TEST_PLUGINS, Load, Server, UnixConnection, application, wait_for

APPS = "/api/serve/applications/"
LIMIT = 1 << 20  # CONF_FILE_MAX


def fake(name, config=None, **deployment):
    return application(name, "fake_run", config, **deployment)


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path, [fake("a"), fake("b", {"live": "one"})]) as s:
        yield s


def body(server, *applications):
    """What the server was started with, with these applications."""
    return {**json.loads(server.file.read_text()), "applications": list(applications)}


def put(server, *applications):
    def accepted():
        got = server.admin("PUT", APPS, body(server, *applications))
        assert got[0] in (200, 503), got  # 503: control has just started
        return got[0] == 200

    wait_for("the deploy is accepted", 5, accepted, 0.05)


def details(server):
    status, got = server.admin("GET", APPS)
    assert status == 200
    return got


def apps(server):
    """Without those whose last replica is still leaving."""
    found = details(server)["applications"].items()
    return {name: app for name, app in found if app["status"] != "DELETING"}


def running(server, *names):
    """Waits until these, and no others, are there and RUNNING."""

    def good():
        now = {name: app["status"] for name, app in apps(server).items()}
        assert "DEPLOY_FAILED" not in now.values(), apps(server)
        return now == {name: "RUNNING" for name in names}

    wait_for(f"{names} are RUNNING", 15, good)


def pids(server, app):
    (deployment,) = apps(server)[app]["deployments"].values()
    found = deployment["replicas"]
    return {r["replica_id"]: r["pid"] for r in found if r["state"] != "STOPPING"}


def answer(server, app, query=""):
    got = server.get(f"/{app}{query}")
    assert got.status == 200, got
    return json.loads(got.body)


# ---- what a deploy changes ---------------------------------------------------------------------


def test_the_same_again_touches_nothing(server):
    before = {app: pids(server, app) for app in "ab"}
    for _ in range(3):
        put(server, *server.applications)
    running(server, "a", "b")
    assert {app: pids(server, app) for app in "ab"} == before


def test_add_and_remove(server):
    before = pids(server, "a")
    put(server, *server.applications, fake("c"))
    running(server, "a", "b", "c")
    assert answer(server, "c")["replica"].startswith("c/")
    put(server, fake("a"), fake("c"))
    wait_for("b is gone", 5, lambda: server.get("/b").status == 404)
    running(server, "a", "c")
    assert pids(server, "a") == before
    wait_for("its worker left", 30, lambda: len(server.pids("worker")) == 2)


def test_what_is_removed_finishes_its_requests(server):
    got = []
    slow = threading.Thread(target=lambda: got.append(server.get("/b?sleep_ms=1500").status))
    slow.start()
    time.sleep(0.3)
    put(server, fake("a"))
    wait_for("b is gone", 5, lambda: server.get("/b").status == 404)
    slow.join()
    assert got == [200]


def test_a_live_option_changes_in_place(server):
    before = pids(server, "b")
    assert answer(server, "b")["live"] == "one"
    put(server, fake("a"), fake("b", {"live": "two"}))
    wait_for("the new text", 5, lambda: answer(server, "b")["live"] == "two")
    running(server, "a", "b")
    assert pids(server, "b") == before


def test_another_option_replaces_the_replicas(server):
    a, b = pids(server, "a"), pids(server, "b")
    put(server, fake("a"), fake("b", {"live": "one", "max_batch": 2}))
    wait_for("another process", 15, lambda: answer(server, "b")["pid"] not in b.values())
    running(server, "a", "b")
    assert pids(server, "a") == a
    assert not set(pids(server, "b").values()) & set(b.values())


def test_more_replicas_keep_the_old_one(server):
    (first,) = pids(server, "a").values()
    put(server, fake("a", num_replicas=3), server.applications[1])
    wait_for("three replicas", 10, lambda: len(pids(server, "a")) == 3)
    running(server, "a", "b")
    assert first in pids(server, "a").values()
    put(server, fake("a"), server.applications[1])
    wait_for("one replica", 30, lambda: len(server.pids("worker")) == 2)


def test_another_prefix_touches_no_replica(server):
    before = pids(server, "a")
    moved = {**fake("a"), "route_prefix": "/moved"}
    put(server, moved, server.applications[1])
    wait_for("the new prefix", 5, lambda: server.get("/moved").status == 200)
    assert server.get("/a").status == 404
    assert pids(server, "a") == before


# ---- delete ------------------------------------------------------------------------------------


def test_delete_one(server):
    before = pids(server, "a")
    assert server.admin("DELETE", APPS + "b")[0] == 200
    wait_for("b is gone", 5, lambda: server.get("/b").status == 404)
    running(server, "a")
    assert pids(server, "a") == before
    status, got = server.admin("DELETE", APPS + "b/")
    assert status == 404
    assert "'b'" in got["error"]["message"] and "a" in got["error"]["message"]


def test_delete_all_and_begin_again(server):
    assert server.admin("DELETE", APPS)[0] == 200
    wait_for("nothing is left", 30, lambda: not server.pids("worker"))
    assert apps(server) == {}
    assert server.get("/a").status == 404
    assert server.get("/-/healthz").status == 200
    put(server, fake("c"))
    running(server, "c")
    assert answer(server, "c")["replica"].startswith("c/")


# ---- reading -----------------------------------------------------------------------------------


def test_details_have_rays_shape(server):
    got = details(server)
    for key in (
        "controller_info proxy_location http_options grpc_options proxies deploy_mode "
        "target_capacity target_groups applications"
    ).split():
        assert key in got, key
    assert got["deploy_mode"] == "MULTI_APP"
    assert got["http_options"]["port"] == server.port
    for key in ("root_path", "request_timeout_s", "keep_alive_timeout_s"):
        assert key in got["http_options"], key
    assert [p["status"] for p in got["proxies"].values()] == ["HEALTHY"]
    app = got["applications"]["a"]
    for key in (
        "name route_prefix docs_path status message last_deployed_time_s deployed_app_config source "
        "deployments"
    ).split():
        assert key in app, key
    assert (app["name"], app["route_prefix"], app["source"]) == ("a", "/a", "declarative")
    deployment = app["deployments"]["a"]
    for key in (
        "name status status_trigger message deployment_config target_num_replicas replicas"
    ).split():
        assert key in deployment, key
    (replica,) = deployment["replicas"]
    assert replica["state"] == "RUNNING"
    assert abs(time.time() - replica["start_time_s"]) < 60
    assert os.path.exists(f"/proc/{replica['pid']}")


def test_the_config_comes_back_as_it_was_sent(server):
    app = fake("a", {"live": "x", "do": ""}, max_queued_requests=7)
    put(server, app)
    assert apps(server)["a"]["deployed_app_config"] == app
    minimal = {"name": "m", "plugin": "fake_run", "route_prefix": "/m"}
    put(server, minimal)
    assert apps(server)["m"]["deployed_app_config"] == minimal


def test_dry_run_says_and_does_nothing(server):
    before = (pids(server, "a"), pids(server, "b"))
    changed = fake("a", {"max_batch": 3}, max_ongoing_requests=9)
    moved = {**fake("b", {"live": "two"}), "route_prefix": "/moved"}
    status, got = server.admin("POST", "/api/serve/dry-run", body(server, changed, moved, fake("c")))
    assert status == 200
    said = got["applications"]
    assert {name: app["action"] for name, app in said.items()} == {
        "a": "update",
        "b": "update",
        "c": "add",
    }
    classes = {
        (name, change["field"]): change["class"]
        for name, app in said.items()
        for change in app.get("changes", [])
    }
    assert classes[("a", "config.max_batch")] == "rolling"
    assert classes[("b", "config.live")] == "live"
    assert classes[("b", "route_prefix")] == "no replica touched"
    status, got = server.admin("POST", "/api/serve/dry-run", body(server, fake("a")))
    assert got["applications"]["a"]["action"] == "none"
    assert got["applications"]["b"]["action"] == "remove"
    time.sleep(0.3)
    assert (pids(server, "a"), pids(server, "b")) == before
    assert set(apps(server)) == {"a", "b"}
    assert server.get("/b").status == 200


# ---- what is refused ---------------------------------------------------------------------------

JSON, YAML = "application/json", "application/yaml"
BAD = {
    "empty": (JSON, b"", ""),
    "cut": (JSON, b'{"applications": [', ""),
    "yaml as json": (JSON, b"applications: []\n", "JSON"),
    "two values": (JSON, b'{"applications": []} {}', ""),
    "bytes": (JSON, bytes(range(256)) * 40, ""),
    "zeros": (JSON, b"\0" * 1000, ""),
    "a list": (JSON, b"[]", ""),
    "a text": (JSON, b'"applications"', ""),
    "null": (JSON, b"null", ""),
    "no applications": (JSON, b"{}", "applications"),
    "unknown key": (JSON, b'{"applications": [], "aplications": []}', "did you mean 'applications'"),
    "no plugin": (JSON, b'{"applications": [\n{"name": "x"}]}', ":2:1"),
    "a wrong type": (JSON, b'{"applications": [{"name": "x", "plugin": {}}]}', "plugin"),
    "twice": (JSON, b'{"applications": [{"plugin": "fake_run"}, {"plugin": "fake_run"}]}', "twice"),
    "deep": (JSON, b"[" * 100000, ""),
    "deep objects": (JSON, b'{"a":' * 100000, ""),
    "a place": (YAML, b"applications:\n  - name: x\n    plugin: y\n    pluggin: y\n", ":4:5: unknown key 'pluggin'"),
    "an alias bomb": (
        YAML,
        b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n"
        b"c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n"
        b"e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\napplications: []\n",
        "",
    ),
}


def test_what_is_wrong_is_400_and_changes_nothing(server):
    before = apps(server)
    for name, (kind, text, says) in BAD.items():
        for method, path in (("PUT", APPS), ("POST", "/api/serve/dry-run")):
            status, got = server.admin(method, path, text, {"content-type": kind})
            assert status == 400, (name, got)
            assert says in got["error"]["message"], (name, got)
    after = apps(server)
    assert set(after) == {"a", "b"}
    for app, was in before.items():
        assert after[app]["deployed_app_config"] == was["deployed_app_config"]
        assert after[app]["deployments"].keys() == was["deployments"].keys()
    assert answer(server, "a")["pid"] in pids(server, "a").values()


def test_the_path_names_the_body_in_messages(server):
    bad = b"applications: [{name: x, plugin: y, prefix: z}]\n"
    path = APPS + "?path=/some/folder%20of/mine.yaml"
    status, got = server.admin("PUT", path, bad, {"content-type": YAML})
    assert status == 400
    assert got["error"]["message"].startswith("/some/folder of/mine.yaml:1:")
    for query in ("?path=relative.yaml", "?path=/" + "x" * 5000, "?path=/a%00b"):
        status, got = server.admin("PUT", APPS + query, bad, {"content-type": YAML})
        assert status == 400 and "path" in got["error"]["message"], query


def test_relative_paths_begin_at_the_path(server, tmp_path):
    shutil.copy(TEST_PLUGINS / "fake_run.so", tmp_path / "mine.so")
    text = b"applications: [{name: mine, route_prefix: /mine, plugin: ./mine.so}]\n"
    path = f"{APPS}?path={tmp_path}/app.yaml"
    assert server.admin("PUT", path, text, {"content-type": YAML})[0] == 200
    running(server, "mine")
    assert answer(server, "mine")["replica"].startswith("mine/")


def test_body_limits(server):
    app = json.dumps(body(server, fake("a"))).encode()
    assert server.admin("PUT", APPS, app.ljust(LIMIT - 4096), {"content-type": JSON})[0] == 200
    status, got = server.admin("PUT", APPS, app.ljust(LIMIT + 1), {"content-type": JSON})
    assert status == 413 and str(LIMIT) in got["error"]["message"]
    with closing(UnixConnection(server.state / "control.sock")) as c:  # chunked: no length to see
        pieces = iter([app] + [b" " * 65536] * 16)
        c.request("PUT", APPS, pieces, {"content-type": JSON}, encode_chunked=True)
        assert c.getresponse().status == 413
    running(server, "a")


def test_upgrade_wants_a_path(server):
    for text in (b"{}", b"[]", b"x", b"", b'{"path": 3}', b'{"path": "relative"}'):
        status, got = server.admin("POST", "/api/upgrade", text, {"content-type": JSON})
        assert status == 400, (text, got)
    running(server, "a", "b")


# ---- many at once, and trouble -----------------------------------------------------------------


def test_parallel_puts_end_in_one_of_them(server):
    wanted = [[fake("a"), fake(f"p{i}", {"live": str(i)})] for i in range(8)]
    got = []

    def run(applications):
        for _ in range(3):
            got.append(server.admin("PUT", APPS, body(server, *applications))[0])

    threads = [threading.Thread(target=run, args=(w,)) for w in wanted]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(got) == {200}
    names = set(apps(server))
    assert names in [{a["name"] for a in w} for w in wanted], names
    running(server, *names)
    wait_for("one worker each", 30, lambda: len(server.pids("worker")) == 2)
    assert server.get("/a").status == 200


def test_a_slow_body_holds_up_nobody(server):
    with closing(socket.socket(socket.AF_UNIX)) as s:
        s.connect(str(server.state / "control.sock"))
        s.sendall(
            b"PUT " + APPS.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        begun = time.monotonic()
        put(server, fake("c"))
        running(server, "c")
        assert time.monotonic() - begun < 10
    running(server, "c")  # the client left in the middle of its body


def test_what_was_accepted_survives_control(server):
    for i in range(5):
        control = server.pids("control")[0]
        put(server, fake("a"), fake("c", {"live": str(i)}))
        os.kill(control, signal.SIGKILL)
        wait_for("another control", 10, lambda old=control: server.pids("control") not in ([], [old]))

        def answers():
            try:
                return apps(server)
            except OSError:
                return None

        got = wait_for("it answers", 10, answers)
        assert set(got) == {"a", "c"}
        assert got["c"]["deployed_app_config"] == fake("c", {"live": str(i)})
    running(server, "a", "c")
    wait_for("the last text", 10, lambda: answer(server, "c")["live"] == "4")


def test_deploys_under_load_lose_nothing(server, tmp_path):
    """Others come, go and change, live and by replacement, and `a` itself is changed too."""
    live = {"live": "0"}
    with Load(server.port, "/a?sleep_ms=2", connections=16, out=tmp_path / "rows") as load:
        for i in range(6):
            live = {"live": str(i), "max_batch": 1 + i % 2}
            others = [fake("b", {"live": str(i)})] if i % 2 else [fake("c", {"max_batch": i + 1})]
            put(server, fake("a", live, num_replicas=1 + i % 3), *others)
            running(server, "a", others[0]["name"])
        load.stop()
        rows = load.rows()
    assert len(rows) > 100
    bad = [r for r in rows if r.status != 200]
    assert not bad, bad[:5]
    assert answer(server, "a")["live"] == live["live"]
