# SPDX-License-Identifier: Apache-2.0
"""A plugin's files may be overwritten while it serves (issue 3, point 6)."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from harness import REPO, Load, Server, application, figures, size, wait_for

PLUGIN = """
#include "plugin.h"
const char *brought(void);
static int run(void *self, sv_req **reqs, uint32_t n)
{
    (void)self;
    for (uint32_t i = 0; i < n; i++)
        sv_reply(reqs[i], "text/plain", brought(), strlen(brought()));
    return SV_OK;
}
SV_PLUGIN(.name = "brings", .version = VERSION, .run = run);
"""
# Large enough that an overwritten mapping would show: the answer is read from its pages each time.
LIBRARY = """
static const char text[1 << 16] = VERSION;
const char *brought(void);
const char *brought(void) { return text; }
"""


def compile_so(out, source, version, *more):
    source_file = out.with_suffix(f".{version}.c")
    source_file.write_text(source)
    subprocess.run(
        [
            os.environ.get("CC", "cc"),
            "-std=c11",
            "-shared",
            "-fPIC",
            f'-DVERSION="{version}"',
            f"-I{REPO}/core/abi",
            str(source_file),
            "-o",
            str(out),
            *map(str, more),
        ],
        check=True,
    )
    source_file.unlink()


def build(folder, version):
    """folder/brings/brings.so, which needs the libbrought.so beside it."""
    home = Path(folder) / "brings"
    home.mkdir(parents=True)
    compile_so(home / "libbrought.so", LIBRARY, version)
    compile_so(home / "brings.so", PLUGIN, version, f"-L{home}", "-lbrought", "-Wl,-rpath,$ORIGIN")
    return home


def copy_over(source, target):
    """What `cp` does: truncates the file and writes into the same inode."""
    inode = target.stat().st_ino
    subprocess.run(["cp", str(source), str(target)], check=True)
    assert target.stat().st_ino == inode


def mapped(pid):
    return Path(f"/proc/{pid}/maps").read_text()


def test_files_are_overwritten_while_they_serve(tmp_path):
    home, other = build(tmp_path / "plugins", "one"), build(tmp_path / "other", "two")
    (tmp_path / "garbage").write_bytes(os.urandom(20000))
    app = application("brings", "brings", num_replicas=2, max_ongoing_requests=64)
    with Server(tmp_path, [app], plugins=tmp_path / "plugins") as server:
        assert server.get("/brings/").body == b"one"
        with Load(server.port, "/brings/?id=%s", connections=16, out=tmp_path / "rows") as load:
            rounds = size(2, 10)
            for _ in range(rounds):
                for name in ("brings.so", "libbrought.so"):
                    for source in (other / name, tmp_path / "garbage"):
                        copy_over(source, home / name)
                        time.sleep(0.2)
            time.sleep(1.5)  # longer than a change must rest before it counts as a new version
            load.stop()
            rows = load.rows()
        figures(
            "overwrite",
            overwritten=rounds * 4,
            requests=len(rows),
            failed=sum(r.status != 200 for r in rows),
        )
        assert not [r for r in rows if r.status != 200]
        for pid in server.pids("worker"):
            assert str(home) not in mapped(pid), "nothing is mapped from the plugin folder"

        # A worker that falls now comes back from the copy, not from the garbage.
        old = server.pids("worker")
        os.kill(old[0], signal.SIGKILL)
        wait_for("it is back", 15, lambda: len(set(server.pids("worker")) - {old[0]}) == 2)
        os.kill(old[1], signal.SIGKILL)
        assert server.get("/brings/", timeout=15).body == b"one"
        shutil.rmtree(home)
        assert server.get("/brings/").body == b"one"
