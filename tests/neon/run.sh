#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Cross-compiles the CPU backend and its unit tests for 64-bit ARM into $1 and runs them in qemu.
set -eu

cd "$(dirname "$0")/../.."
out=$1
cc=${NEON_CC:-aarch64-linux-gnu-gcc}
qemu=${NEON_QEMU:-qemu-aarch64}
mkdir -p "$out"
flags="-std=c11 -D_GNU_SOURCE -I. -Ikernels -O2 -g -Wall -Wextra -Werror"
objects=
for source in kernels/cpu/*.c; do
    arch=
    case $source in
    *_avx2.c | *_avx512.c) continue ;;
    *_neon.c) arch=-march=armv8.2-a+dotprod ;;
    esac
    object=$out/$(basename "$source" .c).o
    # shellcheck disable=SC2086
    $cc $flags $arch -O3 -ffp-contract=off -fno-math-errno -c "$source" -o "$object"
    objects="$objects $object"
done
for source in tests/kernels/oracle.c tests/kernels/world.c; do
    object=$out/$(basename "$source" .c).o
    # shellcheck disable=SC2086
    $cc $flags -Itests -c "$source" -o "$object"
    objects="$objects $object"
done
for test in tests/unit/kernels_*.c; do
    program=$out/unit_$(basename "$test" .c)
    # shellcheck disable=SC2086
    $cc $flags -Itests -Itests/neon -DLLM_DATA="\"$PWD/tests/data/llm\"" -DTEST_DATA="\"$PWD/tests/unit\"" \
        -DBUILD_DIR="\"$PWD/$out\"" "$test" $objects -static -pthread -lm -o "$program"
    echo "$program"
    $qemu "$program"
done
