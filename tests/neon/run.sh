#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Cross-compiles the CPU backend and its unit tests for 64-bit ARM into $1 and runs them in qemu, as many at a time as
# there are cores. What a test says lies beside it in a .log.
set -eu

cd "$(dirname "$0")/../.."
out=$1
cc=${NEON_CC:-aarch64-linux-gnu-gcc}
qemu=${NEON_QEMU:-qemu-aarch64}
space=0x40000000 # bytes of addresses: qemu keeps a book of every page that a program reserves, touched or not
flags="-std=c11 -D_GNU_SOURCE -I. -Ikernels -O2 -g -Wall -Wextra -Werror"

case ${2:-} in
kernels/*)
    case $2 in
    *_neon.c) flags="$flags -march=armv8.2-a+dotprod" ;;
    esac
    # shellcheck disable=SC2086
    exec $cc $flags -O3 -ffp-contract=off -fno-math-errno -c "$2" -o "$out/backend/$(basename "$2" .c).o"
    ;;
tests/kernels/*)
    # shellcheck disable=SC2086
    exec $cc $flags -Itests -c "$2" -o "$out/backend/$(basename "$2" .c).o"
    ;;
tests/unit/*)
    program=$out/unit_$(basename "$2" .c)
    # shellcheck disable=SC2086
    $cc $flags -Itests -Itests/neon -DLLM_DATA="\"$PWD/tests/data/llm\"" -DTEST_DATA="\"$PWD/tests/unit\"" \
        -DBUILD_DIR="\"$PWD/$out\"" "$2" "$out"/backend/*.o -static -pthread -lm -o "$program"
    if $qemu -R $space "$program" >"$program.log" 2>&1; then
        echo "$program: $(grep -c ': ok$' "$program.log") passed"
        exit 0
    fi
    cat "$program.log" >&2
    echo "$program: failed" >&2
    exit 1
    ;;
esac

rm -rf "$out/backend"
mkdir -p "$out/backend"
each() {
    printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 tests/neon/run.sh "$out"
}
# shellcheck disable=SC2046
each $(ls kernels/cpu/*.c tests/kernels/oracle.c tests/kernels/world.c | grep -v '_avx2\.c$\|_avx512\.c$')
# The longest first.
# shellcheck disable=SC2046
each $(ls -r tests/unit/kernels_*.c)
