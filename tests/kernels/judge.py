#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A backend beside torch: whose logits are nearer to those of float32, and does greedy decoding agree?

Usage: judge.py LOGITS KERNELS.so FOLDER...
LOGITS is the program of logits.c; a FOLDER is a model with weights in Hugging Face's layout. For each: a
prompt of random ids through transformers in float32 and in bfloat16, on a GPU where there is one, and through the backend.

error    ||logits - f32's|| / ||f32's||, over all positions. The backend's may be SLACK times torch bf16's;
         of a model of few columns, where one rounding weighs much, SLACK_TINY.
greedy   tokens after the prompt beside those of float32, until the first that differs: there float32's two
         best must be closer than twice the greatest error of torch bf16, which is a near tie.
Needs torch and transformers.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

PROMPT, GREEDY = 301, 48
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SLACK, SLACK_TINY, TINY_COLUMNS = 1.1, 1.5, 128


def load(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.to(DEVICE).eval()


def logits_of(model, ids):
    return model(torch.tensor([ids], device=DEVICE)).logits[0].float().cpu().numpy()


def greedy_of(model, ids):
    """[(token, logits' gap to the next best)]"""
    found, past, feed = [], None, ids
    for _ in range(GREEDY):
        out = model(torch.tensor([feed], device=DEVICE), past_key_values=past)
        past = out.past_key_values
        best = torch.topk(out.logits[0, -1].float(), 2)
        feed = [int(best.indices[0])]
        found.append((feed[0], float(best.values[0] - best.values[1])))
    return found


def torchs(folder, ids):
    model = load(folder, torch.bfloat16)
    bf16 = logits_of(model, ids)
    del model
    model = load(folder, torch.float32)
    return bf16, logits_of(model, ids), greedy_of(model, ids)


def ours(program, kernels, folder, ids, vocab):
    with tempfile.TemporaryDirectory() as inner:
        Path(inner, "ids").write_bytes(np.array(ids, np.int32).tobytes())
        command = [program, kernels, folder, f"{inner}/ids", GREEDY, f"{inner}/out"]
        subprocess.run([str(c) for c in command], check=True, timeout=120)
        raw = Path(inner, "out").read_bytes()
    n = 4 * len(ids) * vocab
    logits = np.frombuffer(raw[:n], np.float32).reshape(len(ids), vocab)
    return logits, np.frombuffer(raw[n : n + 4 * GREEDY], np.int32).tolist()


def error(logits, reference):
    return float(np.linalg.norm(logits - reference) / np.linalg.norm(reference))


def compare_greedy(tokens, reference, tie):
    """(tokens that agree, the gap at the first that does not or None, good)"""
    for i, (mine, (token, gap)) in enumerate(zip(tokens, reference)):
        if mine != token:
            return i, gap, gap <= tie
    return GREEDY, None, True


def judge(program, kernels, folder):
    config = json.loads(Path(folder, "config.json").read_text())
    vocab = config["vocab_size"]
    ids = np.random.default_rng(5).integers(0, vocab, PROMPT).tolist()
    with torch.inference_mode():
        bf16, reference, greedy = torchs(folder, ids)
    torch.cuda.empty_cache()
    logits, tokens = ours(program, kernels, folder, ids, vocab)
    mine, theirs = error(logits, reference), error(bf16, reference)
    same, gap, good = compare_greedy(tokens, greedy, 2 * float(np.abs(bf16 - reference).max()))
    slack = SLACK_TINY if config["hidden_size"] < TINY_COLUMNS else SLACK
    good = good and mine <= slack * theirs  # false for NaN
    tie = "" if gap is None else f", then a gap of {gap:.4f}"
    print(
        f"{Path(folder).name:<20} error {mine:.2e}, torch bf16 {theirs:.2e}, ratio {mine / theirs:.2f}; "
        f"greedy {same} of {GREEDY}{tie}{'' if good else '  FAILED'}",
        flush=True,
    )
    return good


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    good = [judge(sys.argv[1], sys.argv[2], folder) for folder in sys.argv[3:]]
    print("judge: FAILED" if not all(good) else f"judge: {len(good)} models, no worse than torch bf16")
    return not all(good)


if __name__ == "__main__":
    sys.exit(main())
