#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every source file says its licence within its first two lines; plugin.h alone is MIT.
set -eu

git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.def' '*.py' '*.sh' '*.cmake' '*.in' '*CMakeLists.txt' Makefile run \
    .ci/run | {
    bad=0
    while read -r file; do
        want=Apache-2.0
        [ "$file" = core/abi/plugin.h ] && want=MIT
        head -n 2 "$file" | grep -q "SPDX-License-Identifier: $want\( \*/\)\?$" && continue
        case $file in
        *.pc.in | core/cli/template/*) continue ;; # becomes somebody else's file
        esac
        echo "$file:1: no 'SPDX-License-Identifier: $want' in the first two lines" >&2
        bad=1
    done
    exit $bad
}
