# SPDX-License-Identifier: Apache-2.0
"""Ray Serve's files (tests/data/ray) with nothing changed but `import_path:` lines: they pass `salver
check`, which names what is ignored, and deploy on test plugins. What KubeRay's high-availability
sample shows: user_config changed in place under load."""

import collections
import json
import re
import subprocess
import threading

import pytest
from harness import REPO, SALVER, TEST_PLUGINS, Server, wait_for

FOLDER = REPO / "tests" / "data" / "ray"

Sample = collections.namedtuple("Sample", "plugins gpus ignored idle asks apps")

# Which plugin takes the place of each import_path, GPUs the machine must have, what `check` names as
# ignored, as an old name or as doing nothing, applications that begin without a replica, and requests
# (method, path, body, answer or None).
SAMPLES = {
    "kuberay-sample": Sample(
        ["stand", "stand"],
        0,
        "runtime_env max_replicas_per_node num_cpus OrangeStand PearStand FruitMarket Multiplier Router",
        [],
        [
            ("POST", "/fruit/", b'["MANGO", 2]', b"6"),
            ("POST", "/calc/", b'["ADD", 2]', b"5"),
        ],
        ["fruit_app", "math_app"],
    ),
    "kuberay-high-availability": Sample(
        ["stand"],
        0,
        "runtime_env max_replicas_per_node num_cpus OrangeStand PearStand FruitMarket",
        [],
        [("POST", "/fruit/", b'["MANGO", 12]', b"36")],
        ["fruit_app"],
    ),
    "kuberay-llm-serve": Sample(
        ["fake_step"], 0, "args", [], [("POST", "/v1/chat/completions", b"{}", None)], ["llms"]
    ),
    "kuberay-stable-diffusion": Sample(
        ["fake_run"],
        2,
        "runtime_env APIIngress",
        [],
        [("GET", "/imagine?prompt=a%20cute%20cat", None, None)],
        ["stable_diffusion"],
    ),
    "kuberay-text-summarizer": Sample(
        ["fake_run"],
        0,
        "runtime_env",
        [],
        [("GET", "/summarize?text=a", None, None)],
        ["text_summarizer"],
    ),
    "kuberay-mobilenet": Sample(
        ["fake_run"],
        0,
        "runtime_env num_cpus",
        [],
        [("POST", "/", b"image", None)],
        ["mobilenet"],
    ),
    "whisper-streaming": Sample(
        ["fake_step"],
        3,
        "proxy_location runtime_env max_concurrent_queries target_num_ongoing_requests_per_replica "
        "TranscriptionServer PyannoteVAD 0.0.0.0",
        [],
        [("GET", "/", None, None)],
        ["whisper"],
    ),
    "arcadia-llm": Sample(
        ["fake_step"],
        0,
        "runtime_env",
        ["llm-serving-app"],
        [("POST", "/v1/completions", b"{}", None)],
        ["llm-serving-app"],
    ),
    "text-classification": Sample(
        ["fake_run"],
        1,
        "proxy_location grpc_options logs_dir runtime_env num_cpus APIIngress 0.0.0.0",
        ["distilbert"],
        [("GET", "/classify?sentence=This%20was%20a%20masterpiece.", None, None)],
        ["distilbert"],
    ),
    "object-detection": Sample(
        ["fake_run"],
        2,
        "runtime_env accelerator_type metrics_interval_s smoothing_factor APIIngress 0.0.0.0",
        [],
        [("GET", "/detect?image_url=https://example.org/a.jpg", None, None)],
        ["yolov5"],
    ),
}


def ours(name):
    """The file's text with `plugin:` in the place of `import_path:`."""
    plugins = iter(SAMPLES[name].plugins)
    text = (FOLDER / f"{name}.yaml").read_text()
    return re.sub(r"import_path: .*", lambda _: f"plugin: {next(plugins)}", text)


def test_all_samples_are_here():
    assert {p.stem for p in FOLDER.glob("*.yaml")} == set(SAMPLES)


def check(path):
    return subprocess.run(
        [SALVER, "check", path, "--plugins", TEST_PLUGINS],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_check_names_what_is_ignored(name, tmp_path):
    path = tmp_path / "app.yaml"
    path.write_text(ours(name))
    got = check(path)
    lines = got.stderr.splitlines() + got.stdout.splitlines()
    assert got.returncode == 0, lines
    warned = set()
    for line in lines:
        if m := re.search(r"warning: (?:deployment )?'(\S+)' (means nothing|does nothing|is an old)", line):
            warned.add(m.group(1))
        elif m := re.search(r"warning: host (\S+) lets everybody", line):
            warned.add(m.group(1))
        else:
            assert "warning" not in line, line
    assert warned == set(SAMPLES[name].ignored.split())


@pytest.mark.parametrize("name", SAMPLES)
def test_as_written_it_says_what_to_change(name):
    """An import_path is the one thing that must change, and each is named."""
    got = check(FOLDER / f"{name}.yaml")
    errors = [line for line in got.stderr.splitlines() if "warning" not in line]
    assert got.returncode == 2
    assert len([e for e in errors if "'import_path: " in e and "write 'plugin: NAME'" in e]) == len(
        SAMPLES[name].plugins
    )


class FileServer(Server):
    """A server of one text, as it is; host and port come from the command line."""

    def __init__(self, folder, text):
        super().__init__(folder, [])
        self.file.write_text(text)
        self.command += ["--host", "127.0.0.1", "--port", self.port]


def state_of(server, app):
    return server.status()["applications"][app]["status"]


@pytest.mark.parametrize("name", SAMPLES)
def test_it_deploys(name, tmp_path, gpus):
    sample = SAMPLES[name]
    gpus(sample.gpus)
    with FileServer(tmp_path, ours(name)) as server:
        for app in sample.apps:
            wait_for(f"{app} runs", 20, lambda app=app: state_of(server, app) == "RUNNING")
        if sample.idle:
            assert server.pids("worker") == []
        for method, path, body, want in sample.asks:
            answer = server.get(path, method, body)
            assert answer.status == 200, answer
            if want is not None:
                assert answer.body == want
            else:
                assert json.loads(answer.body)["path"].startswith("/")
        assert server.pids("worker") != []


# ---- KubeRay's high availability ---------------------------------------------------------------


class Buyers:
    """Threads that buy 12 mangos each, again and again, each on a connection of its own for every
    request as requests.post() does."""

    def __init__(self, server, n):
        self.server = server
        self.over = threading.Event()
        self.failed, self.prices, self.pids = [], [], set()
        self.threads = [threading.Thread(target=self.buy) for _ in range(n)]
        for t in self.threads:
            t.start()

    def buy(self):
        while not self.over.is_set():
            try:
                answer = self.server.get("/fruit/", "POST", b'["MANGO", 12]')
                if answer.status != 200:
                    self.failed.append(answer)
                    continue
                self.prices.append(int(answer.body) // 12)
                self.pids.add(int(answer.headers["x-pid"]))
            except (OSError, ValueError) as e:
                self.failed.append(e)

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join()


def deploy(server, text, *options):
    """salver deploy; its result."""
    server.file.write_text(text)
    return subprocess.run(
        [SALVER, "deploy", server.file, "--state", server.state, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


def deployed(server, text):
    got = deploy(server, text)
    assert got.returncode == 0, got.stderr


def test_user_config_changes_in_place(tmp_path):
    text = ours("kuberay-high-availability")
    with FileServer(tmp_path, text) as server:
        wait_for("it runs", 20, lambda: state_of(server, "fruit_app") == "RUNNING")
        wait_for("both run", 20, lambda: len(server.pids("worker")) == 2)
        before = sorted(server.pids("worker"))
        buyers = Buyers(server, 4)
        try:
            wait_for("all buy", 10, lambda: len(buyers.prices) >= 40)
            for price in (4, 5, 6, 7):
                seen = len(buyers.prices)
                deployed(server, text.replace("price: 3", f"price: {price}"))
                wait_for(
                    f"everybody pays {price}",
                    10,
                    lambda price=price: buyers.prices[seen:][-40:] == [price] * 40,
                )
        finally:
            buyers.stop()
        assert buyers.failed == []
        assert len(buyers.prices) > 200
        assert sorted(server.pids("worker")) == before == sorted(buyers.pids)
        assert set(buyers.prices) == {3, 4, 5, 6, 7}
        replicas = server.status()["applications"]["fruit_app"]["deployments"]["MangoStand"]["replicas"]
        assert [r["restarts"] for r in replicas] == [0, 0]


def test_a_refused_price_changes_nothing(tmp_path):
    """reconfigure() says no: the old one holds, status says why, nothing is restarted."""
    text = ours("kuberay-high-availability")
    with FileServer(tmp_path, text) as server:
        wait_for("both run", 20, lambda: len(server.pids("worker")) == 2)
        before = sorted(server.pids("worker"))
        wait_for("it runs", 20, lambda: state_of(server, "fruit_app") == "RUNNING")
        deployed(server, text.replace("price: 3", "price: -1"))
        wait_for(
            "status says why",
            10,
            lambda: "a price is not below 0" in json.dumps(server.status()["applications"]["fruit_app"]),
        )
        for _ in range(10):
            assert server.get("/fruit/", "POST", b'["MANGO", 12]').body == b"36"
        assert sorted(server.pids("worker")) == before


def test_dry_run_says_that_it_is_live(tmp_path):
    text = ours("kuberay-high-availability")
    with FileServer(tmp_path, text) as server:
        wait_for("it runs", 20, lambda: state_of(server, "fruit_app") == "RUNNING")
        got = deploy(server, text.replace("price: 3", "price: 4"), "--dry-run")
        assert got.returncode == 0, got.stderr
        (line,) = [x for x in got.stdout.splitlines() if "price" in x]
        assert "config.price" in line and "live" in line
        assert server.get("/fruit/", "POST", b'["MANGO", 12]').body == b"36"
