# SPDX-License-Identifier: Apache-2.0
"""`make bench K=llm`: the LLM plugin against llama.cpp, SmolLM2-135M in three formats, interleaved.

Ours is what a user gets: a server, HTTP, /v1/completions with token ids, greedy, streamed; "engine" is what the
same model does without a server (llm_rates.c). llama.cpp is driven
in its own process through llama_decode, and once through llama-cpp-python's own generator ("plain"), without
any server. See README.md for what each figure is.

Environment, beside run.py's: BENCH_LLAMA_PYTHON a python that has llama_cpp (built by setup_llama.sh
otherwise), BENCH_FORMATS "Q4_1 Q8_0 BF16", BENCH_THREADS "1 2".
"""

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests" / "e2e"), str(REPO / "tests" / "tools"), str(REPO / "bench")]
import fetch_model  # noqa: E402
import harness  # noqa: E402
from llm_client import complete  # noqa: E402

QUICK = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 1 if QUICK else 5))
FORMATS = os.environ.get("BENCH_FORMATS", "Q4_1" if QUICK else "Q4_1 Q8_0 BF16").split()
THREADS = [int(t) for t in os.environ.get("BENCH_THREADS", "1 2").split()]
SEQS = 16
PROMPT, SHORT, DECODE = {1: 512, SEQS: 128}, 16, 64  # tokens; PROMPT: by the number of requests
CONTEXT = 1024
VOCAB = (1000, 49152)  # ids of prompts: words, not special tokens
MODEL = "m"
NAMES = {
    "default": "ours",
    "engine": "ours, engine",
    "int8": "ours, int8 activations",
    "llama": "llama.cpp",
    "plain": "llama.cpp, plain",
}
OURS = ("default", "engine", "int8")


# ---- what is measured --------------------------------------------------------------------------


def ids(n):
    return [random.randrange(*VOCAB) for _ in range(n)]


class Ours:
    """A server with one model."""

    def __init__(self, folder, path, threads, activations):
        config = {
            "model": str(path),
            "served_model_name": [MODEL],
            "threads": threads,
            "activations": activations,
            "max_model_len": CONTEXT,
            "max_num_seqs": SEQS,
            "kv_cache_bytes": SEQS * CONTEXT * 30 * 2 * 192 * 4 + (1 << 20),  # of f32, rounded up
        }
        app = {"name": "llm", "route_prefix": "/", "plugin": "llm", "deployments": [{"name": MODEL, "config": config}]}
        self.server = harness.Server(folder, [app], plugins=harness.BUILD / "plugins", ready={"llm": "v1/models"})
        self.server.__enter__()
        harness.wait_for("the model answers", 60, self.answers, 0.05)

    def answers(self):
        try:
            complete(self.server.port, [ids(4)], 1, MODEL)
        except (OSError, RuntimeError):
            return False
        return True

    def prompt(self, seqs):
        begin, answers = complete(self.server.port, [ids(PROMPT[seqs]) for _ in range(seqs)], 1, MODEL)
        return seqs * PROMPT[seqs] / (max(a.first for a in answers) - begin)

    def decode(self, seqs):
        _, answers = complete(self.server.port, [ids(SHORT) for _ in range(seqs)], DECODE, MODEL)
        assert all(a.tokens == DECODE for a in answers), [a.tokens for a in answers]
        return seqs * (DECODE - 1) / (max(a.last for a in answers) - min(a.first for a in answers))

    def finish(self):
        self.server.__exit__(None, None, None)


class Llama:
    def __init__(self, path, threads):
        self.threads = threads
        command = [python(), REPO / "bench" / "llm_peer.py", path, SEQS, CONTEXT]
        self.process = subprocess.Popen(
            [str(w) for w in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self.ask(op="about")

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def rate(self, **what):
        got = self.ask(threads=self.threads, **what)
        return got["tokens"] / got["s"]

    def prompt(self, seqs):
        return self.rate(op="prompt", seqs=seqs, n=PROMPT[seqs])

    def decode(self, seqs):
        return self.rate(op="decode", seqs=seqs, prompt=SHORT, n=DECODE)

    def plain(self):
        return self.rate(op="plain", prompt=SHORT, n=DECODE)

    def finish(self):
        self.process.stdin.close()
        self.process.wait(30)


def engine_rates(path, threads, seqs):
    """(prompt, decode) without a server."""
    command = [harness.TOOLS / "llm_rates", path, threads, "auto", seqs]

    def rate(prompt, tokens, what):
        out = subprocess.run(
            [str(w) for w in (*command, prompt, tokens, 1)], capture_output=True, check=True, text=True
        ).stdout
        return json.loads(out.splitlines()[-1])[what]

    return rate(PROMPT[seqs], 1, "prompt"), rate(SHORT, DECODE, "decode")


def stream_bandwidth(size, threads):
    out = subprocess.run([harness.TOOLS / "stream", str(size), str(threads), "0.5"], capture_output=True, check=True)
    return float(out.stdout)


# ---- set-up ------------------------------------------------------------------------------------


def python():
    given = os.environ.get("BENCH_LLAMA_PYTHON")
    if given:
        return given
    subprocess.run([REPO / "bench" / "setup_llama.sh"], check=True, stdout=sys.stderr)
    return REPO / ".cache" / "bench-venv" / "bin" / "python"


def models():
    source = fetch_model.fetch("smollm2", fetch_model.CACHE, fetch_model.PINS)
    paths = {f: source.with_name(f"{source.name.split('.')[0]}.{f}.gguf") for f in FORMATS}
    if not all(p.exists() for p in paths.values()):
        command = [python(), REPO / "bench" / "make_models.py", source, source.parent]
        subprocess.run([str(w) for w in command], check=True, stdout=sys.stderr)
    return paths


def processor():
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", text)
    flags = set(re.search(r"(?:flags|Features)\s*: (.*)", text).group(1).split())
    wanted = "avx2 fma f16c avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16 asimddp i8mm"
    return name.group(1) if name else os.uname().machine, [f for f in wanted.split() if f in flags]


# ---- tables ------------------------------------------------------------------------------------


def spread(values, digits=1):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def measure(path, folder, threads):
    """{(what, who): [tokens/s of each round]} and llama.cpp's description."""
    ours = {a: Ours(f"{folder}/{a}", path, threads, {"default": "auto"}.get(a, a)) for a in ("default", "int8")}
    peer = Llama(path, threads)
    rates, floor = {}, []

    def note(what, who, rate):
        rates.setdefault((what, who), []).append(rate)

    try:
        for _ in range(ROUNDS):
            floor.append(stream_bandwidth(peer.about["bytes"], threads))
            for seqs in (1, SEQS):
                for who, engine in [*ours.items(), ("llama", peer)]:
                    note(f"prompt {seqs}", who, engine.prompt(seqs))
                    note(f"decode {seqs}", who, engine.decode(seqs))
                prompt, decode = engine_rates(path, threads, seqs)
                note(f"prompt {seqs}", "engine", prompt)
                note(f"decode {seqs}", "engine", decode)
            note("decode 1", "plain", peer.plain())
    finally:
        for engine in [*ours.values(), peer]:
            engine.finish()
    return rates, floor, peer.about


def print_table(name, threads, rates, floor, about):
    print(f"\n### {name}, {threads} thread{'s' if threads > 1 else ''}\n")
    print(f"Weights {about['bytes'] / 1e6:.0f} MB, read in order at {spread([f / 1e9 for f in floor])} GB/s.\n")
    print("| | tokens/s: median (min-max) | to llama.cpp | share of the stream |\n|---|---|---|---|")
    for (what, who), values in sorted(rates.items(), key=lambda r: (r[0][0].split()[0], int(r[0][0].split()[1]))):
        kind, seqs = what.split()
        label = f"{kind}, {seqs} request{'' if seqs == '1' else 's'}: {NAMES[who]}"
        median, peer = statistics.median(values), statistics.median(rates[what, "llama"])
        ratio = f"{median / peer:.2f}" if who in OURS else ""
        # Each step of a decoder reads all weights once, whatever the number of requests.
        share = median / int(seqs) * about["bytes"] / statistics.median(floor)
        print(f"| {label} | {spread(values)} | {ratio} | {f'{share:.2f}' if kind == 'decode' else ''} |")
    sys.stdout.flush()


def start(path, folder):
    """From exec to the first token, by the server's own log and the client's clock."""
    taken = []
    for i in range(ROUNDS + 1):  # the first warms the page cache
        port, state = harness.free_port(), f"{folder}/state{i}"
        log = open(f"{folder}/log{i}", "w+", encoding="utf-8")
        command = [harness.SALVER, "serve", "--plugin", "llm", "--model", path, "--port", port, "--state", state]
        command += ["--plugins", harness.BUILD / "plugins", "--threads", max(THREADS), "--max_model_len", CONTEXT]
        begin, wall = time.monotonic(), time.time()
        process = subprocess.Popen([str(w) for w in command], stdout=log, stderr=log)
        try:
            taken.append(one_start(port, begin, wall, f"{folder}/log{i}"))
        finally:
            process.terminate()
            process.wait(30)
    print("\n### From exec to the first token\n")
    print(f"`salver serve --plugin llm --model {path.name}`, {max(THREADS)} threads, page cache warm, "
          f"prompt of {SHORT} tokens; ms, median (min-max) of {ROUNDS}\n")  # fmt: skip
    print("| | ms |\n|---|---|")
    for key in taken[0]:
        print(f"| {key} | {spread([1e3 * t[key] for t in taken[1:]])} |")


def log_time(path, pattern):
    for line in Path(path).read_text().splitlines():
        if re.search(pattern, line):
            return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
    return float("nan")


def one_start(port, begin, wall, log):
    prompt = ids(SHORT)
    while True:
        try:
            sent, (answer,) = complete(port, [prompt], 1, None)
            break
        except (ConnectionError, RuntimeError):
            if time.monotonic() - begin > 60:
                raise
            time.sleep(0.0005)
    _, (again,) = complete(port, [ids(SHORT)], 1, None)
    loaded = log_time(log, r"ready: plugin llm") - wall
    whole = answer.first - begin
    return {
        "exec to the first connection accepted": sent - begin,
        "exec to the model loaded and warm (log)": loaded,
        "loaded to the first token": whole - loaded,
        "exec to the first token": whole,
        "the same request again": again.first - _,
    }


def fairness(path, folder):
    """Decode at two threads while every core is busy with somebody else's loop."""
    ours, peer = Ours(f"{folder}/fair", path, max(THREADS), "auto"), Llama(path, max(THREADS))
    alone, busy = {"ours": [], "llama.cpp": []}, {"ours": [], "llama.cpp": []}

    def one(into):
        into["ours"].append(ours.decode(1))
        into["llama.cpp"].append(peer.decode(1))

    try:
        for _ in range(ROUNDS):
            one(alone)
        loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count())]
        try:
            for _ in range(max(1, ROUNDS // 2)):
                one(busy)
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
    finally:
        ours.finish()
        peer.finish()
    print(f"\n### Decode at {max(THREADS)} threads beside one busy loop a core, at the same priority\n")
    print("| | alone, tokens/s | beside the loops | share kept |\n|---|---|---|---|")
    for who in alone:
        kept = statistics.median(busy[who]) / statistics.median(alone[who])
        print(f"| {who} | {spread(alone[who])} | {spread(busy[who])} | {kept:.2f} |")
    sys.stdout.flush()


def run(folder):
    paths = models()
    name, flags = processor()
    print("## Language models: SmolLM2-135M-Instruct against llama.cpp\n")
    print(f"{name}, {os.cpu_count()} cores, {' '.join(flags)}. {ROUNDS} rounds, interleaved.")
    print(f"Prompt: {PROMPT[1]} random tokens, {PROMPT[SEQS]} each of {SEQS} requests. Decode: {DECODE} tokens after {SHORT}, greedy.")
    first = True
    for fmt, path in paths.items():
        for threads in THREADS:
            with tempfile.TemporaryDirectory(dir=folder) as inner:
                rates, floor, about = measure(path, inner, threads)
            if first:
                print(f"llama.cpp of llama-cpp-python {about['version']}: {' '.join(about['features'])}.")
                first = False
            print_table(fmt, threads, rates, floor, about)
    start(paths[FORMATS[0]], folder)
    fairness(paths[FORMATS[0]], folder)
