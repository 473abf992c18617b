#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch_source.sh PACKAGE VERSION SHA256 PATH DEST: puts the folder PATH of a pinned source package of PyPI
# into DEST: C libraries that distributions lack and Python bindings carry unchanged. pip refuses the package
# unless the hash is the one given.
set -eu

usage="usage: fetch_source.sh PACKAGE VERSION SHA256 PATH DEST"
package=${1:?$usage} version=${2:?$usage} sha256=${3:?$usage} path=${4:?$usage} dest=${5:?$usage}
python=${SALVER_PYTHON:-python3}

[ -d "$dest" ] && exit 0
mkdir -p "$(dirname "$dest")"
work=$(mktemp -d "$(dirname "$dest")/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

if ! "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv "$work/venv" || {
        echo "fetch_source: $python has neither pip nor venv; install python3-venv" >&2
        exit 1
    }
    python=$work/venv/bin/python
fi

echo "$package==$version --hash=sha256:$sha256" >"$work/requirements.txt"
if ! "$python" -m pip download --quiet --no-deps --no-binary :all: --require-hashes \
    --dest "$work" --requirement "$work/requirements.txt" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "fetch_source: cannot get the source package $package-$version from PyPI; this needs a" \
        "network once" >&2
    exit 1
fi
echo "$sha256  $work/$package-$version.tar.gz" | sha256sum --check --quiet

tar -xzf "$work/$package-$version.tar.gz" -C "$work"
# Whoever was faster has put the same files there.
mv -T "$work/$package-$version/$path" "$dest" 2>/dev/null || [ -d "$dest" ]
