#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy on the C files of core/ and plugins/ that changed since LINT_BASE (origin/main where there is
# one that differs), or on all of them with LINT_BASE=all or without such a base.
set -eu

# How far the analyzer follows a function: what it allows itself in its shallow mode, a third of the default. Null
# pointers planted at the end of 293 functions in 20 files were found as often, and all takes 0.4 of the time.
nodes=75000

build=$1
base=${LINT_BASE:-origin/main}
if [ "$base" != all ] && git rev-parse --verify -q "$base" >/dev/null &&
    ! git diff --quiet "$base" -- core plugins; then
    files=$(git diff --name-only --diff-filter=d "$base" -- 'core/*.c' 'plugins/*.c')
else
    files=$(git ls-files 'core/*.c' 'plugins/*.c')
fi
files=$(echo "$files" | grep -v ^core/cli/template/ || true)
[ -z "$files" ] && exit 0
echo "$files" | xargs -n 4 -P "$(nproc)" clang-tidy --quiet -p "$build" --extra-arg=-Xclang \
    --extra-arg=-analyzer-config --extra-arg=-Xclang --extra-arg=max-nodes=$nodes 2>"$build/tidy.err" || {
    grep -v 'warnings generated' "$build/tidy.err" >&2
    exit 1
}
