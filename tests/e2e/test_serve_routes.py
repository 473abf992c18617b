# SPDX-License-Identifier: Apache-2.0
"""Who answers which path: the longest prefix, the core's own paths, and an error for the rest."""

import json
import re

import pytest
from clients import Raw, error_of
from harness import application, request, wait_for


def app(name, prefix, **deployment):
    return {**application(name, "fake_run", **deployment), "route_prefix": prefix}


@pytest.fixture(scope="module")
def s(shared):
    return shared(
        "routes",
        [app("a", "/a"), app("ab", "/a/b"), app("hidden", None), app("health", "/version")],
        ready={"hidden": None},
    )


@pytest.mark.parametrize(
    "path, replica, rest",
    [
        ("/a", "a/a/0", "/"),
        ("/a/", "a/a/0", "/"),
        ("/a/x/y", "a/a/0", "/x/y"),
        ("/a/b", "ab/ab/0", "/"),
        ("/a/b/c", "ab/ab/0", "/c"),
        ("/a/bc", "a/a/0", "/bc"),
        ("/a/%62/c", "ab/ab/0", "/c"),
        ("/version", "health/health/0", "/"),
    ],
)
def test_longest_prefix_on_path_segments(s, path, replica, rest):
    answer = json.loads(s.get(path).body)
    assert (answer["replica"], answer["path"]) == (replica, rest)


def test_no_way_around_a_prefix(s):
    assert s.get("/a/../b").status == 400


def test_the_query_arrives_as_it_was(s):
    assert json.loads(s.get("/a/x?q=%20&z").body)["query"] == "q=%20&z"


@pytest.mark.parametrize("path", ["/", "/ab", "/hidden", "/-/nothing", "/A"])
def test_nobody(s, path):
    answer = s.get(path)
    assert answer.status == 404
    error = error_of(answer)
    assert error["type"] == "NotFoundError"
    assert error["message"] == f"Path '{path}' not found. Ping /-/routes for available routes."


def test_core_paths(s):
    assert s.get("/-/healthz").body == b"success"
    assert json.loads(s.get("/-/routes").body) == {"/a": "a", "/a/b": "ab", "/version": "health"}
    assert s.get("/health").status == 200
    assert json.loads(s.get("/v1/models").body) == {"object": "list", "data": []}
    assert s.get("/health", method="POST").status == 405
    head = s.get("/-/healthz", method="GET")
    with Raw(s.port) as c:
        c.ask("/-/healthz", method="HEAD")
        status, headers = c.head()
        assert status == 200
        assert headers["content-length"] == head.headers["content-length"]
        assert c.get("/health").status == 200  # nothing of a body came in between


def test_version_is_the_cores_where_no_application_has_it(server):
    s = server([app("a", "/")])
    assert re.fullmatch(r"\d+\.\d+\.\d+", json.loads(s.get("/version").body)["version"])
    assert json.loads(s.get("/versions").body)["replica"] == "a/a/0"


def test_request_id(s):
    given = s.get("/a", headers=["x-request-id: mine-7"])
    assert given.headers["x-request-id"] == "mine-7"
    made = [s.get("/a").headers["x-request-id"] for _ in range(3)]
    assert all(re.fullmatch(r"[0-9a-f]{16}", m) for m in made)
    assert len(set(made)) == 3
    assert json.loads(s.get("/a").body)["id"] != made[0]
    # An id that could break a log line is not taken over.
    odd = s.get("/a", headers=["x-request-id: " + "a" * 129])
    assert re.fullmatch(r"[0-9a-f]{16}", odd.headers["x-request-id"])
    assert "x-request-id" in s.get("/nobody").headers


def test_root_path(server):
    s = server(
        [{**app("a", "/a"), "name": "a"}],
        http={"root_path": "/serve"},
        ready={"a": None},
    )
    wait_for("ready", 20, lambda: request(s.port, "/serve/a/x").status == 200)
    assert json.loads(s.get("/serve/a/x").body)["path"] == "/x"
    assert s.get("/a/x").status == 404
    assert json.loads(s.get("/serve/-/routes").body) == {"/serve/a": "a"}
    assert s.get("/-/healthz").status == 200  # probes need not know it


def test_metrics_name_route_and_outcome(s):
    before = s.metrics().sum("salver_requests_total", application="ab", outcome="ok", code="200")
    for _ in range(5):
        s.get("/a/b/metrics")
    m = s.metrics()
    after = m.sum("salver_requests_total", application="ab", outcome="ok", code="200")
    assert after - before == 5
    assert m.sum("salver_requests_total", route="/a/b") == after
    for name in ("queue_wait_seconds", "time_to_first_byte_seconds", "request_duration_seconds"):
        assert m.sum(f"salver_{name}_count", application="ab") >= after
    assert m.sum("salver_ongoing_requests") == 0
    assert m.sum("salver_queued_requests") == 0


def test_access_log(server):
    s = server([app("a", "/a")], access_log=True)
    s.get("/a/seen?q=1", headers=["x-request-id: log-me"])
    s.get("/nobody")
    lines = [line for line in s.log().splitlines() if "log-me" in line]
    assert len(lines) == 1
    assert "/a/seen" in lines[0] and "200" in lines[0] and "a/a/0" in lines[0]
    assert any("/nobody" in line and "404" in line for line in s.log().splitlines())


def test_access_log_of_what_is_no_request(server):
    s = server([app("a", "/a")], access_log=True)
    with Raw(s.port) as c:
        c.send("GET /a/ HTTP/1.1\r\n\r\n")
        answer = c.answer()
    assert answer.status == 400
    lines = [x for x in s.log().splitlines() if answer.headers["x-request-id"] in x]
    assert len(lines) == 1 and "status=400" in lines[0]
