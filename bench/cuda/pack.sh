#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs what run.sh needs on a machine without our libraries, in the shape of a build folder.
#   bench/cuda/pack.sh [BUILD]      writes BUILD/device.tar.xz, and says how large it is
set -eu

cd "$(dirname "$0")/../.."
build=${1:-build}
device=$build/device

rm -rf "$device"
mkdir -p "$device/plugins/llm" "$device/bench/cuda" "$device/tests" "$device/lib"
cmake/dist.sh "$build" "$device/dist"
cp "$device"/dist/*/lib/*.so.* "$device/lib/"
find "$device/dist" -mindepth 1 -maxdepth 1 -type d -exec rm -r {} +

cp "$build/salver" "$device/"
cp "$build"/plugins/llm/*.so "$device/plugins/llm/"
cp "$build"/bench/llm_step "$build"/bench/llm_serve "$device/bench/"
[ ! -e "$build/bench/timeline.so" ] || cp "$build/bench/timeline.so" "$device/bench/"
for source in bench/cuda/*.cu; do
    cp "$build/bench/cuda/$(basename "$source" .cu)" "$device/bench/cuda/"
done
for name in parity logits crowd; do
    cp "$build/tests/$name" "$device/tests/"
done
for source in tests/cuda/*.cu; do
    cp "$build/tests/cuda_$(basename "$source" .cu)" "$device/tests/"
done
find "$device" -type f ! -path '*/dist/*' ! -path '*/lib/*' -exec strip --strip-debug {} +
# The programs hold the same kernels: the window must be wider than one of them.
tar -C "$build" --sort=name -cf - device | xz -T1 --lzma2=preset=1,dict=64MiB >"$device.tar.xz"
rm -r "$device"
du -k "$device.tar.xz"
