"""Serves the plugin and asks it: test_@name@.py SALVER PLUGIN.so"""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

salver, plugin = sys.argv[1:3]


def ask(path):
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_once_it_runs(path):
    for _ in range(1000):
        try:
            status, text = ask(path)
            if status != 503:
                return status, text
        except OSError:
            pass
        assert server.poll() is None, "the server ended; its words are above"
        time.sleep(0.01)
    raise AssertionError("the server doesn't answer")


with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    free.close()
    file = Path(folder, "app.yaml")
    file.write_text(f"applications:\n  - {{name: test, route_prefix: /, plugin: {plugin}}}\n")
    server = subprocess.Popen(
        [salver, "serve", file, "--port", str(port), "--state", folder + "/state"]
    )
    try:
        assert ask_once_it_runs("/?name=Ada") == (200, "Hello, Ada!\n")
        assert ask("/")[0] == 400
    finally:
        server.terminate()
        server.wait()
print("passed")
