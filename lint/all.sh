#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# All checks of the source text. $1: a build folder with compile_commands.json.
set -eu

cd "$(dirname "$0")/.."
failed=
for check in spdx sizes arrows format; do
    lint/$check.sh || failed="$failed $check"
done
lint/tidy.sh "${1:-build}" || failed="$failed tidy"
[ -z "$failed" ] || { echo "lint: failed:$failed" >&2; exit 1; }
echo "lint: all checks passed"
