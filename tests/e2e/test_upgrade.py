# SPDX-License-Identifier: Apache-2.0
"""`salver upgrade`: the supervisor becomes another executable under the same pid, then control, the
ingresses and the workers follow. No request fails, whatever the new executable turns out to be."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from harness import SALVER, Load, application, figures, wait_for
from test_adopt import Dialer, Family, alive, counters, is_running, kin, pids, status

WITHIN_S = 20


def fake(**deployment):
    return application("fake", "fake_run", **deployment)


def serve(tmp_path, *applications, http=None):
    return Family(tmp_path, list(applications), http=http)


@pytest.fixture(name="newer")
def fixture_newer(tmp_path):
    """This salver as another version: the text of its number is another one of the same length."""
    return patched(tmp_path, b"9.9.9")


def patched(tmp_path, number):
    program, old = SALVER.read_bytes(), version(SALVER).encode()
    assert b"\0" + old + b"\0" in program
    path = tmp_path / f"salver-{number.decode()}" / "salver"
    path.parent.mkdir()
    path.write_bytes(program.replace(b"\0" + old + b"\0", b"\0" + number + b"\0"))
    path.chmod(0o755)
    assert version(path) == number.decode()
    return path


def version(program):
    out = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    return re.search(r"\d+\.\d+\.\d+", out.stdout).group(0)


def upgrade(server, path):
    command = [str(a) for a in (SALVER, "upgrade", path, "--state", server.state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def program_of(pid):
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe")
    return None


def upgraded(server, path, replicas):
    """Everybody runs that program, and all is well."""

    def done():
        everybody = server.pids()
        return {program_of(p) for p in everybody} == {str(path)} and is_running(server, replicas)

    return wait_for("everybody is of the new program", WITHIN_S, done)


def test_nobody_notices_an_upgrade(tmp_path, newer):
    with serve(tmp_path, fake(num_replicas=2), http={"num_ingress": 2}) as server:
        before, supervisor = pids(server), server.process.pid
        path = "/fake?sleep_ms=5"
        load = Load(server.port, path, connections=16, seconds=90, out=tmp_path / "load")
        with load, Dialer(server.port, path) as dialer:
            time.sleep(0.5)
            counted = counters(server)
            # There, back again, and there once more.
            for program in (newer, SALVER, newer):
                start = time.monotonic()
                assert upgrade(server, program).returncode == 0
                wait_for(
                    "the supervisor is new",
                    5,
                    lambda program=program: program_of(supervisor) == str(program),
                )
                upgraded(server, program, 2)
                figures("upgrade", seconds=round(time.monotonic() - start, 3))
            time.sleep(0.5)
            load.stop()
            rows = load.rows()
        assert [r for r in rows if r.status != 200] == []
        assert dialer.failed == []
        assert len(rows) > 200 and dialer.answered > 20
        assert server.process.poll() is None and server.process.pid == supervisor
        assert not pids(server) & before, "all of them were replaced"
        after = counters(server)
        name = next(k for k in counted if k.startswith("salver_requests_total"))
        assert after[name] > counted[name]
        assert is_running(server, 2)["controller_info"]["build"].startswith("9.9.9")


@pytest.mark.parametrize("kind", ["nothing", "text", "no", "yes", "sleeps", "older"])
def test_what_cannot_go_on_is_refused(tmp_path, kind):
    """Whatever it is, the server that runs goes on."""
    programs = {
        "nothing": "/nonexistent/salver",
        "text": tmp_path / "text",
        "no": "/bin/false",
        "yes": "/bin/true",
        "sleeps": tmp_path / "sleeps",
        "older": tmp_path / "older",
    }
    (tmp_path / "text").write_text("no program")
    (tmp_path / "sleeps").write_text("#!/bin/sh\nsleep 60\n")
    # Knows no --check: what a salver says that is older than upgrades.
    (tmp_path / "older").write_text(
        "#!/bin/sh\n[ $1 = version ] && echo salver 0.0.1 && exit\n"
        "echo 'salver: supervisor: unknown argument --check' >&2\nexit 2\n"
    )
    for name in ("text", "sleeps", "older"):
        (tmp_path / name).chmod(0o755)
    with serve(tmp_path, fake()) as server:
        before, supervisor = kin(server), program_of(server.process.pid)
        out = ask(server, programs[kind])
        assert out["error"], out
        assert str(programs[kind]) in out["error"]
        if kind == "older":
            assert "unknown argument --check" in out["error"]
        if kind == "sleeps":
            assert "5000 ms" in out["error"]
            assert not [p for p in os.listdir("/proc") if p.isdigit() and sleeps(p, programs[kind])]
        assert kin(server) == before
        assert program_of(server.process.pid) == supervisor
        assert server.get("/fake").status == 200
        assert len(server.children("control")) == 1


def sleeps(pid, program):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
        return str(program).encode() in f.read()
    return False


def ask(server, path):
    """What the supervisor says about that program; by the socket, for the command looks first."""
    body = f'{{"path": "{path}"}}'
    command = ["curl", "-s", "--unix-socket", str(server.state / "control.sock"), "-H"]
    command += ["Content-Type: application/json", "-X", "POST", "-d", body]
    subprocess.run([*command, "http://localhost/api/upgrade"], check=True, capture_output=True)

    def answer():
        s = status(server)
        up = s and s.get("upgrade")
        return up if up and not up["under_way"] else None

    return wait_for("an answer", 15, answer)


def test_a_worker_dies_while_the_supervisor_changes(tmp_path, newer):
    with serve(tmp_path, fake(num_replicas=3)) as server:
        assert upgrade(server, newer).returncode == 0
        for child in kin(server, "worker")[:2]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            time.sleep(0.02)
        upgraded(server, newer, 3)
        assert len(kin(server, "worker")) == 3


def test_a_stop_works_after_an_upgrade(tmp_path, newer):
    with serve(tmp_path, fake(num_replicas=2)) as server:
        assert upgrade(server, newer).returncode == 0
        upgraded(server, newer, 2)
        everybody = server.pids()
        server.process.terminate()
        assert server.process.wait(15) == 0
        assert not [p for p in everybody if alive(p)]
        assert not pids(server)


def test_an_upgraded_supervisor_is_taken_over(tmp_path, newer):
    """Adopted processes go through an upgrade, upgraded ones through an adoption."""
    with serve(tmp_path, fake(num_replicas=2)) as server:
        server.process.kill()
        server.process.wait(5)
        with open(server.log_path, "ab") as log:
            command = [str(a) for a in server.command]
            server.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for("all is well again", WITHIN_S, lambda: is_running(server, 2))
        assert upgrade(server, newer).returncode == 0
        # The adopted ones are no children of it, so look at who there is.
        wait_for(
            "everybody is of the new program",
            WITHIN_S,
            lambda: {program_of(p) for p in pids(server)} == {str(newer)} and is_running(server, 2),
        )
        server.process.kill()
        server.process.wait(5)
        before = kin(server)
        with open(server.log_path, "ab") as log:
            server.command[0] = newer
            command = [str(a) for a in server.command]
            server.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for("all is well again", WITHIN_S, lambda: is_running(server, 2))
        assert kin(server) == before


def test_a_signal_during_the_change_is_not_lost(tmp_path):
    slow = tmp_path / "slow"  # while it is neither the old program nor the new one
    # No shell: it would let the signals through that wait.
    slow.write_text(
        f"#!{sys.executable} -S\nimport os, sys, time\n"
        f"if sys.argv[2] == '--resume':\n    time.sleep(1)\n"
        f"os.execv('{SALVER}', ['salver', *sys.argv[1:]])\n"
    )
    slow.chmod(0o755)
    with serve(tmp_path, fake()) as server:
        command = [str(a) for a in (SALVER, "upgrade", slow, "--state", server.state)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as asks:  # waits for what comes of it
            wait_for("it is between", 5, lambda: program_of(server.process.pid) != str(SALVER))
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0
            asks.kill()
        assert not pids(server)


def test_the_same_build_replaces_nobody_else(tmp_path):
    """And what had been adopted stays so: whoever ends is watched, not waited for."""
    copy = tmp_path / "copy"
    copy.write_bytes(SALVER.read_bytes())
    copy.chmod(0o755)
    with serve(tmp_path, fake(num_replicas=2)) as server:
        server.process.kill()
        server.process.wait(5)
        with open(server.log_path, "ab") as log:
            command = [str(a) for a in server.command]
            server.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for("all is well again", WITHIN_S, lambda: is_running(server, 2))
        before, control = kin(server), server.children("control")[0].pid
        assert upgrade(server, copy).returncode == 0
        wait_for(
            "control is new",
            WITHIN_S,
            lambda: control not in server.pids("control") and is_running(server, 2),
        )
        assert program_of(server.process.pid) == str(copy)
        time.sleep(1)
        assert kin(server) == before
        old = kin(server, "worker")[0]
        os.kill(old.pid, signal.SIGKILL)
        words = f"{old.name} (pid {old.pid}) ended; an earlier server had started it"
        wait_for("its end is seen", 10, lambda: words in server.log())
        wait_for("it is replaced", 10, lambda: is_running(server, 2))
