#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fails when a sanitizer wrote a report into the folder $1: the processes that found something may be ones
# that a test expects to die.
set -eu

for report in "$1"/*; do
    [ -e "$report" ] || continue
    echo "== $report" >&2
    head -n 60 "$report" >&2
    found=1
done
[ -z "${found:-}" ] || exit 1
