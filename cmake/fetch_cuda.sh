#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts nvcc, cuBLASLt and cuDNN into .cache/cuda, from PyPI's packages: for machines without the CUDA
# toolkit that must compile (not run) the CUDA parts.
set -eu

cd "$(dirname "$0")/.."
python=${SALVER_PYTHON:-python3}
dest=.cache/cuda
[ -x $dest/nvidia/cu13/bin/nvcc ] && [ -e $dest/nvidia/cudnn/lib/libcudnn.so ] && exit 0

rm -rf $dest.part
"$python" -m pip install --quiet --no-deps --target $dest.part \
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.1.0.3 \
    nvidia-cudnn-cu13==9.15.1.9

# The packages hold libraries under their run-time names only; the linker looks for plain ones.
for lib in $dest.part/nvidia/*/lib/lib*.so.*; do
    plain=$(echo "$lib" | sed 's/\.so\..*/.so/')
    [ -e "$plain" ] || ln -s "$(basename "$lib")" "$plain"
done
rm -rf $dest
mv $dest.part $dest
