# SPDX-License-Identifier: Apache-2.0
"""Serves configs/examples.yaml and asks echo, counter and wsecho once each.

With --stay the server goes on in the foreground until it is interrupted, else it is stopped.
"""

import argparse
import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from websocket import Websocket

START_S = 30  # until all applications run


def get(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, {"Content-Type": "text/plain"} if body else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def wait_until_running(server, port):
    until = time.monotonic() + START_S
    waiting = {"/echo", "/counter?count=1", "/wsecho"}
    while waiting:
        if server.poll() is not None:
            sys.exit(f"the server ended with exit code {server.returncode}; its words are above")
        if time.monotonic() > until:
            sys.exit(f"not answering after {START_S} s: {', '.join(sorted(waiting))}")
        try:
            waiting = {path for path in waiting if get(port, "POST", path, "?")[0] == 503}
        except OSError:
            pass
        time.sleep(0.02)


def ask(port):
    url = f"http://127.0.0.1:{port}"
    status, text = get(port, "POST", "/echo", "hello")
    print(f"\n$ curl -d hello {url}/echo\n{text}")
    assert (status, text) == (200, "hello"), (status, text)

    status, text = get(port, "GET", "/counter?count=3")
    print(f"\n$ curl -N '{url}/counter?count=3'\n{text.rstrip()}")
    assert (status, text) == (200, "data: 1\n\ndata: 2\n\ndata: 3\n\n"), (status, text)

    socket = Websocket("127.0.0.1", port, "/wsecho")
    socket.send(b"hello")
    _, data = socket.receive()
    socket.close()
    print(f"\nws://127.0.0.1:{port}/wsecho: sent 'hello', got {json.dumps(data.decode())}")
    assert data == b"hello", data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build", type=Path)
    parser.add_argument("--port", default=8000, type=int)
    parser.add_argument("--state", help="state folder; the server's default without")
    parser.add_argument("--stay", action="store_true")
    args = parser.parse_args()
    repo = Path(__file__).resolve().parents[2]
    command = [args.build / "salver", "serve", repo / "configs/examples.yaml", "--port", args.port]
    command += ["--state", args.state] if args.state else []
    print("$", *command, flush=True)
    server = subprocess.Popen([str(word) for word in command])
    # What the terminal sends reaches the server too: it stops by itself, and we wait for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        wait_until_running(server, args.port)
        ask(args.port)
    except BaseException:
        server.terminate()
        server.wait()
        raise
    if args.stay:
        url = f"http://127.0.0.1:{args.port}"
        print(f"\nServing on {url} until Ctrl-C. See also {url}/metrics and `{command[0]} status`.")
    else:
        server.terminate()
    sys.stdout.flush()
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
