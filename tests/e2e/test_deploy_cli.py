# SPDX-License-Identifier: Apache-2.0
"""salver deploy, status, config, delete, shutdown; serve without a file."""

import json
import os
import pty
import shutil
import signal
import subprocess

import pytest
from harness import SALVER, START_S, TEST_PLUGINS, Server, application, free_port, request, wait_for


def fake(name, config=None, **deployment):
    return application(name, "fake_run", config, **deployment)


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path, [fake("a")], admin_port=free_port()) as s:
        yield s


def salver(server, *words, timeout=60, env=None, **more):
    command = [SALVER, *words]
    if server is not None:
        command += ["--state", server.state]
    return subprocess.run(
        [str(w) for w in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
        **more,
    )


def write(server, *applications, name="next.yaml"):
    path = server.folder / name
    conf = {**json.loads(server.file.read_text()), "applications": list(applications)}
    path.write_text(json.dumps(conf, indent=1))
    return path


def pid(server, app):
    (deployment,) = server.status()["applications"][app]["deployments"].values()
    return [r["pid"] for r in deployment["replicas"]]


def names(server):
    found = server.status()["applications"].items()
    return {name for name, app in found if app["status"] != "DELETING"}


def test_deploy_is_idempotent(server):
    before = pid(server, "a")
    for _ in range(2):
        got = salver(server, "deploy", server.file, "--wait")
        assert got.returncode == 0, got.stderr
        assert "salver status" in got.stdout and "RUNNING" in got.stdout
    assert pid(server, "a") == before


def test_deploy_adds_and_removes(server):
    got = salver(server, "deploy", write(server, fake("b"), fake("c")), "--wait=30")
    assert got.returncode == 0, got.stderr
    assert "Deployed 2 applications" in got.stdout
    assert names(server) == {"b", "c"}
    assert server.get("/b").status == 200
    wait_for("a is gone", 5, lambda: server.get("/a").status == 404)


BAD = {
    "key": ("applications:\n  - name: x\n    pluggin: fake_run\n", "bad.yaml:3:5: "),
    "yaml": ("applications: [\n", "bad.yaml:"),
    "host": ("http_options: {host: 0.0.0.0}\napplications: []\n", "--allow-unauthenticated"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_2_and_says_where(server, case):
    text, says = BAD[case]
    path = server.folder / "bad.yaml"
    path.write_text(text)
    for more in ([], ["--dry-run"]):
        got = salver(server, "deploy", path, *more)
        assert got.returncode == 2
        assert says in got.stderr and "bad.yaml:" in got.stderr
        assert got.stdout == ""
    assert names(server) == {"a"}


@pytest.mark.parametrize(
    "words, says",
    [
        (["deploy"], "which file"),
        (["deploy", "/nowhere.yaml"], "/nowhere.yaml"),
        (["deploy", "x", "--wait=soon"], "soon"),
        (["deploy", "x", "--state", "y", "--address", "http://z:1"], "not both"),
        (["deploy", "x", "--address", "https://localhost:1"], "http://HOST:PORT"),
        (["deploy", "x", "--address", "http://localhost:1/path"], "http://HOST:PORT"),
        (["deploy", "x", "--address", "http://localhost:99999"], "http://HOST:PORT"),
        (["deploy", "x", "--address", "http://:1"], "http://HOST:PORT"),
        (["delete"], "which application"),
        (["delete", ""], "which application"),
        (["delete", "a", "b"], "'b'"),
        (["shutdown"], "-y"),
        (["shutdown", "x"], "'x'"),
        (["config", "--defaults", "-n", "x"], "one of"),
        (["upgrade", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_usage_is_2(words, says):
    got = salver(None, *words)
    assert got.returncode == 2, got
    assert says in got.stderr
    assert got.stdout == ""


def test_no_server_is_1(tmp_path):
    file = tmp_path / "app.yaml"
    file.write_text("applications: []\n")
    port = free_port()
    for words in (["deploy", file], ["status"], ["config"], ["delete", "a"], ["shutdown", "-y"]):
        got = salver(None, *words, "--state", tmp_path / "none")
        assert got.returncode == 1, got
        assert "no server answers" in got.stderr
        got = salver(None, *words, "--address", f"http://127.0.0.1:{port}")
        assert got.returncode == 1, got
        assert str(port) in got.stderr


def test_dry_run_prints_and_changes_nothing(server):
    before = pid(server, "a")
    file = write(server, fake("a", {"live": "x"}, max_ongoing_requests=3), fake("b"))
    got = salver(server, "deploy", file, "--dry-run", "--wait")
    assert got.returncode == 0, got.stderr
    lines = got.stdout.splitlines()
    assert "a: update" in lines and "b: add" in lines
    assert "  config.live: live" in lines
    assert names(server) == {"a"} and pid(server, "a") == before


def test_wait_tells_why_it_failed(server):
    bad = fake("bad", {"do": "create:fail=-500"})
    got = salver(server, "deploy", write(server, fake("a"), bad), "--wait")
    assert got.returncode == 1
    assert "'bad' is DEPLOY_FAILED" in got.stderr and "create" in got.stderr
    assert server.get("/a").status == 200


def test_wait_ends_in_time(server):
    slow = fake("slow", {"do": "load:sleep=20000"})
    got = salver(server, "deploy", write(server, fake("a"), slow), "--wait=1", timeout=10)
    assert got.returncode == 1
    assert "'slow'" in got.stderr


def test_relative_paths_are_the_files(server):
    (server.folder / "sub").mkdir()
    os.symlink(TEST_PLUGINS / "fake_run.so", server.folder / "sub" / "mine.so")
    (server.folder / "sub" / "x.yaml").write_text(
        "applications: [{name: x, route_prefix: /x, plugin: ./mine.so}]\n"
    )
    got = salver(server, "deploy", "sub/x.yaml", "--wait=30", cwd=server.folder)
    assert got.returncode == 0, got.stderr
    assert server.get("/x").status == 200


def test_config_round_trip(server):
    text = (
        "applications:\n"
        "  - name: x\n"
        "    route_prefix: /x\n"
        "    plugin: fake_run\n"
        "    deployments:\n"
        "      - name: x\n"
        "        max_queued_requests: 12\n"
        "        config: {live: 'a: \"b\" # ü\\n', max_batch: 2}\n"
        "  - {name: y, route_prefix: /y, plugin: fake_run}\n"
    )
    path = server.folder / "x.yaml"
    path.write_text(text)
    assert salver(server, "deploy", path, "--wait=30").returncode == 0
    before = {app: pid(server, app) for app in "xy"}
    got = salver(server, "config")
    assert got.returncode == 0, got.stderr
    documents = got.stdout.split("\n---\n\n")
    assert len(documents) == 2
    assert "num_replicas" not in got.stdout  # only what the user set
    assert salver(server, "config", "-n", "x").stdout == documents[0]
    again = "applications:\n"
    for one in documents:
        lines = one.strip("\n").splitlines()
        again += "".join(f"  {'-' if i == 0 else ' '} {line}\n" for i, line in enumerate(lines))
    path.write_text(again)
    got = salver(server, "deploy", path, "--wait=30")
    assert got.returncode == 0, got.stderr + again
    assert {app: pid(server, app) for app in "xy"} == before
    got = salver(server, "config", "--name", "nix")
    assert got.returncode == 1 and "'x'" in got.stderr


def test_delete(server):
    salver(server, "deploy", write(server, fake("a"), fake("b")), "--wait")
    before = pid(server, "a")
    got = salver(server, "delete", "b")
    assert got.returncode == 0 and "'b'" in got.stdout
    wait_for("b is gone", 5, lambda: server.get("/b").status == 404)
    assert pid(server, "a") == before
    got = salver(server, "delete", "b")
    assert got.returncode == 1 and "'b'" in got.stderr and "a" in got.stderr


def test_shutdown_asks(server):
    got = salver(server, "shutdown")
    assert got.returncode == 2 and "-y" in got.stderr
    for word, status, left in (("n", 1, {"a"}), ("", 1, {"a"}), ("y", 0, set())):
        ours, theirs = pty.openpty()
        command = [str(SALVER), "shutdown", "--state", str(server.state)]
        with subprocess.Popen(command, stdin=theirs, stderr=subprocess.DEVNULL) as process:
            os.write(ours, word.encode() + b"\n")
            assert process.wait(20) == status
        os.close(ours)
        os.close(theirs)
        wait_for("it holds", 30, lambda want=left: names(server) == want)
    assert server.get("/-/healthz").status == 200
    assert salver(server, "deploy", server.file, "--wait").returncode == 0
    assert salver(server, "shutdown", "-y").returncode == 0
    assert names(server) == set()


def test_everything_over_an_address(server):
    address = f"http://127.0.0.1:{server.command[-1]}"
    file = write(server, fake("a"), fake("b", {"live": "${SALVER_TEST_TEXT:-deflt}"}))

    def ask(*words, env=None):
        got = salver(None, *words, "--address", address, env=env)
        assert got.returncode == 0, got
        return got.stdout

    assert "b: add" in ask("deploy", file, "--dry-run")
    ask("deploy", file, "--wait=30")
    assert json.loads(server.get("/b").body)["live"] == "deflt"
    assert "b  /b  RUNNING" in ask("status", "-n", "b")
    assert "name: b" in ask("config", "-n", "b")
    ask("delete", "b")
    assert names(server) == {"a"}
    got = salver(None, "shutdown", "-y", env={"SALVER_ADDRESS": address})
    assert got.returncode == 0
    assert names(server) == set()


def test_references_travel_over_an_address(server):
    """It is the server that looks them up, whatever the client's environment says."""
    path = server.folder / "b.yaml"
    path.write_text(
        "applications:\n- name: b\n  route_prefix: /b\n  plugin: fake_run\n  deployments:\n"
        "  - name: b\n    num_replicas: ${SALVER_TEST_NUMBER:-2}\n"
        "    config: {live: \"${SALVER_TEST_TEXT:-the server's}\"}\n"
    )
    address = f"http://127.0.0.1:{server.command[-1]}"
    env = {"SALVER_TEST_TEXT": "the client's", "SALVER_TEST_NUMBER": "1"}
    got = salver(None, "deploy", path, "--address", address, "--wait=30", env=env)
    assert got.returncode == 0, got.stderr
    assert json.loads(server.get("/b").body)["live"] == "the server's"
    assert len(pid(server, "b")) == 2


def start(folder, port, *words):
    log = open(folder / "log", "ab")  # pylint: disable=consider-using-with
    command = [SALVER, "serve", *words, "--state", folder / "state", "--port", port,
               "--admin-port", 0, "--plugins", TEST_PLUGINS]  # fmt: skip
    if port is None:
        command = command[:-6] + command[-4:]
    with log:
        return subprocess.Popen([str(w) for w in command], stdout=log, stderr=log)


def stop(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def get(port, path):
    try:
        return request(port, path, timeout=5).status
    except OSError:
        return None


def test_serve_without_a_file_waits_then_resumes(tmp_path):
    port = free_port()
    file = tmp_path / "app.yaml"
    file.write_text(json.dumps({"applications": [fake("a", {"live": "kept"})]}))
    process = start(tmp_path, port)
    try:
        wait_for("it waits", START_S, lambda: get(port, "/-/healthz") == 200)
        assert "salver deploy" in (tmp_path / "log").read_text()
        got = salver(None, "deploy", file, "--wait=30", "--state", tmp_path / "state")
        assert got.returncode == 0, got.stderr
        assert get(port, "/a") == 200
    finally:
        stop(process)
    file.unlink()  # the store alone is read
    process = start(tmp_path, port)
    try:
        wait_for("it resumes", START_S, lambda: get(port, "/a") == 200)
        assert json.loads(request(port, "/a").body)["live"] == "kept"
    finally:
        stop(process)


def test_serve_with_a_file_deploys_it_once(tmp_path):
    port = free_port()
    file = tmp_path / "app.yaml"
    file.write_text(json.dumps({"applications": [fake("a")]}))
    process = start(tmp_path, port, file)
    try:
        wait_for("a answers", START_S, lambda: get(port, "/a") == 200)
        other = tmp_path / "other.yaml"
        other.write_text(json.dumps({"applications": [fake("b")]}))
        got = salver(None, "deploy", other, "--wait=30", "--state", tmp_path / "state")
        assert got.returncode == 0, got.stderr
        status = json.loads(salver(None, "status", "--json", "--state", tmp_path / "state").stdout)
        os.kill(status["controller_info"]["pid"], signal.SIGKILL)
        wait_for("b is still there", 10, lambda: get(port, "/b") == 200)
        assert get(port, "/a") == 404  # a replaced control does not read the file again
    finally:
        stop(process)
    process = start(tmp_path, port, file)
    try:
        wait_for("a answers again", START_S, lambda: get(port, "/a") == 200)
        assert get(port, "/b") == 404
    finally:
        stop(process)


def test_resuming_listens_where_the_file_said(tmp_path):
    port = free_port()
    file = tmp_path / "app.yaml"
    http = {"host": "127.0.0.1", "port": port, "num_ingress": 2}
    file.write_text(json.dumps({"http_options": http, "applications": [fake("a")]}))
    for words in ([file], []):
        process = start(tmp_path, None, *words)
        try:
            wait_for("a answers", START_S, lambda: get(port, "/a") == 200)
            got = salver(None, "status", "--json", "--state", tmp_path / "state")
            assert len(json.loads(got.stdout)["proxies"]) == 2
            again = salver(None, "serve", "--state", tmp_path / "state", "--port", free_port())
            assert again.returncode == 1 and f"pid {process.pid}" in again.stderr
        finally:
            stop(process)
    http["host"] = "0.0.0.0"
    file.write_text(json.dumps({"http_options": http, "applications": [fake("a")]}))
    process = start(tmp_path, None, file, "--host", "127.0.0.1")
    try:
        wait_for("a answers", START_S, lambda: get(port, "/a") == 200)
    finally:
        stop(process)
    got = salver(None, "serve", "--state", tmp_path / "state")
    assert got.returncode == 2 and "--allow-unauthenticated" in got.stderr


def test_upgrade_says_what_came_of_it(server):
    exe = server.folder / "salver-next"
    shutil.copy(SALVER, exe)
    got = salver(server, "upgrade", "/bin/true", env={"SALVER_ADDRESS": "http://127.0.0.1:1"})
    assert got.returncode == 1 and "true' is no salver" in got.stderr
    assert "did not go over to" in salver(server, "status").stdout
    got = salver(server, "upgrade", exe)
    assert got.returncode == 0, got.stderr
    wait_for("it runs", 10, lambda: os.readlink(f"/proc/{server.process.pid}/exe") == str(exe))
    assert server.get("/a").status == 200
