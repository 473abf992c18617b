#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# C files are as clang-format would have them; `make fmt` makes them so.
set -eu

git ls-files '*.c' '*.h' '*.cc' '*.cu' | xargs clang-format --dry-run -Werror --ferror-limit=3
