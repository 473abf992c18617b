#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the build folder $1 for $2 seconds, beginning with its committed seeds. What it
# finds on the way stays in the build folder; what breaks it is printed and fails.
set -eu

build=$1
seconds=$2
cd "$(dirname "$0")"
here=$PWD
cd - >/dev/null
passed=0
failed=0
for target in "$build"/tests/fuzz_*; do
    [ -x "$target" ] || continue
    name=$(basename "$target" | sed 's/^fuzz_//')
    corpus=$build/corpus/$name
    mkdir -p "$corpus" "$here/corpus/$name"
    if "$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$build/corpus/$name-" "$corpus" "$here/corpus/$name" \
        >"$build/corpus/$name.log" 2>&1; then
        echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/corpus/$name.log") runs"
        passed=$((passed + 1))
    else
        tail -n 60 "$build/corpus/$name.log" >&2
        echo "fuzz $name: failed; the input is in $build/corpus/" >&2
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
