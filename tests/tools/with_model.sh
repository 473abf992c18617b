#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches the demo's model, runs every test that reads $SALVER_SMOLLM2, and asks the demo's question.
#   tests/tools/with_model.sh BUILD PYTEST...
set -eu

build=${1:?usage: with_model.sh BUILD PYTEST...}
shift
python=${PYTHON:-python3}
SALVER_SMOLLM2=$($python tests/tools/fetch_model.py smollm2)
SALVER_BUILD=$(realpath "$build")
export SALVER_SMOLLM2 SALVER_BUILD

for file in $(git grep -l SALVER_SMOLLM2 -- tests/unit); do
    "$build/tests/unit_$(basename "$file" .c)"
done
# One at a time: some measure.
# shellcheck disable=SC2046
"$@" $(git grep -l SALVER_SMOLLM2 -- 'tests/*/test_*.py')

state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
$python tests/tools/demo.py --build "$build" --port "${DEMO_PORT:-18790}" --state "$state" --stop
