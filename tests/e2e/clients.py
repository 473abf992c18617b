# SPDX-License-Identifier: Apache-2.0
"""Clients that see every byte: raw connections, event streams, websockets."""

import base64
import hashlib
import json
import os
import socket
import struct

from harness import PATIENCE, read_answer, read_chunks, read_head, send_request


class Raw:
    """One TCP connection. What is read is buffered, so answers can follow each other."""

    def __init__(self, port, timeout=10, rcvbuf=None):
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(timeout * PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.port = port
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def reset(self):
        """Leaves with an RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def ask(self, path, method="GET", body=None, headers=()):
        send_request(self.socket, path, self.port, method, body, headers)

    def answer(self):
        return read_answer(self.file)

    def get(self, path, method="GET", body=None, headers=()):
        self.ask(path, method, body, headers)
        return self.answer()

    def head(self):
        """Status and headers alone; then chunks() or events()."""
        status, self.answer_headers = read_head(self.file)
        return status, self.answer_headers

    def chunks(self):
        """The pieces of the body; a short one is one piece with a length."""
        if "content-length" in self.answer_headers:
            return iter([self.file.read(int(self.answer_headers["content-length"]))])
        return read_chunks(self.file)

    def events(self):
        """The data of each event of a stream; ends with the answer."""
        text = b""
        for chunk in self.chunks():
            text += chunk
            while b"\n\n" in text:
                event, text = text.split(b"\n\n", 1)
                lines = [line[5:].lstrip(b" ") for line in event.split(b"\n") if line[:5] == b"data:"]
                yield b"\n".join(lines).decode()

    def ended(self):
        """True if the server closes the connection now (within the timeout) without another byte."""
        try:
            return self.file.read(1) == b""
        except (ConnectionError, socket.timeout):
            return False


def error_of(answer):
    """The `error` object of a JSON error answer, whose code is its status."""
    assert answer.headers["content-type"] == "application/json", answer
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["code"] == answer.status, answer
    return error


class WebSocket(Raw):
    """RFC 6455 from the client's side; frames are sent masked, one at a time."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, port, path, timeout=10, headers=()):
        super().__init__(port, timeout)
        key = base64.b64encode(os.urandom(16)).decode()
        self.ask(
            path,
            headers=[
                "upgrade: websocket",
                "connection: Upgrade",
                "sec-websocket-version: 13",
                f"sec-websocket-key: {key}",
                *headers,
            ],
        )
        self.status, self.headers = self.head()
        if self.status == 101:
            magic = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            want = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
            assert self.headers["sec-websocket-accept"] == want

    def send_frame(self, opcode, data=b"", fin=True):
        mask = os.urandom(4)
        head = bytes([opcode | (0x80 if fin else 0)])
        if len(data) < 126:
            head += bytes([0x80 | len(data)])
        elif len(data) < 65536:
            head += bytes([0x80 | 126]) + struct.pack(">H", len(data))
        else:
            head += bytes([0x80 | 127]) + struct.pack(">Q", len(data))
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.send(head + mask + masked)

    def send_text(self, text):
        self.send_frame(self.TEXT, text.encode())

    def frame(self):
        """(opcode, fin, data), or None at the end of the connection."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        n = head[1] & 127
        if n == 126:
            n = struct.unpack(">H", self.file.read(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self.file.read(8))[0]
        return head[0] & 15, bool(head[0] & 128), self.file.read(n)

    def message(self):
        """(opcode, data) of the next whole message or control frame."""
        opcode, fin, data = self.frame()
        while not fin:
            _, fin, more = self.frame()
            data += more
        return opcode, data

    def close_code(self):
        """Reads to the server's close frame; its code, None if it has none."""
        while (got := self.frame()) is not None:
            opcode, _, data = got
            if opcode == self.CLOSE:
                return struct.unpack(">H", data[:2])[0] if len(data) >= 2 else None
        return None

    def send_close(self, code=1000):
        self.send_frame(self.CLOSE, struct.pack(">H", code))
