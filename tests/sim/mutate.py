#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants the faults of mutations.txt one by one and says which law of the simulator caught which.

    tests/sim/mutate.py [--build build] [--seeds 500] [--cc cc] [NAME...]

Prints a Markdown table. Exit 1 when one was not caught, or is no longer found in its file. The sources stay as they are:
a mutated copy is compiled beside the objects of the others.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
DECIDERS = ["control/scale", "control/past", "control/roll", "control/replica", "supervise/restart", "worker/slots",
            "serve/queue", "serve/pick"]
FLAGS = ["-std=c11", "-O2", "-D_GNU_SOURCE", f"-I{ROOT}/core", f"-I{ROOT}/tests/sim", "-w"]
RUN_LIMIT_S = 300


def read_mutations():
    found, name = {}, None
    for line in (ROOT / "tests/sim/mutations.txt").read_text().splitlines():
        if line.startswith("== "):
            name, what = line[3:].split(": ", 1)
            found[name] = {"what": what, "file": None, "old": "", "new": ""}
        elif line.startswith("in "):
            found[name]["file"] = line[3:].strip()
        elif line.startswith(("- ", "+ ")):
            found[name]["old" if line[0] == "-" else "new"] += line[2:].strip() + "\n"
    return found


def mutated(m):
    text = (ROOT / m["file"]).read_text()
    words = re.findall(r"\w+|[^\w\s]", m["old"])
    hits = list(re.finditer(r"\s*".join(map(re.escape, words)), text))
    if len(hits) != 1:
        sys.exit(f"mutate: {len(hits)} places in {m['file']} read\n{m['old']}make mutations.txt follow the source")
    return text[:hits[0].start()] + m["new"].strip() + text[hits[0].end():]


def compile_one(cc, source, out):
    subprocess.run([cc, *FLAGS, f"-I{source.parent}", "-c", str(source), "-o", str(out)], check=True)


def link(cc, objects, build, out):
    libs = subprocess.run(["pkg-config", "--libs", "libuv", "libcrypto"], check=True, capture_output=True, text=True)
    subprocess.run([cc, *map(str, objects), f"{build}/libcore_base.a", *libs.stdout.split(), "-lpthread", "-lm", "-o",
                    str(out)], check=True)


def objects_of(cc, folder):
    made = {}
    for source in sorted((ROOT / "tests/sim").glob("*.c")) + [ROOT / f"core/{d}.c" for d in DECIDERS]:
        out = folder / (str(source.relative_to(ROOT)).replace("/", "_") + ".o")
        compile_one(cc, source, out)
        made[str(source.relative_to(ROOT))] = out
    return made


def try_one(args, m, folder, objects):
    copy = folder / pathlib.Path(m["file"]).name
    copy.write_text(mutated(m))
    out, sim = folder / "mutated.o", folder / "sim"
    subprocess.run([args.cc, *FLAGS, f"-I{(ROOT / m['file']).parent}", "-c", str(copy), "-o", str(out)], check=True)
    link(args.cc, [out if name == m["file"] else o for name, o in objects.items()], args.build, sim)
    try:
        run = subprocess.run([str(sim), "1", str(args.seeds)], capture_output=True, text=True, timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        return None, "does not end", ""
    if run.returncode == 0:
        return None
    if found := re.search(r"seed (\d+) broke '(.*?)' after ([\d.]+) s", run.stderr):
        return found[1], found[2], found[3]
    seed = re.search(r"seed (\d+) broke a CHECK", run.stderr)
    check = re.search(r"BUG .*?([\w./]+:\d+): (.*)", run.stderr)
    return seed[1] if seed else "?", f"`CHECK` {check[1].split('/')[-1]}" if check else "crash", ""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default=ROOT / "build")
    p.add_argument("--seeds", type=int, default=500)
    p.add_argument("--cc", default="cc")
    p.add_argument("names", nargs="*")
    args = p.parse_args()
    missed = 0
    print("| planted in | fault | seed | law that it broke | after s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        objects = objects_of(args.cc, folder)
        for name, m in read_mutations().items():
            if args.names and name not in args.names:
                continue
            hit = try_one(args, m, folder, objects)
            missed += hit is None
            seed, law, after = hit or ("-", "**none**", "")
            print(f"| {pathlib.Path(m['file']).name} | {m['what']} | {seed} | {law} | {after} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
