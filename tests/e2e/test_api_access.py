# SPDX-License-Identifier: Apache-2.0
"""Who may speak to the admin API, and how: its two listeners, Host, Origin, types, limits."""

import json
import os
import signal
import socket
import stat
import subprocess
import time
from contextlib import closing

import pytest
from harness import SALVER, Server, application, free_port, read_answer, request, wait_for

LIMIT = 1 << 20  # CONF_FILE_MAX


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(
        tmp_path_factory.mktemp("api"), [application("fake", "fake_run")], admin_port=free_port()
    ) as s:
        wait_for("the admin API on TCP", 5, lambda: answers(admin_port(s)))
        yield s


def admin_port(server):
    return int(server.command[-1])


def answers(port):
    try:
        return request(port, "/healthz", timeout=5).status == 200
    except OSError:
        return False


def ask(port, head, body=b""):
    """Raw: head is all of it but for the blank line."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        with s.makefile("rb") as f:
            return read_answer(f)


def message(answer):
    return json.loads(answer.body)["error"]["message"]


def test_the_socket_is_this_users_alone(server):
    mode = os.stat(server.state / "control.sock").st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert server.admin("GET", "/healthz") == (200, b"ok\n")


def test_tcp_answers_on_loopback_alone(server):
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in open(f"/proc/net/{name}", encoding="ascii").readlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == admin_port(server)
    ]
    assert listening == [f"0100007F:{admin_port(server):04X}"]
    status = json.loads(request(admin_port(server), "/status").body)
    assert status["applications"]["fake"]["status"] == "RUNNING"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8265"])
def test_hosts_that_are_taken(server, host):
    assert ask(admin_port(server), f"GET /status HTTP/1.1\nhost: {host}").status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_host_is_403(server, host, method):
    head = f"{method} /api/serve/applications/ HTTP/1.1\nhost: {host}\ncontent-length: 0"
    got = ask(admin_port(server), head)
    assert got.status == 403
    assert host in message(got)
    assert server.get("/fake").status == 200


def test_no_host_is_refused(server):
    assert ask(admin_port(server), "GET /status HTTP/1.0").status == 403
    assert ask(admin_port(server), "GET /status HTTP/1.1").status == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example"])
def test_a_foreign_page_is_403(server, origin):
    head = f"DELETE /api/serve/applications/ HTTP/1.1\nhost: localhost\norigin: {origin}"
    got = ask(admin_port(server), head)
    assert got.status == 403
    assert "web page" in message(got)
    assert server.get("/fake").status == 200


def test_a_page_of_this_machine_may_read(server):
    head = "GET /status HTTP/1.1\nhost: localhost\norigin: http://localhost:3000"
    got = ask(admin_port(server), head)
    assert got.status == 200
    assert not [h for h in got.headers if h.startswith("access-control")]


def test_a_preflight_is_not_answered(server):
    head = (
        "OPTIONS /status HTTP/1.1\nhost: localhost\n"
        "origin: http://localhost:3000\naccess-control-request-method: PUT"
    )
    got = ask(admin_port(server), head)
    assert got.status == 405
    assert not [h for h in got.headers if h.startswith("access-control")]


def test_unknown_paths_are_404(server):
    for path in ("/", "/api", "/api/serve", "/statuss", "/status/x", "/healthz//"):
        status, body = server.admin("GET", path)
        assert status == 404, path
        assert "/api/serve/applications/" in body["error"]["message"]


def test_one_slash_more_does_not_matter(server):
    assert server.admin("GET", "/status/")[0] == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_405(server, method):
    headers = {"content-type": "application/json"}
    status, body = server.admin(method, "/status", b"{}", headers)
    assert status == 405, body


def test_methods_that_nobody_knows_are_refused(server):
    got = ask(admin_port(server), "BREW /status HTTP/1.1\nhost: localhost")
    assert got.status in (400, 405)


def test_405_says_what_is_allowed(server):
    got = ask(admin_port(server), "DELETE /status HTTP/1.1\nhost: localhost")
    assert (got.status, got.headers["allow"]) == (405, "GET")


def test_head_has_no_body(server):
    with socket.create_connection(("127.0.0.1", admin_port(server)), 10) as s:
        s.sendall(b"HEAD /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        got = b"".join(iter(lambda: s.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 200") and b"content-length: 3" in got.lower()
    assert got.endswith(b"\r\n\r\n")


def test_slow_clients_hold_up_nobody(server):
    """64 connections over TCP that never finish a head: the socket's user is served at once."""
    idle = [socket.create_connection(("127.0.0.1", admin_port(server)), 10) for _ in range(80)]
    try:
        for s in idle:
            try:
                s.sendall(b"PUT /api/serve/applications/ HTTP/1.1\r\nhost: loc")
            except OSError:
                pass  # one of those beyond the limit
        begun = time.monotonic()
        assert server.admin("GET", "/status")[0] == 200
        assert time.monotonic() - begun < 5
        assert server.get("/fake").status == 200
    finally:
        for s in idle:
            s.close()
    wait_for("TCP is free again", 5, lambda: answers(admin_port(server)))


def test_a_replaced_control_listens_again(server):
    control = server.pids("control")[0]
    os.kill(control, signal.SIGKILL)
    wait_for("another control", 5, lambda: server.pids("control") not in ([], [control]))
    wait_for("TCP is back", 5, lambda: answers(admin_port(server)))
    wait_for("the status is back", 5, lambda: server.admin("GET", "/status")[0] == 200)


def test_a_port_that_is_taken_is_a_warning(tmp_path, server):
    taken = admin_port(server)
    with Server(tmp_path, [application("other", "fake_run")], admin_port=taken) as second:
        wait_for("the warning", 10, lambda: f"port {taken}" in second.log())
        assert "--admin-port" in second.log() and "control.sock" in second.log()
        assert list(second.status()["applications"]) == ["other"]
    assert "fake" in json.loads(request(taken, "/status").body)["applications"]


def test_a_port_that_comes_free_is_taken(tmp_path):
    """As when the control before this one is still on its way out."""
    with closing(socket.socket()) as holder:
        port = free_port()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with Server(tmp_path, [application("fake", "fake_run")], admin_port=port) as server:
            assert not answers_to_us(server, port)
            holder.close()
            wait_for("the admin API on TCP", 5, lambda: answers(port))
            assert "does not listen" not in server.log()


def answers_to_us(server, port):
    return f"listens on 127.0.0.1, port {port}" in server.log()


def test_port_0_is_none(tmp_path):
    with Server(tmp_path, [application("fake", "fake_run")]) as server:
        tables = [open(f"/proc/net/{n}", encoding="ascii").read() for n in ("tcp", "tcp6")]
        mine = {line.split()[9] for t in tables for line in t.splitlines()[1:] if " 0A " in line}
        control = server.pids("control")[0]
        held = {os.readlink(f"/proc/{control}/fd/{fd}") for fd in os.listdir(f"/proc/{control}/fd")}
        assert not {f"socket:[{inode}]" for inode in mine} & held
        assert server.admin("GET", "/healthz")[0] == 200


def test_the_file_says_where(tmp_path):
    port = free_port()
    file = tmp_path / "app.yaml"
    file.write_text(f"admin: {{host: localhost, port: {port}}}\napplications: []\n")
    words = [SALVER, "serve", file, "--state", tmp_path / "s", "--port", free_port()]
    process = subprocess.Popen([str(w) for w in words], stderr=subprocess.DEVNULL)
    try:
        wait_for("the admin API on TCP", 10, lambda: answers(port))
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_status_over_an_address(server):
    address = f"http://127.0.0.1:{admin_port(server)}"
    for words, env in (
        (["--address", address], {}),
        (["-a", address + "/"], {}),
        ([], {"SALVER_ADDRESS": address}),
        (["-a", f"localhost:{admin_port(server)}"], {}),
    ):
        got = subprocess.run(
            [SALVER, "status", "--json", *words],
            capture_output=True,
            timeout=20,
            check=True,
            env={**os.environ, **env},
        )
        assert "fake" in json.loads(got.stdout)["applications"]


def test_upgrades_are_asked_for_on_the_socket_alone(server):
    head = (
        "POST /api/upgrade HTTP/1.1\nhost: localhost\ncontent-type: application/json\n"
        "content-length: 20"
    )
    got = ask(admin_port(server), head, b'{"path": "/nowhere"}')
    assert got.status == 403 and "socket" in message(got)
    status, body = server.admin("POST", "/api/upgrade", {"path": "nowhere"})
    assert status == 400 and "ABSOLUTE" in body["error"]["message"]
