# SPDX-License-Identifier: Apache-2.0
"""What a plugin names in sv.models/1, in GET /v1/models and on /metrics."""

import json
import os
import re
import signal
import threading
import time

import pytest
from harness import application, size, wait_for


def named(name, config=None, **deployment):
    return application(name, "named", config, **deployment)


def ids(server):
    return [card["id"] for card in json.loads(server.get("/v1/models").body)["data"]]


def test_cards(server):
    before = int(time.time())
    s = server([named("a", {"models": "first,second"}), named("b"), application("e", "fake_run")])
    first, second, third = json.loads(s.get("/v1/models").body)["data"]
    assert first.pop("permission")[0]["object"] == "model_permission"
    created = first.pop("created")
    assert before <= created <= time.time()
    assert first == {
        "id": "first",
        "object": "model",
        "owned_by": "salver",
        "root": "/models/named",
        "parent": None,
        "max_model_len": 4096,
    }
    assert second["id"] == "second" and second["root"] == "/models/named"
    assert third["id"] == "b"  # the deployment's name, which the inspection told it


def failed(server, name):
    app = server.status()["applications"][name]
    return app if app["status"] == "DEPLOY_FAILED" else None


def test_an_id_stands_once(server):
    apps = [named("a", {"models": "same,other"}), named("b", {"models": "same"})]
    s = server(apps, ready={"b": None})
    app = wait_for("the second is refused", 10, lambda: failed(s, "b"))
    assert app["message"].startswith("the model name 'same' is application 'a's already; give one")
    assert ids(s) == ["same", "other"]
    assert s.get("/b/").status == 503


def test_without_a_replica_and_with_another_control(server):
    s = server([named("a")])
    card = json.loads(s.get("/v1/models").body)["data"][0]
    os.kill(s.pids("worker")[0], signal.SIGKILL)
    assert ids(s) == ["a"]
    old = s.pids("control")[0]
    os.kill(old, signal.SIGKILL)
    wait_for("another control", 20, lambda: s.pids("control") not in ([], [old]))
    time.sleep(2.5)  # it has told the routes again
    assert s.status()["applications"]["a"]["status"] == "RUNNING"
    assert json.loads(s.get("/v1/models").body)["data"][0] == card


@pytest.mark.parametrize(
    "lie, why",
    [
        ("many", r"names 1001 models; at most 1000"),
        ("huge", r"its id has too many bytes"),
        ("empty", r"its id has no bytes"),
        ("null", r"its id has no bytes"),
        ("utf8", r"its root is not valid UTF-8"),
        ("control", r"byte 1 of its id is 0x0a"),
        ("segv", r"crashed with SIGSEGV .* in extension"),
        ("fail", r"failed with -404: there is no such model"),
    ],
)
def test_lies_are_refused(server, lie, why):
    s = server([named("good"), named("liar", {"lie": lie})], ready={"liar": None})
    app = wait_for(
        "the liar has failed",
        10,
        lambda: (a := s.status()["applications"]["liar"])["status"] == "DEPLOY_FAILED" and a,
    )
    assert re.search(why, app["message"]), app["message"]
    assert ids(s) == ["good"]


def test_more_models_than_routes_can_tell(server):
    """1000 long names each: what no frame holds is refused, and nobody else notices."""
    apps = [named(f"app{i}", {"lie": "most"}) for i in range(size(30, 60))]
    for a in apps:
        a["deployments"][0]["autoscaling_config"] = {"min_replicas": 0, "max_replicas": 1}
    s = server([named("first")])
    (control,) = s.pids("control")
    text = {**json.loads(s.file.read_text()), "applications": [named("first"), *apps]}
    assert s.admin("PUT", "/api/serve/applications/", text)[0] == 200

    def settled():
        found = s.status()["applications"]
        done = [a["status"] in ("RUNNING", "DEPLOY_FAILED") for a in found.values()]
        return len(done) == len(apps) + 1 and all(done) and found

    found = wait_for("each runs, or was refused", 60, settled, 0.1)
    refused = {n: a["message"] for n, a in found.items() if a["status"] == "DEPLOY_FAILED"}
    assert 0 < len(refused) < len(apps), refused
    for message in refused.values():
        assert re.fullmatch(
            r"its 1000 models take 1\d\d\d\d\d bytes in the routes, and those of the other "
            r"applications \d+: at most 2097152 together; give them fewer or shorter names",
            message,
        ), message
    wait_for("the others are listed", 5, lambda: set(ids(s)) & set(found) == set(found) - set(refused))
    listed = ids(s)
    assert len(listed) == 1 + 1000 * (len(apps) - len(refused))
    assert s.get("/first/").status == 200 and s.pids("control") == [control]
    # Room is given back.
    assert s.admin("PUT", "/api/serve/applications/", {**text, "applications": [named("first")]})[0] == 200
    one = [n for n in refused][0]
    again = [named("first"), *(a for a in apps if a["name"] == one)]
    assert s.admin("PUT", "/api/serve/applications/", {**text, "applications": again})[0] == 200
    wait_for("it has room now", 20, lambda: one in ids(s))


def waiting(server):
    found = {}
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith("named:waiting{"):
            labels, value = line.rsplit(" ", 1)
            found["replica=" in labels] = (dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
    return found


def test_the_queue_counts_in_the_plugins_gauge(server):
    s = server([named("a", {"models": "first,second"}, max_ongoing_requests=1)])
    threads = [threading.Thread(target=s.get, args=("/a?ms=1500",)) for _ in range(3)]
    for t in threads:
        t.start()
    wait_for("two wait in the core", 5, lambda: waiting(s)[False][1] == 2)
    found = waiting(s)
    assert found[False][0] == {"application": "a", "deployment": "a", "model_name": "first"}
    assert found[True][0]["model_name"] == "first" and found[True][1] == 0
    for t in threads:
        t.join()
    assert waiting(s)[False][1] == 0
