#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the scenarios of test_point*.py in full size and prints what they measured, a line each.
# Usage: SALVER_BUILD=build tests/e2e/points.sh PYTHON [pytest arguments]
set -eu

here=$(dirname "$0")
python=$1
shift
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
result=0
SALVER_FULL=1 SALVER_FIGURES=$figures "$python" -m pytest -q -rf "$here"/test_point*.py "$@" || result=$?
echo
echo "figures:"
"$python" - "$figures" <<'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as lines:
    for line in lines:
        values = json.loads(line)
        name = values.pop("test")
        values.pop("full")
        print(f"- {name}: " + ", ".join(f"{k} {v}" for k, v in values.items()))
END
exit $result
