# SPDX-License-Identifier: Apache-2.0
"""A websocket client (RFC 6455) of the standard library alone: enough to ask a server something."""

import base64
import os
import socket
import struct


class Websocket:
    """Opened by the constructor; send() masks, receive() gives (opcode, bytes)."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, host, port, path, timeout_s=10):
        self.sock = socket.create_connection((host, port), timeout_s)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.file = self.sock.makefile("rb")
        status = self.file.readline().decode().split(" ", 2)
        while self.file.readline() not in (b"\r\n", b""):
            pass
        if status[1:2] != ["101"]:
            raise OSError(f"no websocket at {path}: {' '.join(status).strip()}")

    def send(self, data, opcode=TEXT, fin=True):
        mask = os.urandom(4)
        n = len(data)
        size = bytes([0x80 | n]) if n < 126 else struct.pack(">BH", 0xFE, n)
        size = size if n < 65536 else struct.pack(">BQ", 0xFF, n)
        body = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.sock.sendall(bytes([(0x80 if fin else 0) | opcode]) + size + mask + body)

    def receive(self):
        first, n = self.file.read(2)
        if n == 126:
            (n,) = struct.unpack(">H", self.file.read(2))
        elif n == 127:
            (n,) = struct.unpack(">Q", self.file.read(8))
        return first & 15, self.file.read(n)

    def close(self, code=1000):
        self.send(struct.pack(">H", code), self.CLOSE)
        opcode, data = self.receive()
        self.sock.close()
        return opcode, data
