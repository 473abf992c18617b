#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A folder with the shape of a real model and none of its weights, for `load_format: dummy`.

Usage: make_shape.py NAME FOLDER        NAME: one of those in SHAPES, or `all`: FOLDER/NAME each
The tokenizer is made up as well, of the real vocabulary's size and with the real pre-tokenizer: its words
are runs of lower-case letters, so English takes about three letters a token. Needs Python alone.
"""

import itertools
import json
import string
import sys
from pathlib import Path

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_SPLIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
QWEN_SPLIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
LLAMA_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(254))]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(23))]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def llama3(factor):
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}  # fmt: skip


def shape(kind, hidden, ff, layers, heads, kv, head_dim, vocab, context, tied, **more):
    return {
        "architectures": [kind], "hidden_size": hidden, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head_dim, "vocab_size": vocab,
        "max_position_embeddings": context, "tie_word_embeddings": tied, "hidden_act": "silu",
        "torch_dtype": "bfloat16", **more,
    }  # fmt: skip


LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001}
QWEN = {"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "bos_token_id": 151643, "eos_token_id": 151645}
SHAPES = {
    "Llama-3.2-1B": shape("LlamaForCausalLM", 2048, 8192, 16, 32, 8, 64, 128256, 131072, True,
                          rope_scaling=llama3(32.0), **LLAMA),
    "Llama-3.1-8B": shape("LlamaForCausalLM", 4096, 14336, 32, 32, 8, 128, 128256, 131072, False,
                          rope_scaling=llama3(8.0), **LLAMA),
    "Qwen3-0.6B": shape("Qwen3ForCausalLM", 1024, 3072, 28, 16, 8, 128, 151936, 40960, True, model_type="qwen3", **QWEN),
    "Qwen2.5-0.5B": shape("Qwen2ForCausalLM", 896, 4864, 24, 14, 2, 64, 151936, 32768, True, model_type="qwen2", **QWEN),
    "Qwen2.5-7B": shape("Qwen2ForCausalLM", 3584, 18944, 28, 28, 4, 128, 152064, 32768, False, model_type="qwen2", **QWEN),
}  # fmt: skip
WORDS = {"LlamaForCausalLM": (128000, LLAMA_SPLIT, LLAMA_SPECIAL)}  # without the special tokens
QWEN_WORDS = (151643, QWEN_SPLIT, QWEN_SPECIAL)


def byte_letters():
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {**{b: chr(b) for b in shown}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def words(n):
    """n tokens and the merges that lead to them: the bytes, then runs of letters, some after a space."""
    letters = byte_letters()
    tokens, merges = [letters[b] for b in sorted(letters, key=lambda b: letters[b])], []
    space, abc = letters[32], string.ascii_lowercase

    def add(left, right):
        if len(tokens) < n:
            tokens.append(left + right)
            merges.append(f"{left} {right}")

    for a, b in itertools.product(abc, abc):
        add(a, b)
    for a in abc:
        add(space, a)
    for a, b, c in itertools.product(abc, abc, abc):
        add(a + b, c)
    for a, b, c in itertools.product(abc, abc, abc):
        add(space + a, b + c)
    for a, b, c, d in itertools.product(abc, abc, abc, abc):
        add(a + b, c + d)
    assert len(tokens) == n
    return tokens, merges


def tokenizer(kind):
    n, split, special = WORDS.get(kind, QWEN_WORDS)
    tokens, merges = words(n)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n + i, "content": text, **flags} for i, text in enumerate(special)],
        "normalizer": None if kind in WORDS else {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
                level,
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": kind in WORDS,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def write(name, folder):
    config = SHAPES[name]
    made = tokenizer(config["architectures"][0])
    text = {t["id"]: t["content"] for t in made["added_tokens"]}
    bos, eos = config["bos_token_id"], config["eos_token_id"]
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": eos},
        "tokenizer_config.json": {
            "bos_token": text[bos], "eos_token": text[eos], "chat_template": TEMPLATE,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "tokenizer.json": made,
    }  # fmt: skip
    for file, value in files.items():
        # Indented, as the real ones are: how long it takes to read them is measured.
        (folder / file).write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in [*SHAPES, "all"]:
        sys.exit(f"usage: make_shape.py NAME FOLDER; NAME is {', '.join(SHAPES)} or all")
    name, folder = sys.argv[1], Path(sys.argv[2])
    for one in SHAPES if name == "all" else [name]:
        write(one, folder / one if name == "all" else folder)


if __name__ == "__main__":
    main()
