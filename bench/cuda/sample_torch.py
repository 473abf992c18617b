# SPDX-License-Identifier: Apache-2.0
"""torch's ways to sample beside bench/cuda/sample.cu's table.

Logits f32 [rows, 128256], normal, standard deviation 3; a CUDA graph of CALLS calls, the median of its replays. The draw
is argmax(p / exponential), as vLLM has it: multinomial waits for the host.
"""
import statistics

import torch

CALLS, REPLAYS, VOCAB = 20, 15, 128256
TOP_K, TOP_P, MIN_P, TEMPERATURE = 50, 0.9, 0.01, 0.8
ROWS, HISTORY = (1, 8, 64, 256), 1024


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


def draw(p):
    return (p / torch.empty_like(p).exponential_()).argmax(-1)


def greedy(x):
    return x.argmax(-1)


def temperature(x):
    return draw((x / TEMPERATURE).softmax(-1))


def top_k_top_p(x):
    """Of the k best alone, so that nothing longer is sorted."""
    values, ids = (x / TEMPERATURE).topk(TOP_K)
    p = values.softmax(-1)
    p = p * (p.cumsum(-1) - p < TOP_P)
    return ids.gather(-1, draw(p).unsqueeze(-1))


def top_k_top_p_min_p(x):
    values, ids = (x / TEMPERATURE).topk(TOP_K)
    p = values.softmax(-1)
    p = p * (p >= MIN_P * p[:, :1])
    p = p * (p.cumsum(-1) - p < TOP_P * p.sum(-1, keepdim=True))
    return ids.gather(-1, draw(p).unsqueeze(-1))


def penalties(x, counts):
    """counts: of each id in each row's history, kept as a matrix as vLLM has it."""
    x = torch.where(counts > 0, torch.where(x > 0, x / 1.1, x * 1.1), x) - 0.1 * counts
    return temperature(x)


def top_p(x):
    values, ids = (x / TEMPERATURE).sort(descending=True)
    p = values.softmax(-1)
    p = p * (p.cumsum(-1) - p < TOP_P)
    return ids.gather(-1, draw(p).unsqueeze(-1))


def logprobs(x):
    return x.log_softmax(-1).topk(20)


def main():
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    for rows in ROWS:
        sets = min(CALLS, 2 * l2 // (4 * rows * VOCAB) + 1)
        logits = [3 * torch.randn(rows, VOCAB, device="cuda") for _ in range(sets)]
        history = torch.randint(VOCAB, (rows, HISTORY), device="cuda")
        counts = torch.zeros_like(logits[0]).scatter_add_(1, history, torch.ones_like(history, dtype=torch.float32))
        calls = {f.__name__: f for f in (greedy, temperature, top_k_top_p, top_k_top_p_min_p, top_p, logprobs)}
        calls["penalties"] = lambda x: penalties(x, counts)
        for name, call in calls.items():
            try:
                s = seconds_of(lambda turn: call(logits[turn % sets]))
            except RuntimeError as error:
                print(f"{rows} rows, {name}: {str(error).splitlines()[0]}")
                continue
            print(f"{rows} rows, {name}: {s * 1e6:.1f} us")


if __name__ == "__main__":
    main()
