# SPDX-License-Identifier: Apache-2.0
"""Serves configs/chat-cpu.yaml, asks it one question and prints the answer as it comes.

The server then goes on in the foreground until it is interrupted; with --stop it is stopped, and the exit code says
whether the answer was right.
"""

import argparse
import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import fetch_model

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / "configs" / "chat-cpu.yaml"
MODEL = "smollm2"
QUESTION = "Tell me the capital of France."
ANSWER = "Paris"  # must be in it
START_S = 120  # until the model answers


def ask(port):
    """Yields the pieces of the answer. OSError: nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 64,
        "stream": True,
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status == 503:
        raise ConnectionError(answer.read().decode(errors="replace"))
    if answer.status != 200:
        sys.exit(f"demo: {answer.status} {answer.read().decode(errors='replace')}")
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            sys.exit(f"demo: the stream ended in an error: {event['error']}")
        for choice in event["choices"]:
            yield choice["delta"].get("content") or ""


def first_piece(server, port):
    """The answer's pieces, of which the first has come: until then the server may still be starting."""
    until = time.monotonic() + START_S
    while True:
        if server.poll() is not None:
            sys.exit(f"demo: the server ended with exit code {server.returncode}; its words are above")
        pieces = ask(port)
        try:
            return next(pieces), pieces
        except OSError as why:
            if time.monotonic() > until:
                sys.exit(f"demo: not answering after {START_S} s: {why}")
        time.sleep(0.05)


def converse(server, port):
    first, rest = first_piece(server, port)
    print(f"\n> {QUESTION}\n{first}", end="", flush=True)
    whole = first
    for piece in rest:
        print(piece, end="", flush=True)
        whole += piece
    print()
    return whole


def hints(port, salver):
    url = f"http://127.0.0.1:{port}"
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "What is 2+2?"}]})
    print(f"\nServing on {url} until Ctrl-C. The model is called '{MODEL}'. Try:\n")
    print(f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n")
    print(f"See also {url}/v1/models, {url}/metrics and `{salver} status`.", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build", type=Path)
    parser.add_argument("--port", default=8000, type=int)
    parser.add_argument("--state", help="state folder; the server's default without")
    parser.add_argument("--stop", action="store_true")
    args = parser.parse_args()
    fetch_model.fetch("smollm2", fetch_model.CACHE, fetch_model.PINS)
    salver = args.build / "salver"
    command = [salver, "serve", CONFIG, "--port", args.port]
    command += ["--state", args.state] if args.state else []
    print("$", *command, flush=True)
    server = subprocess.Popen([str(word) for word in command])
    # What the terminal sends reaches the server too: it stops by itself, and we wait for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        answer = converse(server, args.port)
        if args.stop and ANSWER not in answer:
            sys.exit(f"demo: the answer does not name {ANSWER}")
    except BaseException:
        server.terminate()
        server.wait()
        raise
    if args.stop:
        server.terminate()
    else:
        hints(args.port, salver)
    sys.stdout.flush()
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
