#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes smollm2_reference.json: what SmolLM2-135M-Instruct answers with its weights as they are in
the GGUF file, dequantised to f32, and activations in f32.

    make_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf

Needs torch, transformers, tokenizers and gguf. Each line of smollm2_questions.txt goes through the
file's chat template with its default system prompt; of the first STEPS greedy tokens the best TOP
ids are kept with their logits. The first ANSWERS questions are answered in full.
"""
import json
import os
import sys

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
ANSWERS, LONGEST, STEPS, TOP, EVERY = 8, 64, 8, 3, 3072


def field(r, key):
    return r.fields[key].contents()


def make_tokenizer(r):
    tokens, kinds = field(r, "tokenizer.ggml.tokens"), field(r, "tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field(r, "tokenizer.ggml.merges")]
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(tokens)}, merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([ # "smollm"
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.add_special_tokens([AddedToken(s, normalized=False, special=True)
                          for s, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL])
    return t


NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, end = name.split(".")
    return "model.layers.%s.%s.%s" % (layer, NAMES[part], end)


def make_model(r):
    heads, kv_heads = field(r, "llama.attention.head_count"), field(r, "llama.attention.head_count_kv")
    config = LlamaConfig(
        hidden_size=field(r, "llama.embedding_length"), num_hidden_layers=field(r, "llama.block_count"),
        intermediate_size=field(r, "llama.feed_forward_length"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=len(field(r, "tokenizer.ggml.tokens")),
        max_position_embeddings=field(r, "llama.context_length"), tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="default", rope_theta=field(r, "llama.rope.freq_base")))
    model = LlamaForCausalLM(config).float().eval()
    state = {}
    for t in r.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        w = w.reshape([int(n) for n in reversed(t.shape)])
        for part, n in ((".attn_q.", heads), (".attn_k.", kv_heads)):
            if part in t.name: # rows lie in pairs, transformers wants halves
                w = w.reshape(n, w.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)
        state[hf_name(t.name)] = torch.tensor(np.ascontiguousarray(w))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def decode(model, prompt, n, eos):
    """Logits of the first n greedy tokens, until eos."""
    out, past, ids = [], None, torch.tensor([prompt])
    with torch.no_grad():
        while len(out) < n and (not out or out[-1].argmax().item() != eos):
            r = model(ids, past_key_values=past, use_cache=True)
            past = r.past_key_values
            out.append(r.logits[0, -1])
            ids = out[-1].argmax().view(1, 1)
    return out


def short(v):
    return float("%.6g" % v)


def main():
    torch.set_num_threads(1)
    r = gguf.GGUFReader(sys.argv[1])
    tokenizer, model = make_tokenizer(r), make_model(r)
    eos = field(r, "tokenizer.ggml.eos_token_id")
    with open(HERE + "/smollm2_questions.txt") as f:
        questions = f.read().splitlines()
    rows = []
    for i, q in enumerate(questions):
        text = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
                "Face<|im_end|>\n<|im_start|>user\n" + q + "<|im_end|>\n<|im_start|>assistant\n")
        prompt = tokenizer.encode(text, add_special_tokens=False).ids
        logits = decode(model, prompt, LONGEST if i < ANSWERS else STEPS, eos)
        row = dict(question=q, prompt=prompt, top=[], first=[short(v) for v in logits[0][::EVERY]])
        for step in logits[:STEPS]:
            best = step.topk(TOP)
            row["top"].append([[i, short(v)] for i, v in zip(best.indices.tolist(), best.values)])
        if i < ANSWERS:
            row["answer"] = [step.argmax().item() for step in logits]
        rows.append(row)
        print(i, q, flush=True)
    with open(HERE + "/smollm2_reference.json", "w") as f:
        f.write('{"every": %d, "questions": [\n' % EVERY)
        f.write(",\n".join(json.dumps(row, separators=(",", ":")) for row in rows))
        f.write("\n]}\n")


main()
