# SPDX-License-Identifier: Apache-2.0
"""`device:` of a language model: which backend is chosen, what it is given, what is refused. The
GPU is a fake one and kernels_cuda.so is the CPU's backend under that name, so what is shown here is
all but the kernels; those are shown on a real one, by test_llm_gpu.py."""

import json
import re
import shutil

import llm
import pytest
from harness import BUILD, wait_for

HELLO = {"model": "tiny", "prompt": "Hello", "max_tokens": 4, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def plugins(tmp_path):
    """plugins(cuda=True): a folder with the plugin, its CPU kernels and maybe those called CUDA's."""

    def make(cuda=True):
        folder = tmp_path / "plugins" / "llm"
        folder.mkdir(parents=True)
        for name in ("llm.so", "kernels_cpu.so"):
            shutil.copy(BUILD / "plugins" / "llm" / name, folder / name)
        if cuda:
            shutil.copy(folder / "kernels_cpu.so", folder / "kernels_cuda.so")
        return folder.parent

    return make


def serve(server, plugins, ready="v1/models", **config):
    return server([llm.app(**config)], plugins=plugins, ready={"tiny": ready})


def backend(s):
    (worker,) = s.pids("worker")
    maps = open(f"/proc/{worker}/maps").read()
    return set(re.findall(r"kernels_(\w+)\.so", maps))


def answers(s):
    def ready():
        return s.get("/v1/completions", "POST", json.dumps(HELLO).encode(), timeout=60)

    wait_for("it answers", 30, lambda: ready().status == 200, 0.1)
    return json.loads(ready().body)["choices"][0]["text"]


def failed(s):
    def app():
        return s.status()["applications"]["tiny"]

    wait_for("the deployment failed", 20, lambda: app()["status"] == "DEPLOY_FAILED")
    assert s.pids("worker") == []
    return app()["message"]


def loaded(s):
    """KV MiB, KV type and blocks of the line that the plugin writes when it is loaded."""
    found = re.search(r"KV ([\d.]+) MiB \((\w+), (\d+) blocks of (\d+) bytes", s.log())
    return float(found[1]), found[2], int(found[3]), int(found[4])


def test_auto_takes_the_gpu_and_its_memory(server, gpus, plugins):
    gpus(1, mib=2048)
    s = serve(server, plugins())
    text = answers(s)
    assert backend(s) == {"cuda"} and s.status()["gpus"][0]["replica"] == "tiny/tiny/0"
    kv, kind, blocks, block = loaded(s)
    assert kind == "BF16"
    # 0.9 of the GPU less context and reserve; weights and state are small.
    assert 700 < kv < 0.9 * 2048 - 512 - 256 and blocks * block == pytest.approx(kv * 2**20, rel=1e-3)
    assert "vllm:num_requests_waiting" in s.get("/metrics").body.decode()
    assert text


def test_cpu_leaves_the_gpu_alone_and_answers_the_same(server, gpus, plugins):
    gpus(1)
    s = serve(server, plugins(), device="cpu")
    answers(s)
    assert backend(s) == {"cpu"} and s.status()["gpus"][0]["replica"] is None
    assert loaded(s)[0] == pytest.approx(1024, rel=1e-3)


def test_auto_without_a_gpu_is_the_processor(server, gpus, plugins):
    gpus(0)
    s = serve(server, plugins())
    answers(s)
    assert backend(s) == {"cpu"}


def test_auto_without_cuda_kernels_is_the_processor_and_says_why(server, gpus, plugins):
    gpus(1)
    s = serve(server, plugins(cuda=False))
    answers(s)
    assert backend(s) == {"cpu"} and s.status()["gpus"][0]["replica"] is None
    assert re.search(r"device auto takes the processor: loading the kernels '\S+kernels_cuda.so': ", s.log())


def test_cuda_without_a_gpu_is_refused(server, gpus, plugins):
    gpus(0)
    s = serve(server, plugins(), None, device="cuda")
    assert "device is cuda, but there is no GPU for it" in failed(s)


def test_cuda_without_cuda_kernels_is_refused(server, gpus, plugins):
    gpus(1)
    s = serve(server, plugins(cuda=False), None, device="cuda")
    assert re.search(r"loading the kernels '\S+kernels_cuda.so': ", failed(s))


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(server, gpus, plugins):
    gpus(1, mib=868)  # 0.9 of it are 781; context and reserve take 768
    s = serve(server, plugins(), None)
    said = failed(s)
    assert re.search(r"weights take \d+ MiB, .* together more than the 13 MiB that gpu_memory_utilization 0.9", said)


def test_a_context_that_the_gpu_does_not_hold_is_cut_or_refused(server, gpus, plugins):
    gpus(1, mib=2048)
    folder = plugins()
    s = serve(server, folder, None, kv_cache_bytes="64KiB", max_model_len=512)
    assert re.search(r"max_model_len is 512, but a KV cache of 65536 bytes holds \d+ tokens: raise", failed(s))
    cut = serve(server, folder, kv_cache_bytes="64KiB")
    (card,) = json.loads(cut.get("/v1/models").body)["data"]
    assert card["max_model_len"] < 512


def test_options_that_hold_less_than_the_gpu_are_kept(server, gpus, plugins):
    gpus(1, mib=4096)
    s = serve(server, plugins(), kv_cache_bytes="8MiB", kv_cache_dtype="f16", max_num_seqs=3)
    answers(s)
    kv, kind, _, _ = loaded(s)
    assert kind == "F16" and kv == pytest.approx(8, rel=0.05)


def test_dummy_weights_are_made_up_the_same_each_time(server, tmp_path):
    shape = tmp_path / "shape"
    shutil.copytree(llm.DATA / "tiny-qwen3", shape, ignore=shutil.ignore_patterns("*.safetensors*"))

    def text(**config):
        s = server([llm.app(shape, **config)], plugins=llm.PLUGINS, ready={"tiny": "v1/models"})
        return answers(s)

    first = text(load_format="dummy")
    assert first == text(load_format="dummy") and first
    refused = server([llm.app(shape)], plugins=llm.PLUGINS, ready={"tiny": None})
    assert "model.safetensors" in failed(refused)
