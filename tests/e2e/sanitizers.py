# SPDX-License-Identifier: Apache-2.0
"""Reports of the sanitizers, from every process that a test starts.

A build folder with SALVER_SANITIZE in its CMake cache is a sanitized one: its programs write
reports into files `<folder>/<sanitizer>.<pid>`, the folder being that of `log_path` in ASAN_OPTIONS
or TSAN_OPTIONS if the caller chose one, else `<build>/reports/e2e-<pid>`. Signals are left alone:
the fake plugin dies by them on purpose.
"""

import atexit
import os
import re
import shutil
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SALVER_BUILD", REPO / "build")).resolve()
SIGNALS = "segv abort sigfpe sigill sigbus".split()
COMMON = ":".join([f"handle_{s}=0" for s in SIGNALS] + ["allow_user_segv_handler=1"])
COMMON += ":atexit_sleep_ms=50"  # for which TSan's processes wait for their other threads' reports, else 1 s
REPORT_SHOWN = 6000  # characters of each

# What a process of the core never does by itself. Workers may: plugins run in them.
FELL = re.compile(
    r"(control|supervisor|ingress/\d+) \(pid \d+\) was ended by signal (4|5|6|7|8|11)\b"
)
TOLD = re.compile(r"runtime error: |(Address|Thread|Leak|UndefinedBehavior)Sanitizer")

_folder = None
_seen = set()


def kind():
    """"address,undefined", "thread" or ""."""
    cache = BUILD / "CMakeCache.txt"
    text = cache.read_text() if cache.exists() else ""
    match = re.search(r"^SALVER_SANITIZE:\w+=(.+)$", text, re.M)
    return match.group(1) if match else ""


def prepare():
    """Sets the environment of what will be started."""
    global _folder
    if not kind():
        return
    main = "TSAN_OPTIONS" if "thread" in kind() else "ASAN_OPTIONS"
    os.environ.setdefault("SALVER_SANITIZED", "tsan" if "thread" in kind() else "asan")
    chosen = re.search(r"log_path=([^:]+)", os.environ.get(main, ""))
    if chosen:
        _folder = Path(chosen.group(1)).parent
        _seen.update(_folder.glob("*"))
    else:
        _folder = BUILD / "reports" / f"e2e-{os.getpid()}"
        _folder.mkdir(parents=True)
        atexit.register(lambda: _seen or shutil.rmtree(_folder, ignore_errors=True))
    for name, file in ((main, main[:4].lower()), ("UBSAN_OPTIONS", "ubsan")):
        old = os.environ.get(name, "")
        new = COMMON + ":print_stacktrace=1"
        if "log_path=" not in old:
            new += f":log_path={_folder}/{file}"
        os.environ[name] = f"{old}:{new}" if old else new


def new_reports():
    """The text of the reports that came since the last call, "" if none did."""
    if not _folder:
        return ""
    found = sorted(set(_folder.glob("*")) - _seen)
    _seen.update(found)
    return "\n".join(f"== {p}\n{p.read_text(errors='replace')[:REPORT_SHOWN]}" for p in found)


def check_log(text):
    """Fails by what a server's log says of its own processes."""
    for line in text.splitlines():
        assert not FELL.search(line), f"a process of the core fell: {line}"
        assert not TOLD.search(line), f"a sanitizer reported: {line}"
