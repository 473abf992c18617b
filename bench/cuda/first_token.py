# SPDX-License-Identifier: Apache-2.0
"""From exec to the first token of a model on a GPU, with the parts as the log has them.

Usage: first_token.py BUILD MODEL LOG [ROUNDS]
The server is started with the weights in the page cache; from then on a prompt of 16 ids is sent until it is
answered. Prints the median of the rounds and the fastest; LOG gets the servers' own words.
"""

import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PORT, GIVE_UP_S = 18891, 60
ROUNDS = 3


def first_token(body):
    """When the first event with choices came; None: nobody answers yet."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=30) as s:
            head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
            s.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            got = b""
            while data := s.recv(1 << 16):
                got += data
                if b'"choices":[{' in got and got.startswith(b"HTTP/1.1 200"):
                    return time.monotonic()
    except OSError:
        pass
    return None


def one(build, model, log):
    body = json.dumps({"prompt": list(range(5, 21)), "max_tokens": 2, "ignore_eos": True, "stream": True}).encode()
    with tempfile.TemporaryDirectory() as folder, open(log, "ab") as out:
        command = [f"{build}/salver", "serve", "--plugin", "llm", "--model", model, "--device", "cuda", "--port", PORT,
                   "--state", f"{folder}/state", "--plugins", f"{build}/plugins"]  # fmt: skip
        begin = time.monotonic()
        server = subprocess.Popen([str(c) for c in command], stdout=out, stderr=out)
        try:
            while time.monotonic() - begin < GIVE_UP_S and server.poll() is None:
                at = first_token(body)
                if at:
                    again = time.monotonic()
                    return at - begin, first_token(body) - again
                time.sleep(0.002)
        finally:
            server.terminate()
            server.wait(30)
    return None


def main():
    build, model, log = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else ROUNDS
    took = [one(build, model, log) for _ in range(rounds)]
    text = Path(log).read_text(errors="replace")
    name = Path(model).name
    if None in took:
        print(f"{name}: FAILED\n{text[-1500:]}")
        return 1
    whole, again = sorted(t[0] for t in took), statistics.median(t[1] for t in took)
    print(f"{name}: exec to first token {statistics.median(whole):.3f} s, least {whole[0]:.3f}; the next {again * 1e3:.1f} ms")
    for line in re.findall(r".*until create .*", text)[-1:]:
        print("  " + line[line.find("weights"):])
    return 0


if __name__ == "__main__":
    sys.exit(main())
