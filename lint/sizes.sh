#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files stay below 800 lines, unit tests, which are tables, below 1200, headers below 300 (plugin.h and
# kernels.h, which are manuals too, below 500).
set -eu

git ls-files '*.c' '*.cu' '*.h' '*.py' '*.sh' | {
    bad=0
    while read -r file; do
        case $file in
        core/abi/plugin.h | kernels/kernels.h) limit=500 ;;
        *.h) limit=300 ;;
        tests/unit/*) limit=1200 ;;
        *) limit=800 ;;
        esac
        lines=$(wc -l <"$file")
        [ "$lines" -le $limit ] && continue
        echo "$file: $lines lines; at most $limit: split it" >&2
        bad=1
    done
    exit $bad
}
