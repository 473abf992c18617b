#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One folder that runs on another Linux: binary, plugins, kernels and the libraries that a system may lack;
# and the same packed. Needs of the other machine: a C library no older than this one's; for GPUs a driver and
# cuBLASLt of CUDA 13, which is too large to take along.
#   cmake/dist.sh BUILD [OUT]      OUT: BUILD/dist
# The binary looks for libraries in ../lib from where it lies, before anywhere else, for plugins too: that
# is set when it is linked (DT_RPATH).
set -eu

build=${1:?usage: cmake/dist.sh BUILD [OUT]}
out=${2:-$build/dist}
packed_max=$((40 << 20)) # bytes
# What every system has, and what a system with CUDA has.
system='^(linux-vdso|ld-linux-.*|libc|libm|libpthread|libdl|librt)\.so(\.|$)'
cuda='^(libcuda|libcublasLt|libnvidia-.*)\.so(\.|$)'

version=$("$build/salver" --version | awk '{ print $2 }')
name=salver-$version-linux-$(uname -m)
folder=$out/$name
rm -rf "$folder" "$folder.tar.gz"
mkdir -p "$out"
cmake --install "$build" --strip --prefix "$folder" >/dev/null

# Prints `name path` of the libraries that a file needs, the needs of these included.
libraries() {
    ldd "$1" | awk '$2 == "=>" { print $1, $3 }'
}

# A library's licence, where the system keeps it.
licence() {
    package=$(dpkg-query -S "$(realpath "$1")" "$1" 2>/dev/null | head -n 1 | cut -d : -f 1)
    [ -n "$package" ] && [ -e "/usr/share/doc/$package/copyright" ] || return 0
    cp "/usr/share/doc/$package/copyright" "$folder/share/doc/salver/licences/$package"
}

mkdir -p "$folder/share/doc/salver/licences" "$folder/share/salver"
find "$folder" -type f \( -name '*.so' -o -path '*/bin/*' \) | while read -r file; do
    libraries "$file"
done | sort -u | grep -vE "$system" | grep -vE "$cuda" | while read -r library path; do
    [ -e "$path" ] || { echo "dist: $library is not found here" >&2; exit 1; }
    cp -L "$path" "$folder/lib/$library"
    strip --strip-unneeded "$folder/lib/$library"
    licence "$path"
done
cp LICENSE README.md "$folder/share/doc/salver/"
cp -r configs "$folder/share/salver/"

tar -C "$out" --owner=0 --group=0 --sort=name -cf - "$name" | gzip -9 >"$folder.tar.gz"
bytes=$(wc -c <"$folder.tar.gz")
[ "$bytes" -le $packed_max ] || { echo "dist: $folder.tar.gz has $bytes bytes; at most $packed_max" >&2; exit 1; }
glibc=$(find "$folder" -type f \( -name "*.so*" -o -path "*/bin/*" \) -exec objdump -T {} + 2>/dev/null |
    grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
echo "$folder.tar.gz: $((bytes >> 10)) KiB, needs $glibc"
