# SPDX-License-Identifier: Apache-2.0
"""Somebody who has an installed Salver, plugin.h and the README writes a plugin outside the tree
(issue 3, point 8); and what `salver plugin new` writes builds, serves and passes its own test."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SALVER_BUILD", REPO / "build")).resolve()
CLASSIFY = REPO / "tests" / "e2e" / "third_party" / "classify.c"
START_S = 30  # until a server must answer
# Of the sanitizer builds only the sources differ from what is installed anyway.
pytestmark = pytest.mark.skipif("SALVER_SANITIZED" in os.environ, reason="an uninstrumented plugin")

APP = """
http_options: {port: %d}
applications:
  - name: classify
    route_prefix: /classify
    plugin: classify
    deployments:
      - name: classify
        config: {threshold: 0.3}
"""


def free_port():
    for port in range(18100, 18200):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no port of 18100-18199 is free")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """An installation, as `make install` makes it."""
    prefix = tmp_path_factory.mktemp("prefix")
    subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, capture_output=True)
    return prefix


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_once_it_runs(url, server):
    until = time.monotonic() + START_S
    while True:
        try:
            status, text = ask(url)
            if status != 503:
                return status, text
        except OSError:
            pass
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < until, f"no answer within {START_S} s"
        time.sleep(0.02)


def sentence(url, text):
    return ask(url + "/classify?" + urllib.parse.urlencode({"sentence": text}))


def label(url, text):
    status, answer = sentence(url, text)
    assert status == 200, answer
    return json.loads(answer)["label"]


def test_classify(prefix, tmp_path):
    # As the README says: one compiler call, one folder, one YAML file.
    (tmp_path / "plugins").mkdir()
    command = ["cc", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{prefix}/include/salver", CLASSIFY, "-o", tmp_path / "plugins" / "classify.so"]
    subprocess.run(command, check=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    file = tmp_path / "app.yaml"
    file.write_text(APP % port)
    salver = prefix / "bin" / "salver"
    command = [salver, "serve", file, "--plugins", tmp_path / "plugins", "--state", tmp_path / "state"]
    server = subprocess.Popen(command, cwd=tmp_path)
    try:
        status, text = ask_once_it_runs(url + "/classify", server)
        assert status == 400
        assert "give ?sentence=" in json.loads(text)["error"]["message"]
        assert label(url, "What a great day, I love it!") == "neutral"  # 2 of 7 is below 0.3
        assert label(url, "Great, thanks!") == "glad"
        assert label(url, "awful") == "sad"
        assert label(url, "The train is blue.") == "neutral"
        assert sentence(url, "x" * 2000)[0] == 400
        metrics = [line for line in ask(url + "/metrics")[1].splitlines()
                   if line.startswith("classified_sentences_total")]
        assert metrics and float(metrics[0].split()[-1]) == 4, metrics
        assert 'app="classify"' in metrics[0] or 'application="classify"' in metrics[0]
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_its_option_is_checked(prefix, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    command = ["cc", "-std=c11", "-fPIC", "-shared", f"-I{prefix}/include/salver", CLASSIFY]
    subprocess.run([*command, "-o", plugins / "classify.so"], check=True)
    file = tmp_path / "app.yaml"
    for config, says in [
        ("{threshold: 7}", "threshold"),
        ("{treshold: 0.5}", "threshold"),  # the suggestion
    ]:
        file.write_text((APP % 18100).replace("{threshold: 0.3}", config))
        got = subprocess.run(
            [prefix / "bin" / "salver", "check", file],
            env={**os.environ, "SALVER_PLUGINS": str(plugins)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert got.returncode == 2, got
        assert "app.yaml:9:" in got.stderr + got.stdout, got
        assert says in got.stderr + got.stdout, got


def test_plugin_new(prefix, tmp_path):
    env = {**os.environ, "PATH": f"{prefix}/bin:{os.environ['PATH']}"}

    def sh(*command):
        got = subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert got.returncode == 0, got.stdout + got.stderr

    sh("salver", "plugin", "new", "mine")
    sh("cmake", "-S", "mine", "-B", "out", f"-DCMAKE_PREFIX_PATH={prefix}")
    sh("cmake", "--build", "out")
    sh("ctest", "--test-dir", "out", "--output-on-failure")
    again = subprocess.run(["salver", "plugin", "new", "mine"], cwd=tmp_path, env=env,
                           capture_output=True, text=True, check=False)
    assert again.returncode != 0 and "there already" in again.stderr, again


def test_pkg_config(prefix):
    [file] = prefix.rglob("salver.pc")
    got = subprocess.run(
        ["pkg-config", "--cflags", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert got.returncode == 0, got
    folder = got.stdout.split("-I", 1)[1].split()[0]
    assert (Path(folder) / "plugin.h").exists(), got.stdout
