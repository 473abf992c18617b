# SPDX-License-Identifier: Apache-2.0
"""What `make dist` packs: every library is in the folder or on every system, and it serves from wherever it is
copied to, with an empty environment."""

import json
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest
from harness import BUILD, REPO, SANITIZED, children, free_port, wait_for
from llm import TINY

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitized build is not for others")

EVERYWHERE = re.compile(r"(libc|libm|libpthread|libdl|librt)\.so\.\d|ld-linux-.*\.so\.\d")
WITH_CUDA = {"libcublasLt.so.13"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder out of the archive, far from where it was built."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        ["cmake/dist.sh", BUILD, out], cwd=REPO, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (archive,) = out.glob("*.tar.gz")
    assert archive.stat().st_size < 40 << 20
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with tarfile.open(archive) as tar:
        tar.extractall(elsewhere)
    shutil.rmtree(out)
    (folder,) = elsewhere.iterdir()
    return folder


def dynamic(path):
    said = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, timeout=20, check=True)
    return (
        re.findall(r"\(NEEDED\).*\[(.*)\]", said.stdout),
        re.findall(r"\((RPATH|RUNPATH)\).*\[(.*)\]", said.stdout),
    )


def elf_files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.read_bytes()[:4] == b"\x7fELF"]


def test_libraries(unpacked):
    inside = {p.name for p in (unpacked / "lib").iterdir()}
    files = elf_files(unpacked)
    assert {"salver", "llm.so", "kernels_cpu.so"} <= {p.name for p in files}
    assert {"libuv.so.1", "libcrypto.so.3"} <= inside
    for path in files:
        needed, paths = dynamic(path)
        for name in needed:
            known = name in inside or EVERYWHERE.fullmatch(name)
            assert known or (path.name == "kernels_cuda.so" and name in WITH_CUDA), (path, name)
        if path.name == "salver":
            assert paths == [("RPATH", "$ORIGIN/../lib")]
        elif path.name != "kernels_cuda.so":
            assert not paths, path  # else the binary's would not count


def mapped(pid):
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if ".so" in line}


def test_serves_with_an_empty_environment(unpacked, tmp_path):
    port = free_port()
    command = [unpacked / "bin" / "salver", "serve", "--plugin", "llm", "--model", TINY, "--port", port,
               "--state", tmp_path / "state", "--device", "cpu"]  # fmt: skip
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(
            [str(c) for c in command], env={}, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        body = json.dumps({"prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}).encode()

        def answer():
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                url = f"http://127.0.0.1:{port}/v1/completions"
                with urllib.request.urlopen(url, body, timeout=20) as got:
                    return json.load(got)
            except OSError:
                time.sleep(0.1)
                return None

        assert wait_for("an answer", 30, answer)["usage"]["completion_tokens"] == 4
        ours = {p.name for p in (unpacked / "lib").iterdir()}
        found = children(server.pid)
        assert any(c.role == "worker" for c in found)
        for pid in [server.pid, *(c.pid for c in found)]:
            for path in mapped(pid):
                name = Path(path).name
                assert name not in ours or path == str(unpacked / "lib" / name), path
        worker = next(c.pid for c in found if c.role == "worker")
        assert any("pcre2" in path for path in mapped(worker))
    finally:
        server.terminate()
        server.wait(30)
