# SPDX-License-Identifier: Apache-2.0
"""`salver inspect` takes what the ABI allows and says what is wrong with the rest. Whatever a file
does, it does it in a throw-away process."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SALVER_BUILD", REPO / "build")).resolve()

# What each descriptor of tests/abi/descriptors.c must lead to.
TAKEN = ["good", "older", "older_rest", "newer", "rows_long"]
WARNED = {
    "newer_rest": r"1\.9",
    "unknown_flags": r"0x80",
}
REFUSED = {
    "wrong_major": r"2\.0\b.*1\.0|ABI 2",
    "major_zero": r"0\.0\b.*1\.0|ABI 0",
    "needs_newer": r"1\.99.*1\.0",
    "both": r"run and submit",
    "neither": r"run nor submit",
    "no_name": r"no name",
    "empty_name": r"name",
    "path_name": r"name.*0x2e|name.*0x2f|name",
    "binary_name": r"name.*0x0a",
    "long_name": r"name.*64",
    "size_zero": r"\b0 bytes",
    "size_small": r"\b16 bytes",
    "size_cut": r"\b132 bytes",
    "size_huge": r"4294967295 bytes",
    "many_options": r"4294967295 options",
    "no_table": r"3 options",
    "rows_zero": r"\b0 bytes",
    "rows_small": r"\b4 bytes",
    "rows_huge": r"4294967295 bytes",
    "option_no_name": r"option 0.*no name",
    "option_twice": r"'same'.*twice",
    "option_type": r"'number'.*99",
    "option_range": r"'number'.*9 to 1",
}
# These can't be told from good ones without a look: the process that looks dies.
CRASHES = ["wild_name", "wild_table", "option_wild_name", "too_many_options"]


def inspect(path, *flags, env=None, timeout=90):
    command = [BUILD / "salver", "inspect", *flags, path]
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=env,
    )


def descriptor(case):
    return BUILD / "tests" / "abi" / f"abi_{case}.so"


def refused(got, says):
    assert got.returncode in (1, 2), got
    assert re.search(says, got.stderr + got.stdout, re.S), got
    assert not re.search(r"[^\n\t -~]", got.stderr), "bytes of the plugin reach the terminal"


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case):
    got = inspect(descriptor(case))
    assert got.returncode == 0, got
    assert "descriptor" in got.stdout
    assert "warn" not in (got.stdout + got.stderr).lower()


@pytest.mark.parametrize("case", WARNED)
def test_taken_with_a_warning(case):
    got = inspect(descriptor(case))
    assert got.returncode == 0, got
    assert re.search(WARNED[case], got.stdout + got.stderr), got


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    refused(inspect(descriptor(case)), REFUSED[case])


@pytest.mark.parametrize("case", CRASHES)
def test_crashes_only_the_looker(case):
    # A sanitizer's report of this crash is none that `make asan` should find.
    env = {k: v for k, v in os.environ.items() if not k.endswith("SAN_OPTIONS")}
    refused(inspect(descriptor(case), env=env), r"SIGSEGV|SIGBUS|signal|AddressSanitizer|exited")


def test_every_descriptor_is_tested():
    text = (REPO / "tests/abi/descriptors.c").read_text()
    cases = set(re.findall(r"defined CASE_(\w+)", text))
    assert cases == {*TAKEN, *WARNED, *REFUSED, *CRASHES}


def test_dies_in_dlopen():
    refused(inspect(BUILD / "tests/plugins/fake_dlcrash.so"), r"SIGABRT|signal 6")


def test_hangs_in_dlopen():
    refused(inspect(BUILD / "tests/plugins/fake_dlhang.so"), r"\d+ ?s\b|hang|hung|time")


def test_no_plugin(tmp_path):
    text = tmp_path / "text.so"
    text.write_text("this is no shared object\n")
    refused(inspect(text), r"text\.so")
    plain = tmp_path / "plain.so"
    source = tmp_path / "plain.c"
    source.write_text("int x;\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", plain, source], check=True)
    refused(inspect(plain), r"sv_plugin_v1")
    source.write_text("extern int nowhere(void); int x(void) { return nowhere(); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", plain, source], check=True)
    refused(inspect(plain), r"nowhere")
    refused(inspect(tmp_path / "absent.so"), r"absent\.so")


def test_json():
    got = inspect(BUILD / "plugins" / "counter.so", "--json")
    assert got.returncode == 0, got
    said = json.loads(got.stdout)
    assert said["name"] == "counter"
    options = {option["name"]: option for option in said["options"]}
    assert options["count"]["fallback"] == "10"
    assert options["count"]["min"] == 1
    assert options["interval"]["help"]
