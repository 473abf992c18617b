#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The arrows of ARCHITECTURE.md: which folder may include which. Link lines see what is called; this also
# sees headers that are only read.
set -eu

allowed() {
    case $1 in
    base) echo base abi ;;
    wire | conf | http) echo base abi "$1" ;;
    obs) echo base abi wire obs ;;
    serve) echo http wire conf obs base abi serve ;;
    # Control looks at plugins in a throw-away process, as the command `inspect` does.
    control) echo http wire conf obs base abi control worker/inspect.h ;;
    supervise) echo wire obs base abi supervise ;;
    worker) echo wire obs conf base abi worker ;;
    cli) echo abi base wire obs conf http control supervise worker cli ;;
    esac
}

bad=0
for folder in base wire obs conf http serve control supervise worker cli; do
    [ -d "core/$folder" ] || continue
    may=$(allowed $folder | tr ' ' '\n' | sed 's|^[a-z]*$|&/|' | paste -sd '|')
    if git grep -nE '^#include "[a-z]+/' -- "core/$folder" |
        grep -vE "#include \"($may)" >&2; then
        echo "core/$folder may include $(allowed $folder) only" >&2
        bad=1
    fi
done

# Kernels see kernels.h and what lies beside them.
if git grep -nE '^#include "' -- kernels | grep -vE '#include "(kernels/kernels\.h|(cpu|cuda)/)' >&2; then
    echo "kernels/ may include kernels/kernels.h and its own headers only" >&2
    bad=1
fi

# A small plugin sees the ABI's headers and what lies beside it; one that is a library sees plugins/common,
# core/base, kernels.h and itself.
for dir in plugins/*/; do
    for header in $(git grep -hE '^#include "' -- "$dir" | cut -d '"' -f 2 | sort -u); do
        case $header in
        plugin.h | form.h | models.h) continue ;;
        base/* | abi/plugin.h | abi/models.h | common/* | kernels/kernels.h)
            case $dir in plugins/common/ | plugins/llm/) continue ;; esac
            ;;
        llm/*) [ "$dir" = plugins/llm/ ] && continue ;;
        esac
        [ -e "$dir$header" ] && continue
        echo "$dir includes $header: a plugin may include plugin.h, form.h, models.h and its own headers" >&2
        bad=1
    done
done
exit $bad
