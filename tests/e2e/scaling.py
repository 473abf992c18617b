# SPDX-License-Identifier: Apache-2.0
"""What the tests and benchmarks of scaling share: servers whose deployments begin at zero, bursts
of requests, and what a deployment was like over time.

ARCADIA is the block of a deployment as Arcadia writes it, delays included: Ray's defaults of 30 s up
and 600 s down. QUICK is what tests put in the place of the delays.
"""

import asyncio
import collections
import csv
import json
import re
import threading
import time

from harness import Server, application, wait_for

ARCADIA = {
    "max_ongoing_requests": 5,
    "autoscaling_config": {"target_ongoing_requests": 2, "min_replicas": 0, "max_replicas": 5},
}
QUICK = {"look_back_period_s": 0.5, "upscale_delay_s": 0, "downscale_delay_s": 0.5}

Reply = collections.namedtuple("Reply", "status headers body sent_s done_s error")


def block(max_ongoing_requests=5, **autoscaling):
    """Keys of a deployment: Arcadia's block with short delays and whatever is given."""
    config = {**ARCADIA["autoscaling_config"], **QUICK, **autoscaling}
    return {"max_ongoing_requests": max_ongoing_requests, "autoscaling_config": config}


def asleep(folder, applications, **options):
    """A Server that is entered without a request to anyone, once everything is deployed."""
    ready = {app["name"]: None for app in applications}
    server = Server(folder, applications, ready=ready, **options)
    server.__enter__()
    try:
        wait_for("the ingress answers", 20, lambda: answers(server, "/-/healthz"))
        wait_for(
            "everything is deployed",
            20,
            lambda: all(app_of(server, a["name"])["status"] == "RUNNING" for a in applications),
        )
    except BaseException:
        server.__exit__(None, None, None)
        print(server.log()[-8000:])
        raise
    return server


def answers(server, path):
    try:
        return server.get(path, timeout=5).status == 200
    except (OSError, ValueError):
        return False


def app_of(server, name):
    return wait_for(f"control says what {name} is", 5, lambda: server.status()["applications"].get(name))


def deployment_of(server, name):
    (deployment,) = app_of(server, name)["deployments"].values()
    return deployment


def running(server, name):
    return [r for r in deployment_of(server, name)["replicas"] if r["state"] == "RUNNING"]


def at_zero(server, name):
    """No replica is left, not even one that leaves."""
    return not deployment_of(server, name)["replicas"] and not server.pids("worker")


def starts(server, name):
    """How many processes of the application became ready, ever."""
    return len(re.findall(rf" worker {name}/\S+ ready: ", server.log()))


async def talk(port, path, body, reply):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        text = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: x\r\n"
            "connection: close\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n".encode() + text
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if headers.get("transfer-encoding") == "chunked":
            content = b""
            while (n := int(await reader.readline(), 16)) > 0:
                content += (await reader.readexactly(n + 2))[:-2]
        else:
            content = await reader.readexactly(int(headers["content-length"]))
        return reply._replace(status=int(head[0].split()[1]), headers=headers, body=content)
    finally:
        writer.close()


async def ask(port, path, body=None, timeout=120):
    """One request on a connection of its own. Status 0: it was cut, `error` says how."""
    reply = Reply(0, {}, b"", time.monotonic(), None, "")
    try:
        reply = await asyncio.wait_for(talk(port, path, body, reply), timeout)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as e:
        reply = reply._replace(error=f"{type(e).__name__}: {e}")
    return reply._replace(done_s=time.monotonic())


class Burst(threading.Thread):
    """Requests that are all sent at once; replies() waits for them, `open` of them are not answered."""

    def __init__(self, port, path, bodies, timeout=120):
        super().__init__(daemon=True)
        self.args = port, path, list(bodies), timeout
        self.found, self.failed, self.open = None, None, len(self.args[2])
        self.start()

    def run(self):
        port, path, bodies, timeout = self.args

        async def one(body):
            reply = await ask(port, path, body, timeout)
            self.open -= 1
            return reply

        async def all_of_them():
            return await asyncio.gather(*map(one, bodies))

        try:
            self.found = asyncio.run(all_of_them())
        except BaseException as e:  # for the thread that waits
            self.failed = e

    def replies(self, timeout=150):
        self.join(timeout)
        assert not self.is_alive(), f"a burst is not over after {timeout} s"
        if self.failed:
            raise self.failed
        return self.found


def gets(server, path, n, timeout=120):
    return Burst(server.port, path, [None] * n, timeout)


def statuses(replies):
    return dict(collections.Counter(r.status for r in replies))


class Watch(threading.Thread):
    """Looks at one application every so often: what waits and runs by /metrics, replicas by status.
    `offered` is whatever the caller says is outstanding."""

    FIELDS = "seconds offered queued ongoing target running starting leaving".split()

    def __init__(self, server, name, every_s=0.05, offered=lambda: 0):
        super().__init__(daemon=True)
        self.server, self.app, self.every_s, self.offered = server, name, every_s, offered
        self.begin, self.rows, self.ended = time.monotonic(), [], threading.Event()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def look(self):
        metrics, deployment = self.server.metrics(), deployment_of(self.server, self.app)
        states = collections.Counter(r["state"] for r in deployment["replicas"])
        return {
            "seconds": round(time.monotonic() - self.begin, 3),
            "offered": self.offered(),
            "queued": int(metrics.sum("salver_queued_requests", application=self.app)),
            "ongoing": int(metrics.sum("salver_ongoing_requests", application=self.app)),
            "target": deployment["target_num_replicas"],
            "running": states["RUNNING"],
            "starting": states["STARTING"] + states["BACKOFF"],
            "leaving": states["STOPPING"],
        }

    def run(self):
        while not self.ended.wait(self.every_s):
            try:
                self.rows.append(self.look())
            except Exception:  # a process of the server is away: that is no sample
                continue

    def most(self, field):
        return max((row[field] for row in self.rows), default=0)

    def write(self, path):
        with open(path, "w", encoding="utf-8", newline="") as f:
            out = csv.DictWriter(f, self.FIELDS, lineterminator="\n")
            out.writeheader()
            out.writerows(self.rows)


def fake(name="a", plugin="fake_step", config=None, **deployment):
    return application(name, plugin, config, **{**block(), **deployment})
