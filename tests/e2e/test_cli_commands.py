# SPDX-License-Identifier: Apache-2.0
"""The commands: what they print, where, and how they end."""

import json
import os
import signal
import subprocess
import urllib.request

import pytest
from harness import SALVER, TEST_PLUGINS, Server, application, free_port


def salver(*words, timeout=30, **env):
    return subprocess.run(
        [str(w) for w in (SALVER, *words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **env},
    )


def write(tmp_path, text):
    path = tmp_path / "app.yaml"
    path.write_text(text)
    return path


COMMANDS = ["serve", "check", "deploy", "config", "status", "delete", "shutdown", "upgrade", "inspect", "plugin", "doc", "version"]


def test_help_names_every_command():
    got = salver("--help")
    assert got.returncode == 0
    for command in COMMANDS:
        assert command in got.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    got = salver(command, "--help")
    assert got.returncode == 0
    assert got.stdout.startswith(f"usage: salver {command}")


@pytest.mark.parametrize(
    "words, says",
    [
        ((), "usage"),
        (("serv",), "did you mean 'serve'"),
        (("serve", "a", "--plugin", "b"), "not both"),
        (("serve", "a", "b"), "'b'"),
        (("serve", "a", "--prot", "1"), "did you mean '--port'"),
        (("serve", "a", "--port"), "needs a value"),
        (("check",), "which file"),
        (("config", "a", "--defaults"), "--defaults"),
        (("doc", "nothing"), "which page"),
        (("status", "x"), "'x'"),
        (("plugin", "old"), "plugin new"),
        (("plugin", "new", "Bad-Name"), "Bad-Name"),
    ],
)
def test_bad_usage_is_2(words, says):
    got = salver(*words)
    assert got.returncode == 2
    assert says in got.stderr
    assert got.stdout == ""


def test_version():
    got = salver("version")
    assert got.returncode == 0
    assert got.stdout.startswith("salver ")


@pytest.mark.parametrize("page", ["config", "metrics", "wire", "errors"])
def test_doc_is_markdown(page):
    got = salver("doc", page)
    assert got.returncode == 0
    assert "|" in got.stdout


def test_defaults_pass_check_as_a_file(tmp_path):
    got = salver("config", "--defaults")
    assert got.returncode == 0
    again = salver("config", write(tmp_path, got.stdout))
    assert again.returncode == 0, again.stderr


GOOD = "applications: [{name: a, plugin: fake_run}]\n"


def test_check_warns_of_what_is_not_there_yet(tmp_path):
    text = "applications: [{name: x, plugin: named, deployments: [{name: x, config: {lie: %s}}]}]\n"
    got = salver("check", write(tmp_path, text % "fail"), "--plugins", TEST_PLUGINS)
    assert got.returncode == 0
    assert "warning" in got.stderr and "there is no such model" in got.stderr
    got = salver("check", write(tmp_path, text % "empty"), "--plugins", TEST_PLUGINS)
    assert got.returncode == 1


def test_check(tmp_path):
    got = salver("check", write(tmp_path, GOOD), "--plugins", TEST_PLUGINS)
    assert got.returncode == 0, got.stderr
    assert "ok, 1 application" in got.stdout


def test_strict_makes_a_warning_an_error(tmp_path):
    words = ["check", write(tmp_path, "proxy_location: EveryNode\n" + GOOD), "--plugins", TEST_PLUGINS]
    got = salver(*words)
    assert got.returncode == 0 and "proxy_location" in got.stderr
    got = salver(*words, "--strict")
    assert got.returncode == 2 and "proxy_location" in got.stderr
    assert "ok" not in got.stdout
    assert salver(*words[:1], write(tmp_path, GOOD), *words[2:], "--strict").returncode == 0


BAD = {
    "yaml": ("applications: [{name: a", "app.yaml:"),
    "key": ("applications: [{name: a, plugin: fake_run, rout_prefix: /}]\n", "route_prefix"),
    "plugin": ("applications: [{name: a, plugin: nowhere}]\n", "nowhere.so"),
    "option": (
        "applications: [{name: a, plugin: fake_run, deployments: [{name: d, config: {helth: 1}}]}]\n",
        "'health'",
    ),
    "value": (
        "applications: [{name: a, plugin: fake_run, deployments: [{name: d, config: "
        "{max_batch: many, do: 'create:segv'}}]}]\n",
        "'max_batch'",
    ),
}


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_2(tmp_path, command, case):
    text, says = BAD[case]
    words = [command, write(tmp_path, text), "--plugins", TEST_PLUGINS]
    if command == "serve":
        words += ["--state", tmp_path / "state", "--port", free_port()]
    got = salver(*words)
    assert got.returncode == 2, got
    assert says in got.stderr
    assert "app.yaml:" in got.stderr


def test_a_plugin_that_fails_is_1(tmp_path):
    text = "applications: [{name: a, plugin: fake_run, deployments: [{name: d, config: %s}]}]\n"
    file = write(tmp_path, text % "{do: 'create:segv'}")
    got = salver("check", file, "--plugins", TEST_PLUGINS)
    assert got.returncode == 1
    assert "application 'a'" in got.stderr and "SIGSEGV" in got.stderr


def test_other_hosts_need_a_word(tmp_path):
    file = write(tmp_path, GOOD)
    words = ["serve", file, "--plugins", TEST_PLUGINS, "--state", tmp_path / "s", "--host", "0.0.0.0"]
    got = salver(*words, "--port", free_port())
    assert got.returncode == 2
    assert "--allow-unauthenticated" in got.stderr


def test_no_server_to_ask(tmp_path):
    got = salver("status", "--state", tmp_path)
    assert got.returncode == 1
    assert "no server" in got.stderr


def test_a_second_server_on_the_same_folder_is_refused(tmp_path):
    with Server(tmp_path, [application("fake", "fake_run")]) as server:
        words = [str(w) for w in server.command[1:]]
        got = salver(*words, "--port", free_port())
        assert got.returncode == 1
        assert f"pid {server.process.pid}" in got.stderr
        assert server.get("/fake").status == 200


def test_a_second_server_on_the_same_port_is_refused(tmp_path):
    with Server(tmp_path, [application("fake", "fake_run")]) as server:
        words = [str(w) for w in server.command[1:]]
        got = salver(*words, "--state", tmp_path / "other")
        assert got.returncode == 1
        assert str(server.port) in got.stderr
        assert "in use" in got.stderr


def start(*words):
    process = subprocess.Popen(
        [str(w) for w in (SALVER, "serve", *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline()


def end(process):
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    return err


def test_port_0_is_any_free_one(tmp_path):
    file = write(tmp_path, GOOD)
    process, line = start(
        file, "--plugins", TEST_PLUGINS, "--state", tmp_path / "s", "--port", 0, "--log", "json"
    )
    try:
        assert line.startswith("salver: serving on http://127.0.0.1:")
        port = int(line.split(":")[3].split()[0])
        assert port > 0
        got = salver("status", "--json", "--state", tmp_path / "s")
        assert json.loads(got.stdout)["http_options"]["port"] == port
    finally:
        err = end(process)
    assert err and all(json.loads(one)["msg"] for one in err.splitlines())


def test_a_plugin_without_a_file(tmp_path):
    process, line = start(
        "--plugin", "fake_run", "--live", "word", "--plugins", TEST_PLUGINS,
        "--state", tmp_path / "s", "--port", free_port(),
    )  # fmt: skip
    try:
        assert line.startswith("salver: serving on ")
        status = json.loads(salver("status", "--json", "--state", tmp_path / "s").stdout)
        assert [a["route_prefix"] for a in status["applications"].values()] == ["/"]
        port = status["http_options"]["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert json.loads(answer.read())["live"] == "word"
    finally:
        end(process)


def test_an_unknown_option_of_a_plugin_is_2(tmp_path):
    got = salver("serve", "--plugin", "fake_run", "--lives", "x", "--plugins", TEST_PLUGINS,
                 "--state", tmp_path / "s", "--port", free_port())  # fmt: skip
    assert got.returncode == 2
    assert "--live" in got.stderr
