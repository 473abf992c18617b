# SPDX-License-Identifier: Apache-2.0
"""Deploys over the admin API, what becomes of them, and clients that write down what each of their
requests came to."""

import collections
import json
import threading
import time

from clients import Raw
from harness import application, size, wait_for

APPS = "/api/serve/applications/"
ASK_PAUSE_S = size(0.02, 0.002)  # between two requests of a client
STEP_S = 60  # a deploy is done, or was given up, so soon: also after one early end (30 s, roll.h)


def roller(tag="one", do="", name="app", config=None, **deployment):
    """An application whose answers and events say `tag`, and whose bodies stream in."""
    all_config = {"tag": tag, "stream_in": True, **({"do": do} if do else {}), **(config or {})}
    options = {"graceful_shutdown_timeout_s": 30, "load_timeout_s": 30}
    return application(name, "fake_step", all_config, **{**options, **deployment})


def deploy(server, *applications, check=200):
    text = {**json.loads(server.file.read_text()), "applications": list(applications)}
    status, answer = server.admin("PUT", APPS, text)
    assert status == check, answer
    return answer


def app_of(server, name="app"):
    status, answer = server.admin("GET", "/status")
    assert status == 200, answer
    return answer["applications"][name]


def deployment_of(server, name="app"):
    (deployment,) = app_of(server, name)["deployments"].values()
    return deployment


def replicas(server, name="app"):
    return deployment_of(server, name)["replicas"]


def pids(server, name="app"):
    return {r["replica_id"]: r["pid"] for r in replicas(server, name)}


def tag_of(server, path="/app/"):
    answer = server.get(path)
    assert answer.status == 200, answer
    return json.loads(answer.body)["tag"]


def is_settled(app):
    """All replicas that should be there run, of one version, and nobody leaves."""
    (deployment,) = app["deployments"].values()
    seen = deployment["replicas"]
    return (
        app["status"] in ("RUNNING", "DEPLOY_FAILED")
        and len(seen) == deployment["target_num_replicas"]
        and all(r["state"] == "RUNNING" for r in seen)
        and len({r["version"] for r in seen}) <= 1
        and all(r["version"] == deployment["version"] for r in seen)
    )


def settled(server, status="RUNNING", name="app", seconds=STEP_S, before=None):
    """Waits until a deploy is through; `before`: the version that must be gone."""

    def there():
        app = app_of(server, name)
        (deployment,) = app["deployments"].values()
        other = before is None or deployment["version"] != before
        return app if app["status"] == status and is_settled(app) and other else None

    return wait_for(f"{name} is {status} and nothing moves", seconds, there, 0.05)


def rolled(server, tag, name="app", seconds=STEP_S):
    """Waits until this version alone answers."""
    app = settled(server, name=name, seconds=seconds)
    assert tag_of(server, app["route_prefix"] + "/") == tag
    return app


def gave_up(server, says="", name="app", seconds=STEP_S):
    app = settled(server, "DEPLOY_FAILED", name, seconds)
    assert says in app["message"], app["message"]
    return app


class Clients:
    """Threads that each keep one connection busy with one kind of requests, until stop(). Every
    request has one outcome in `seen`: (kind, tag) of one that was answered as it should be, or
    (kind, what went wrong)."""

    def __init__(self, server, path="/app/", plain=2, streams=2, uploads=2, event_ms=20, events=15, whole=()):
        self.server, self.path = server, path
        self.event_ms, self.events = event_ms, events
        self.whole = whole  # tags of versions that don't take bodies in pieces; None: not checked
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.seen, self.wrong, self.sent = collections.Counter(), [], 0
        kinds = [self.plain] * plain + [self.stream] * streams + [self.upload] * uploads
        self.threads = [threading.Thread(target=self.work, args=(k, i)) for i, k in enumerate(kinds)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.done.set()
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), "a client waits for ever"

    def work(self, kind, index):
        connection, turn = None, 0
        while not self.done.is_set():
            turn += 1
            with self.lock:
                self.sent += 1
            try:
                connection = connection or Raw(self.server.port, timeout=30)
                outcome, again = kind(connection, f"{index}-{turn}")
            except (OSError, ValueError, AssertionError) as e:
                outcome, again = None, False
                self.wrong.append(f"{kind.__name__} {index}-{turn} at {time.time():.3f}: {e!r}")
            with self.lock:
                self.seen[(kind.__name__, outcome or "wrong")] += 1
            if not again:
                if connection:
                    connection.close()
                connection = None
            time.sleep(ASK_PAUSE_S)
        if connection:
            connection.close()

    @staticmethod
    def goes_on(headers):
        return headers.get("connection") != "close"

    def plain(self, c, name):
        answer = c.get(self.path, headers=[f"x-request-id: {name}"])
        assert answer.status == 200 and answer.headers["x-request-id"] == name, answer
        return json.loads(answer.body)["tag"], self.goes_on(answer.headers)

    def stream(self, c, name):
        path = f"{self.path}?n={self.events}&interval_ms={self.event_ms}"
        c.ask(path, headers=[f"x-request-id: {name}"])
        status, headers = c.head()
        assert status == 200 and headers["x-request-id"] == name, (status, headers, c.file.read(300))
        found = [json.loads(event) for event in c.events()]
        assert [e.get("i") for e in found] == list(range(self.events)), f"{name}: {found[-1:]}"
        assert len({(e["tag"], e["pid"]) for e in found}) == 1, f"a stream crossed: {found}"
        return found[0]["tag"], self.goes_on(headers)

    def upload(self, c, name):
        body = name.encode() * (1 + len(name) * 3000)
        c.send(
            f"POST {self.path} HTTP/1.1\r\nhost: a\r\nx-request-id: {name}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        for at in range(0, len(body), 40000):
            c.send(body[at : at + 40000])
            time.sleep(0.005)
        answer = c.answer()
        assert answer.status == 200 and answer.headers["x-request-id"] == name, answer
        said = json.loads(answer.body)
        streams = said["tag"] not in self.whole if self.whole is not None else said["in_bytes"] > 0
        got = said["in_bytes"], said["body_len"]
        assert got == ((len(body), 0) if streams else (0, len(body))), f"{name}: {got} of {len(body)}"
        assert said["in_sum"] == (sum(body) if streams else 0), name
        return said["tag"], self.goes_on(answer.headers)

    def tags(self, kind=None):
        with self.lock:
            found = collections.Counter()
            for (k, tag), n in self.seen.items():
                if kind in (None, k):
                    found[tag] += n
            return found
