# SPDX-License-Identifier: Apache-2.0
"""Streams N completions at once and says when each token came, at little cost: while it waits it only notes what
came when, and looks into it afterwards.
"""

import json
import selectors
import socket
import time


class Stream:
    def __init__(self, port, body):
        payload = json.dumps(body).encode()
        head = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        self.request = f"{head}content-length: {len(payload)}\r\nconnection: close\r\n\r\n".encode() + payload
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.pieces = []  # (time, bytes)

    def events(self):
        """(time, JSON) of each event. A chunk's border may split one: its time is that of its last byte."""
        raw, times = b"", []
        for at, data in self.pieces:
            raw += data
            times.append((len(raw), at))
        head, _, _ = raw.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(raw.decode(errors="replace"))
        found, at = [], 0
        for line in raw.split(b"\n"):
            at += len(line) + 1
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"])
                found.append((next(t for end, t in times if end >= at - 1), event))
        return found


class Answer:
    """When tokens came: the first, the last, and how many there were."""

    def __init__(self, stream):
        events = stream.events()
        self.tokens = next(e["usage"]["completion_tokens"] for _, e in events if e.get("usage"))
        texts = [t for t, e in events if e["choices"]]
        self.first, self.last = texts[0], texts[-1]


def complete(port, prompts, max_tokens, model, timeout_s=600):
    """All prompts (lists of ids) at once. Returns (time of the sending, [Answer])."""
    body = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    streams = [Stream(port, {**body, "prompt": p}) for p in prompts]
    selector = selectors.DefaultSelector()
    begin = time.monotonic()
    for s in streams:
        s.socket.sendall(s.request)
        selector.register(s.socket, selectors.EVENT_READ, s)
    while selector.get_map():
        ready = selector.select(timeout_s)
        if not ready:
            raise TimeoutError(f"no token within {timeout_s} s")
        now = time.monotonic()
        for key, _ in ready:
            data = key.fileobj.recv(1 << 16)
            if data:
                key.data.pieces.append((now, data))
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return begin, [Answer(s) for s in streams]
