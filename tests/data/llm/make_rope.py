#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes rope.json: the frequencies that transformers computes for RoPE parameters in use. Needs
torch and transformers."""
import json
import os

from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ROWS = [ # of Llama 2, Llama 3.1 and 3.2, vicuna-16k, Qwen2.5's card, and what else the formulas read
    (128, 10000.0, dict(rope_type="default")),
    (128, 500000.0, dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                         original_max_position_embeddings=8192)),
    (64, 500000.0, dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=8192)),
    (128, 10000.0, dict(rope_type="linear", factor=4.0)),
    (128, 1000000.0, dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)),
    (96, 10000.0, dict(rope_type="yarn", factor=16.0, original_max_position_embeddings=4096,
                       beta_fast=16, beta_slow=2, truncate=False)),
    (64, 10000.0, dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096,
                       mscale=1.0, mscale_all_dim=0.5)),
    (64, 150000.0, dict(rope_type="yarn", factor=32.0, original_max_position_embeddings=4096,
                        attention_factor=1.25)),
]

out = []
for dims, theta, parameters in ROWS:
    config = LlamaConfig(head_dim=dims, max_position_embeddings=131072,
                         rope_parameters=dict(parameters, rope_theta=theta))
    rope = LlamaRotaryEmbedding(config)
    out.append(dict(head_dim=dims, rope_parameters=dict(parameters, rope_theta=theta),
                    scale=rope.attention_scaling,
                    inv_freq=[float("%.9g" % v) for v in rope.inv_freq.tolist()]))
with open(os.path.dirname(os.path.abspath(__file__)) + "/rope.json", "w") as f:
    json.dump(out, f)
    f.write("\n")
