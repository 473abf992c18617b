# SPDX-License-Identifier: Apache-2.0
"""GPUs counted, offered, given and waited for, on a machine without any: build/tests/fake_driver
holds a libnvidia-ml.so.1 with $FAKE_GPUS GPUs."""

import json
import os
import re
import signal
import subprocess

import pytest
from harness import SALVER, TEST_PLUGINS, application, wait_for

UUID = "GPU-%02dfa0e00-0000-4000-8000-000000000000"


def gpu_app(name, n, replicas=1, plan=True, **deployment):
    config = {"devices": n, "device_bytes": "1GiB"} if plan else {}
    return application(name, "fake_step", config, num_replicas=replicas, **deployment)


def devices_said(server):
    pattern = r"worker \S+ device (\d+): kind (\d), (\S+), (\d+) bytes of Fake GPU; visible (\S+)"
    return re.findall(pattern, server.log())  # said once, and not as last words


def app_status(server, name):
    return server.status()["applications"][name]


def waits(server, name):
    return "waits for" in app_status(server, name)["message"]


def count(visible=None, **env):
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    out = subprocess.run([SALVER, "count-gpus"], capture_output=True, timeout=20, check=True, env={**os.environ, **env})
    return json.loads(out.stdout)


def test_each_replica_gets_a_gpu_of_its_own(server, gpus):
    gpus(3)
    s = server([gpu_app("one", 1, replicas=2)])
    said = sorted(devices_said(s), key=lambda d: d[2])
    assert said == [("0", "1", UUID % i, str(8 << 30), UUID % i) for i in range(2)]
    status = s.status()
    assert [g["replica"] for g in status["gpus"]] == ["one/one/0", "one/one/1", None]


def test_a_replica_of_two_gpus_sees_both(server, gpus):
    gpus(2)
    s = server([gpu_app("two", 2, ray_actor_options={"num_gpus": 2})])
    visible = ",".join(UUID % i for i in range(2))
    assert sorted(devices_said(s)) == [(str(i), "1", UUID % i, str(8 << 30), visible) for i in range(2)]


def test_without_a_free_gpu_a_replica_waits_and_says_so(server, gpus):
    gpus(1)
    s = server([gpu_app("a", 1, replicas=2)], ready={"a": None})
    wait_for("one runs", 20, lambda: len(s.pids("worker")) == 1)
    wait_for("the other waits", 10, lambda: waits(s, "a"))
    assert s.get("/a/?n=1&us=0").status == 200  # the one that has a GPU serves
    status = app_status(s, "a")
    assert status["status"] == "DEPLOYING"
    assert status["message"] == "waits for 1 GPU: of 1 in this machine 0 are free"
    states = [r["state"] for r in status["deployments"]["a"]["replicas"]]
    assert sorted(states) == ["PENDING", "RUNNING"]
    assert s.log().count("waits for 1 GPU") == 1


def test_a_worker_that_dies_keeps_its_gpu(server, gpus):
    gpus(2)
    s = server([gpu_app("a", 1, replicas=2)])
    before = s.status()["gpus"]
    os.kill(s.pids("worker")[0], signal.SIGKILL)
    wait_for("it is there again", 20, lambda: len(devices_said(s)) == 3)
    assert s.status()["gpus"] == before
    said = [d[2] for d in devices_said(s)]
    assert said.count(said[2]) == 2


def test_a_replaced_control_gives_no_gpu_twice(server, gpus):
    gpus(2)
    s = server([gpu_app("a", 1), gpu_app("b", 1)])
    before = s.status()["gpus"]
    (control,) = s.pids("control")
    os.kill(control, signal.SIGKILL)
    wait_for("a new control", 20, lambda: s.pids("control") not in ([], [control]))
    wait_for("it answers", 10, lambda: s.status()["controller_info"]["restarts"] == 1)
    assert s.status()["gpus"] == before and s.log().count("GPU 0: Fake GPU") == 1
    assert s.get("/a/?n=1&us=0").status == 200 and s.get("/b/?n=1&us=0").status == 200


def test_a_new_server_counts_anew(server, gpus):
    gpus(2)
    s = server([gpu_app("a", 1)])
    assert len(s.status()["gpus"]) == 2
    s.__exit__()
    gpus(1)
    with s:
        assert len(s.status()["gpus"]) == 1


@pytest.mark.parametrize(
    "config, says",
    [
        ({"devices": 3, "device_bytes": "1GiB"}, "a replica needs 3 GPUs, but this machine has 2"),
        (
            {"devices": 1, "device_bytes": "8GiB"},
            "a replica needs 8704 MiB of GPU memory (8192 by its plan, 512 for the CUDA context), "
            "but the smallest GPU has 8192 MiB",
        ),
    ],
)
def test_what_never_fits_is_refused_before_a_worker_is_started(server, gpus, config, says):
    gpus(2)
    s = server([application("a", "fake_step", config)], ready={"a": None})
    wait_for("the deployment failed", 20, lambda: app_status(s, "a")["status"] == "DEPLOY_FAILED")
    assert app_status(s, "a")["message"] == says
    assert s.pids("worker") == [] and [g["replica"] for g in s.status()["gpus"]] == [None, None]


def test_a_plugin_that_knows_no_gpus_takes_none_unless_the_file_says_so(server, gpus):
    gpus(1)
    plain = application("plain", "fake_step", num_replicas=2)
    s = server([plain, application("asks", "fake_run", ray_actor_options={"num_gpus": 0.5})])
    assert [g["replica"] for g in s.status()["gpus"]] == ["asks/asks/0"]
    assert "num_gpus is 0.5; each replica gets 1 whole" in s.log()


def test_num_gpus_without_gpus_warns_and_is_not_waited_for(server, gpus):
    gpus(0)
    s = server([application("a", "fake_step", ray_actor_options={"num_gpus": 1})])
    assert s.get("/a/?n=1&us=0").status == 200
    assert "num_gpus 1 is not waited for: its replicas run without a GPU" in s.log()


def test_a_broken_driver_is_told(server, gpus):
    gpus("broken")
    s = server([application("a", "fake_step", {"devices": 1, "device_bytes": "1GiB"})], ready={"a": None})
    wait_for("the deployment failed", 20, lambda: app_status(s, "a")["status"] == "DEPLOY_FAILED")
    why = "NVML says: Driver/library version mismatch (18)"
    assert app_status(s, "a")["message"] == f"a replica needs 1 GPU, but this machine has 0: {why}"
    assert f"no GPU is used: {why}" in s.log()


def test_a_sick_driver_hangs_nobody_for_long(server, gpus):
    gpus("sick")
    s = server([application("a", "fake_step")], ready={"a": None})
    wait_for("it serves", 30, lambda: s.get("/a/?n=1&us=0", timeout=30).status == 200, 0.2)
    assert "the driver did not answer within 10 s" in s.log()


def test_cuda_visible_devices_is_obeyed(gpus):
    gpus(3)
    uuids = [UUID % i for i in range(3)]
    assert [g["uuid"] for g in count()["gpus"]] == uuids
    assert [g["uuid"] for g in count("2,0")["gpus"]] == [uuids[2], uuids[0]]
    assert [g["uuid"] for g in count("GPU-01f,9,0")["gpus"]] == [uuids[1]]
    assert count("")["gpus"] == [] and count("-1")["gpus"] == []
    assert count()["gpus"][0]["bytes"] == 8 << 30  # what the driver keeps for itself is not counted


def test_check_knows_the_gpus(tmp_path, gpus):
    gpus(1)
    file = tmp_path / "app.yaml"
    file.write_text(json.dumps({"applications": [gpu_app("a", 1)]}))
    out = subprocess.run([SALVER, "check", file, "--plugins", TEST_PLUGINS], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
