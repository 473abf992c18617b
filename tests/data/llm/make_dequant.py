#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes dequant.bin: random blocks of every stored type and the f32 that the package `gguf` gives for them.

    pip install gguf numpy && python3 make_dequant.py

The file is a list of { u32 our type, u32 blocks, u32 bytes, u32 elements | bytes | f32 elements }, little-endian. Scales
are of every size that is a finite f16: ordinary, subnormal, zero, the largest, of both signs.
"""
import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

BLOCKS = 24
# In the order of kernels.h's SV_F32 ...; and where a block's f16 lie in it.
TYPES = [
    (T.F32, []), (T.F16, []), (T.BF16, []), (T.Q4_0, [0]), (T.Q4_1, [0, 2]), (T.Q5_0, [0]), (T.Q5_1, [0, 2]),
    (T.Q8_0, [0]), (T.Q4_K, [0, 2]), (T.Q5_K, [0, 2]), (T.Q6_K, [208]),
]
SIZES = {T.F32: (1, 4), T.F16: (1, 2), T.BF16: (1, 2), T.Q4_0: (32, 18), T.Q4_1: (32, 20), T.Q5_0: (32, 22),
         T.Q5_1: (32, 24), T.Q8_0: (32, 34), T.Q4_K: (256, 144), T.Q5_K: (256, 176), T.Q6_K: (256, 210)}
EXTREMES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00], np.uint16)


def scales(rng, n):
    ordinary = (rng.normal(size=n) * 0.02).astype(np.float16).view(np.uint16)
    return np.where(rng.random(n) < 0.5, rng.choice(EXTREMES, n), ordinary)


def block_bytes(rng, kind, halves):
    elements, size = SIZES[kind]
    blocks = BLOCKS * (10 if elements == 1 else 1)
    data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    for at in halves:
        data[:, at:at + 2] = scales(rng, blocks).view(np.uint8).reshape(-1, 2)
    if kind == T.F16:
        finite = (data.view(np.uint16) & 0x7C00) != 0x7C00
        data[~finite[:, 0]] = 0
    elif elements == 1:
        width = np.uint32 if kind == T.F32 else np.uint16
        mask = width(0x7F800000 if kind == T.F32 else 0x7F80)
        data[((data.view(width) & mask) == mask)[:, 0]] = 0
    return data


def main():
    rng = np.random.default_rng(4)
    out = bytearray()
    for ours, (kind, halves) in enumerate(TYPES):
        data = block_bytes(rng, kind, halves)
        with np.errstate(all="ignore"):
            want = dequantize(data.reshape(1, -1), kind).astype(np.float32).reshape(-1)
        assert np.isfinite(want).all(), kind
        out += struct.pack("<4I", ours, len(data), data.size, want.size) + data.tobytes() + want.tobytes()
    Path(__file__).with_name("dequant.bin").write_bytes(out)


if __name__ == "__main__":
    main()
