# SPDX-License-Identifier: Apache-2.0
"""plugin.h and what is written against it, with each compiler and each language version."""

import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ABI = REPO / "core" / "abi"
FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fvisibility=hidden", "-fPIC", "-shared"]
COMPILERS = {"gcc": ["gcc", "g++"], "clang": ["clang", "clang++"]}
# Plugins of one file; the larger ones are built by CMake with what they need.
SMALL = [d / f"{d.name}.c" for d in sorted((REPO / "plugins").iterdir())]
SMALL = [p for p in SMALL if list(p.parent.glob("*.c")) == [p]]
C_SOURCES = [
    *sorted((REPO / "tests/abi/sources").glob("*.c")),
    *SMALL,
    REPO / "core/cli/template/plugin.c",
]
CXX = {
    "classes.cc": ["c++11", "c++14", "c++17", "c++20"],
    "designated.cc": ["c++20"],
}


def build(compiler, std, source, out):
    command = [compiler, f"-std={std}", *FLAGS, f"-I{ABI}", f"-I{REPO}/core", source, "-o", out]
    got = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    return out


def exported(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in out.stdout.splitlines()}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", C_SOURCES, ids=lambda p: p.name)
def test_c11(compiler, source, tmp_path):
    library = build(COMPILERS[compiler][0], "c11", source, tmp_path / "x.so")
    assert "sv_plugin_v1" in exported(library)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    "source, std", [(source, std) for source, stds in CXX.items() for std in stds]
)
def test_cxx(compiler, source, std, tmp_path):
    source = REPO / "tests/abi/sources" / source
    library = build(COMPILERS[compiler][1], std, source, tmp_path / "x.so")
    assert "sv_plugin_v1" in exported(library)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("std", ["c11", "c++11", "c++14", "c++17", "c++20"])
@pytest.mark.parametrize("header", ["plugin.h", "form.h", "models.h"])
def test_header_alone(compiler, std, header, tmp_path):
    cxx = std.startswith("c++")
    source = tmp_path / ("x.cc" if cxx else "x.c")
    # Twice, and inside extern "C" as careful C++ authors include C headers.
    text = f'#include "{header}"\n#include "{header}"\nint sv_test_unused;\n'
    source.write_text(f'extern "C" {{\n{text}}}\n' if cxx else text)
    build(COMPILERS[compiler][cxx], std, source, tmp_path / "x.so")


@pytest.mark.parametrize("compiler", COMPILERS)
def test_layout(compiler, tmp_path):
    build(COMPILERS[compiler][0], "c11", REPO / "tests/abi/layout.c", tmp_path / "x.so")


def test_sugar(tmp_path):
    """sv_query and its decoding, which every plugin compiles in."""
    program = tmp_path / "sugar"
    command = ["gcc", "-std=c11", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += [f"-I{REPO}/core", REPO / "tests/abi/sugar.c", "-o", program]
    subprocess.run(list(map(str, command)), check=True)
    subprocess.run([program], check=True)
