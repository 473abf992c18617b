#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the build folder $1 for $2 seconds, as many at a time as there are cores, beginning
# with its committed seeds, all of them. What it finds on the way stays in the build folder; what breaks it is printed
# and fails. With FUZZ_TURNS=n only one target in n has that long, the others a fifth of it; whose turn it is follows
# from the commit.
set -eu

build=$1
seconds=$2
turns=${FUZZ_TURNS:-1}
here=$(cd "$(dirname "$0")" && pwd)

if [ $# = 3 ]; then # one target
    name=$(basename "$3" | sed 's/^fuzz_//')
    corpus=$build/corpus/$name
    mkdir -p "$corpus" "$here/corpus/$name"
    if "$3" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$build/corpus/$name-" "$corpus" "$here/corpus/$name" \
        >"$build/corpus/$name.log" 2>&1; then
        echo "fuzz $name: $seconds s, $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/corpus/$name.log") runs"
        exit 0
    fi
    tail -n 60 "$build/corpus/$name.log" >&2
    echo "fuzz $name: failed; the input is in $build/corpus/" >&2
    exit 1
fi

find "$build/tests" -maxdepth 1 -name 'fuzz_*' -type f -perm -u+x | sort >"$build/targets"
[ -s "$build/targets" ] || { echo "fuzz: no targets in $build/tests" >&2; exit 1; }
turn=$(($(git rev-parse HEAD 2>/dev/null | cksum | cut -d ' ' -f 1) % turns))
awk -v n="$turns" -v turn=$turn -v long="$seconds" -v short=$(((seconds + 4) / 5)) \
    '{ print NR % n == turn ? long : short, $0 }' "$build/targets" | sort -rn |
    xargs -P "$(nproc)" -n 2 "$0" "$build" || { echo "fuzz: some failed" >&2; exit 1; }
echo "$(wc -l <"$build/targets") fuzz targets passed"
