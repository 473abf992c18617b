# SPDX-License-Identifier: Apache-2.0
"""torch's SDPA by its flash and cuDNN backends beside bench/cuda/attend.cu's prefill table.

Causal, GQA, bf16, random inputs; a CUDA graph of CALLS calls, the median of its replays. Also decode
over contiguous KV, as many inputs in turn as exceed twice the L2.
"""
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

CALLS, REPLAYS = 20, 15
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def seconds_of(call):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for turn in range(3):
            call(turn)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for turn in range(CALLS):
            call(turn)
    times = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / CALLS)
    return statistics.median(times)


def inputs(batch, heads, kv_heads, queries, keys, d):
    shapes = (heads, queries), (kv_heads, keys), (kv_heads, keys)
    return [torch.randn(batch, h, n, d, device="cuda", dtype=torch.bfloat16) for h, n in shapes]


def prefill(batch, heads, kv_heads, tokens, d):
    q, k, v = inputs(batch, heads, kv_heads, tokens, tokens, d)
    flops = 2.0 * batch * heads * tokens * tokens * d
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                s = seconds_of(lambda _: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
        except RuntimeError as error:
            print(f"{heads}/{kv_heads} d{d}, {batch} x {tokens}, {name}: {str(error).splitlines()[0]}")
            continue
        print(f"{heads}/{kv_heads} d{d}, {batch} x {tokens}, {name}: {s * 1e6:.1f} us, {flops / s / 1e12:.0f} TFLOP/s")


def decode(batch, heads, kv_heads, keys, d):
    size = 4 * batch * kv_heads * keys * d
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    sets = [inputs(batch, heads, kv_heads, 1, keys, d) for _ in range(min(CALLS, 2 * l2 // size + 1))]

    def call(turn):
        q, k, v = sets[turn % len(sets)]
        F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                s = seconds_of(call)
        except RuntimeError as error:
            print(f"{heads}/{kv_heads} d{d}, decode {batch} x {keys}, {name}: {str(error).splitlines()[0]}")
            continue
        print(f"{heads}/{kv_heads} d{d}, decode {batch} x {keys}, {name}: {s * 1e6:.1f} us, {size / s / 1e12:.2f} TB/s")


def main():
    print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}")
    for d in 128, 64:
        for batch, tokens in (16, 1024), (4, 4096), (2, 8192), (1, 8192), (1, 2048):
            prefill(batch, 32, 8, tokens, d)
    for batch, keys in (1, 1024), (1, 4096), (64, 1024), (256, 1024):
        decode(batch, 32, 8, keys, 128)


if __name__ == "__main__":
    main()
