# SPDX-License-Identifier: Apache-2.0
"""The load generator bench/llm_serve against a server whose delays are known."""

import json
import random
import socket
import socketserver
import subprocess
import threading
import time

import pytest
from harness import SANITIZED, TOOLS

FIRST_S, GAP_S = 0.15, 0.02
LATE_S = 0.1 if SANITIZED else 0.04  # by how much a busy machine may be late


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(body):
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Fake(socketserver.ThreadingTCPServer):
    """Answers as its `reply` says, a function of the handler and the request's body."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.requests, self.connections, self.open, self.most = reply, [], 0, 0, 0
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        with self.server.lock:
            self.server.connections += 1
        while True:
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if not line:
                return
            body = json.loads(self.rfile.read(length))
            with self.server.lock:
                self.server.requests.append((time.monotonic(), body))
                self.server.open += 1
                self.server.most = max(self.server.most, self.server.open)
            try:
                again = self.server.reply(self, body)
            except OSError:  # the client left
                again = False
            with self.server.lock:
                self.server.open -= 1
            if not again:
                return

    def send(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def head(self, status="200 OK"):
        self.send(
            f"HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )


def tokens(handler, n, first_s=FIRST_S, gap_s=GAP_S):
    handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handler.head()
    at = time.monotonic() + first_s
    for i in range(n):
        time.sleep(max(0, at - time.monotonic()))
        at += gap_s
        handler.send(chunk(event({"choices": [{"index": 0, "text": "" if i % 3 else "x"}]})))


def ending(n):
    usage = {"prompt_tokens": 1, "completion_tokens": n}
    return event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def good(handler, body):
    tokens(handler, body["max_tokens"])
    handler.send(chunk(ending(body["max_tokens"])) + b"0\r\n\r\n")
    return True


def run(server, folder, lengths, *more):
    """The client's exit code, its figures, and what it said."""
    (folder / "lengths.json").write_text(json.dumps(lengths))
    out = folder / "figures.json"
    command = [TOOLS / "llm_serve", "-p", server.server_address[1], "-w", folder / "lengths.json", "-o", out]
    done = subprocess.run(
        [str(c) for c in [*command, *more]], capture_output=True, text=True, timeout=60, check=False
    )
    return done, json.loads(out.read_text().splitlines()[-1]) if out.exists() else None


def near(ms, seconds):
    return seconds * 1e3 - 1 <= ms <= (seconds + LATE_S) * 1e3


def test_figures_are_those_of_the_delays(tmp_path):
    with Fake(good) as server:
        done, f = run(server, tmp_path, [[5, 11], [300, 21], [7, 1]], "-v", "10-500")
    assert done.returncode == 0, done
    assert (f["answered"], f["failed"], f["cancelled"]) == (3, 0, 0)
    assert f["output_tokens"] == 33 == f["events"] and f["total_tokens"] == 33 + 312
    whole = FIRST_S + 20 * GAP_S
    assert whole <= f["seconds"] <= whole + 2 * LATE_S
    assert near(f["ttft_ms"]["p50"], FIRST_S) and near(f["ttft_ms"]["p99"], FIRST_S)
    assert abs(f["tpot_ms"]["mean"] - GAP_S * 1e3) < 4 and abs(f["itl_ms"]["mean"] - GAP_S * 1e3) < 4
    assert near(f["e2e_ms"]["p50"], FIRST_S + 10 * GAP_S)
    assert abs(f["output_throughput"] - 33 / f["seconds"]) < 0.1
    assert abs(f["request_throughput"] - 3 / f["seconds"]) < 0.1


def test_what_it_asks_for(tmp_path):
    with Fake(good) as server:
        run(server, tmp_path, [[5, 2], [3, 1]], "-v", "10-20", "-m", "a model")
        first = sorted((b for _, b in server.requests[1:]), key=lambda b: -b["max_tokens"])
        run(server, tmp_path, [[5, 2], [3, 1]], "-v", "10-20", "-m", "a model")
        again = sorted((b for _, b in server.requests[4:]), key=lambda b: -b["max_tokens"])
    assert first == again  # the seed's promise
    assert [len(b["prompt"]) for b in first] == [5, 3]
    assert all(10 <= i < 20 for b in first for i in b["prompt"])
    assert first[0]["prompt"][:3] != first[1]["prompt"]
    for body in first:
        del body["prompt"], body["max_tokens"]
        assert body == {
            "model": "a model",
            "temperature": 0,
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def test_poisson_arrivals_and_how_many_at_once(tmp_path):
    def quick(handler, body):
        tokens(handler, body["max_tokens"], 0.05, 0)
        handler.send(chunk(ending(body["max_tokens"])) + b"0\r\n\r\n")
        return True

    with Fake(quick) as server:
        done, _ = run(server, tmp_path, [[3, 1]], "-n", "40", "-r", "40")
        at = [t for t, _ in server.requests[1:]]
        assert done.returncode == 0 and len(at) == 40
        # The last of n comes n / rate after the begin; gaps differ as those of a Poisson process do.
        assert 0.7 <= at[-1] - at[0] <= 1 + LATE_S
        gaps = [b - a for a, b in zip(at, at[1:])]
        assert min(gaps) < 0.01 and max(gaps) > 0.05
        server.requests.clear()
        server.most = server.connections = 0
        done, f = run(server, tmp_path, [[3, 1]], "-n", "12", "-c", "3")
        assert done.returncode == 0 and server.most == 3
        assert f["seconds"] >= 4 * 0.05
        assert server.connections == 3  # kept alive


def test_borders_of_chunks_fall_anywhere(tmp_path):
    def torn(handler, body):
        n = body["max_tokens"]
        text = b": a comment\r\n\r\nevent: token\n"
        for _ in range(n):
            text += event({"choices": [{"text": "data: [DONE]\n\n"}], "usage": None})
        text += ending(n)
        raw = b""
        while text:
            size = random.randint(1, 40)
            raw += chunk(text[:size])
            text = text[size:]
        raw += b"0\r\n\r\n"
        handler.head()
        while raw:
            size = random.randint(1, 60)
            handler.send(raw[:size])
            raw = raw[size:]
            if random.random() < 0.1:
                time.sleep(0.001)
        return True

    with Fake(torn) as server:
        done, f = run(server, tmp_path, [[2, 30], [3, 17]])
    assert done.returncode == 0, done
    assert f["answered"] == 2 and f["events"] == f["output_tokens"] == 47


def test_several_tokens_in_an_event(tmp_path):
    def double(handler, body):
        tokens(handler, body["max_tokens"] // 2)
        handler.send(chunk(ending(body["max_tokens"])) + b"0\r\n\r\n")
        return True

    with Fake(double) as server:
        done, f = run(server, tmp_path, [[2, 20]])
    assert done.returncode == 0
    assert f["output_tokens"] == 20 and f["events"] == 10
    assert abs(f["tpot_ms"]["p50"] - 9 * GAP_S * 1e3 / 19) < 3
    assert abs(f["itl_ms"]["p50"] - GAP_S * 1e3) < 4


def plain(status):
    def reply(handler, _body):
        text = b'{"error": {"message": "no room"}}'
        handler.send(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
        return True

    return reply


def broken(tail, close=True):
    def reply(handler, body):
        tokens(handler, body["max_tokens"], 0, 0)
        handler.send(tail)
        return not close

    return reply


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "reply, word",
    [
        (plain("503 Service Unavailable"), "no room"),
        (plain("200 OK"), "no token"),
        (broken(b""), "end of file"),
        (broken(chunk(ending(5))), "end of file"),
        (broken(chunk(DONE) + b"0\r\n\r\n"), "no usage"),
        (broken(chunk(ending(5)[: -len(DONE)]) + b"0\r\n\r\n"), "no [DONE]"),
        (broken(chunk(event({"error": {"message": "replica lost"}})) + b"0\r\n\r\n"), "replica lost"),
        (broken(chunk(b"data: {\n\n")), "no JSON"),
        (broken(chunk(ending(5) + event({"choices": [{}]})) + b"0\r\n\r\n"), "after [DONE]"),
        (broken(b"zz\r\n"), "broken HTTP"),
        (broken(chunk(ending(5)) + b"0\r\n\r\nmore"), "after the end"),
    ],
)
def test_what_counts_as_failed(tmp_path, reply, word):
    def first_is_good(handler, body):
        warming = len(handler.server.requests) == 1
        return good(handler, body) if warming else reply(handler, body)

    with Fake(first_is_good) as server:
        done, f = run(server, tmp_path, [[3, 5]])
    assert done.returncode == 1 and word in done.stderr, done
    assert (f["answered"], f["failed"]) == (0, 1)


def test_cancels_and_slices(tmp_path):
    seen = []

    def watched(handler, body):
        try:
            good(handler, body)
            handler.send(b"")
        finally:
            seen.append(body["max_tokens"])
        return True

    with Fake(watched) as server:
        done, f = run(server, tmp_path, [[3, 40]], "-n", "12", "-x", "0.5", "-S", "0.5")
    assert done.returncode == 0, done
    assert f["answered"] + f["cancelled"] == 12 and 2 <= f["cancelled"] <= 10
    assert f["output_tokens"] == 40 * f["answered"]
    assert "0-0" in done.stdout and "ITL mean" in done.stdout


def test_no_server(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        (tmp_path / "lengths.json").write_text("[[1,1]]")
        done = subprocess.run(
            [TOOLS / "llm_serve", "-p", str(s.getsockname()[1]), "-w", tmp_path / "lengths.json"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 1 and "connect" in done.stderr
