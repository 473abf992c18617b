# SPDX-License-Identifier: Apache-2.0
"""The `server` fixture: servers that end with their test, and whose logs are shown when it fails.

    def test_something(server):
        s = server([application("a", "fake_run", {"defaults": "n=1"}, num_replicas=2)])
        assert s.get("/a/").status == 200

Arguments are those of harness.Server. Clients of all kinds: clients.py and harness.py. The binary is
`$SALVER_BUILD/salver` (build/), ports come from `$SALVER_PORTS`.

Every test also fails when a sanitizer of a sanitized build reported something, in whatever process,
or when a process of the core fell by itself.
"""

import os

import pytest
import sanitizers

sanitizers.prepare()  # before harness looks at the environment

from harness import BUILD, Server  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    setattr(item, f"report_{report.when}", report)


@pytest.fixture(autouse=True)
def no_reports():
    """First of all fixtures, so it ends last: after the servers of its test."""
    yield
    check_ended()
    reports = sanitizers.new_reports()
    assert not reports, "a sanitizer reported:\n" + reports


def check_ended():
    while Server.ended:
        sanitizers.check_log(Server.ended.pop().log())


@pytest.fixture(autouse=True)
def no_gpus(request, monkeypatch):
    """A test sees the machine's GPUs only when it is marked: the others mean the processor."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def pytest_sessionfinish(session):
    reports = sanitizers.new_reports()  # of servers that a whole module shared
    if reports:
        print("\na sanitizer reported:\n" + reports)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def show_log(node, server):
    report = getattr(node, "report_call", None)
    if report is not None and report.failed:
        print(f"---- log of the server on port {server.port} ----")
        print(server.log()[-16000:])


@pytest.fixture
def server(tmp_path, request):
    started = []

    def start(applications, **options):
        s = Server(tmp_path / f"server{len(started)}", applications, **options)
        s.__enter__()
        started.append(s)
        return s

    yield start
    for s in started:
        s.__exit__(None, None, None)
        show_log(request.node, s)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """As `server`, but one for all tests of a module: `shared("name", [applications])`. Called again
    with the same name it gives the same server."""
    started = {}

    def start(name, applications, **options):
        if name not in started:
            s = Server(tmp_path_factory.mktemp(name), applications, **options)
            s.__enter__()
            started[name] = s
        return started[name]

    yield start
    for s in started.values():
        s.__exit__(None, None, None)
    check_ended()


@pytest.fixture
def gpus(monkeypatch):
    """gpus(2, mib=8192): what the driver says from now on, without any GPU: build/tests/fake_driver
    holds a libnvidia-ml.so.1."""
    driver = BUILD / "tests" / "fake_driver"

    def say(n, mib=8192, visible=None):
        monkeypatch.setenv("LD_LIBRARY_PATH", f"{driver}:{os.environ.get('LD_LIBRARY_PATH', '')}")
        monkeypatch.setenv("FAKE_GPUS", str(n))
        monkeypatch.setenv("FAKE_GPU_MIB", str(mib))
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return say
