#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fills a config folder (bench/make_shape.py) with random weights in bfloat16, as one model.safetensors.

Usage: make_weights.py FOLDER
So scaled that activations, attention scores and logits are about as large as a trained model's: noise of a
rounding is neither drowned nor blown up, and the best token is seldom a tie. Norms and biases are not trivial.
Needs torch and transformers; uses a GPU where there is one.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

EMBED_STD, NORM_STD, BIAS_STD = 0.06, 0.1, 0.1


def fill(model, generator):
    for name, p in model.named_parameters():
        if p.dim() == 2 and "embed" in name:
            p.normal_(0, EMBED_STD, generator=generator)
        elif p.dim() == 2:
            p.normal_(0, p.shape[1] ** -0.5, generator=generator)
        elif name.endswith("bias"):
            p.normal_(0, BIAS_STD, generator=generator)
        else:
            p.normal_(1, NORM_STD, generator=generator)


def main():
    folder = Path(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(folder)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device), torch.no_grad():
        model = AutoModelForCausalLM.from_config(config)
        fill(model, torch.Generator(device).manual_seed(1))
    tensors = {name: t.cpu().contiguous() for name, t in model.state_dict().items()}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    print(f"{folder}: {sum(t.nbytes for t in tensors.values()) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
