#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts llhttp's sources into the folder $1. They come from the pinned source package of httptools, which
# carries an unchanged llhttp under vendor/llhttp; pip refuses it unless the hash is the one below.
set -eu

dest=${1:?usage: fetch_llhttp.sh FOLDER}
python=${SALVER_PYTHON:-python3}
version=0.9.0
sha256=d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6
package=httptools-$version

[ -f "$dest/include/llhttp.h" ] && exit 0
mkdir -p "$(dirname "$dest")"
work=$(mktemp -d "$(dirname "$dest")/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

if ! "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv "$work/venv" || {
        echo "fetch_llhttp: $python has neither pip nor venv; install python3-venv" >&2
        exit 1
    }
    python=$work/venv/bin/python
fi

echo "httptools==$version --hash=sha256:$sha256" >"$work/requirements.txt"
if ! "$python" -m pip download --quiet --no-deps --no-binary :all: --require-hashes \
    --dest "$work" --requirement "$work/requirements.txt" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "fetch_llhttp: cannot get the source package $package from PyPI; with a network once," \
        "or with llhttp 9.2 or newer installed (header and library), this is not needed" >&2
    exit 1
fi
echo "$sha256  $work/$package.tar.gz" | sha256sum --check --quiet

tar -xzf "$work/$package.tar.gz" -C "$work"
# Whoever was faster has put the same files there.
mv -T "$work/$package/vendor/llhttp" "$dest" 2>/dev/null || [ -f "$dest/include/llhttp.h" ]
