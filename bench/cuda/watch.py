# SPDX-License-Identifier: Apache-2.0
"""Memory of a server's processes and of the GPU, sampled until it is ended; a line each time.

Usage: watch.py SUPERVISOR_PID SECONDS
"""

import subprocess
import sys
import time
from pathlib import Path


def family(pid):
    """The process and its children: [(role, pid)]."""
    found = [("supervisor", pid)]
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid:
                found.append(((entry / "cmdline").read_bytes().split(b"\0")[1].decode(), int(entry.name)))
        except (OSError, IndexError, ValueError):
            continue
    return found


def mib(pid, field):
    """VmRSS counts pages of the weights' file; RssAnon is what a leak shows in."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0


def device():
    query = ["nvidia-smi", "--query-gpu=memory.used,utilization.gpu,clocks.sm,power.draw",
             "--format=csv,noheader,nounits"]  # fmt: skip
    said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return said.stdout.strip().split("\n")[0]


def main():
    pid, every = int(sys.argv[1]), float(sys.argv[2])
    begin = time.monotonic()
    print("seconds; GPU MiB, busy %, MHz, W; anonymous MiB of each process", flush=True)
    while Path(f"/proc/{pid}").exists():
        try:
            host = ", ".join(f"{role} {mib(p, 'RssAnon'):.1f}" for role, p in sorted(family(pid)))
            print(f"{time.monotonic() - begin:.0f}; {device()}; {host}", flush=True)
        except OSError:  # a process that ended meanwhile
            pass
        time.sleep(every)


if __name__ == "__main__":
    main()
