# SPDX-License-Identifier: Apache-2.0
"""bench/make_shape.py: our loader and `tokenizers` take its folders, and see the real model's sizes."""

import json
import subprocess
import sys

import pytest
from pipe import ADD_SPECIAL, BUILD, ROOT, Ours, first_difference, lines
from tokenizers import Tokenizer

# Billions of weights, in bf16: half as many as the files of the real ones have bytes.
WEIGHTS = {"Llama-3.2-1B": 1.2358, "Llama-3.1-8B": 8.0303, "Qwen3-0.6B": 0.5960, "Qwen2.5-7B": 7.6156}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    subprocess.run([sys.executable, ROOT / "bench/make_shape.py", "all", folder], check=True)
    return folder


@pytest.mark.parametrize("name", WEIGHTS)
def test_tokenizers_agree(shapes, name):
    ours, theirs = Ours(shapes / name), Tokenizer.from_file(str(shapes / name / "tokenizer.json"))
    texts = lines(1000) + ["The capital of France is Paris.", "<|im_start|>user\nhi<|im_end|>", " 1234 été 你好"]
    a, b = ours.encode(texts, ADD_SPECIAL), [e.ids for e in theirs.encode_batch(texts)]
    assert not first_difference(texts, a, b), first_difference(texts, a, b)
    assert ours.decode(a) == theirs.decode_batch(b, skip_special_tokens=False)
    config = json.loads((shapes / name / "config.json").read_text())
    assert theirs.get_vocab_size() <= config["vocab_size"]


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_plugin_plans_the_real_size(shapes, tmp_path, name):
    """With made-up weights and a budget that any machine has; nothing is loaded."""
    config = {"model": str(shapes / name), "load_format": "dummy", "device": "cpu"}
    deployment = {"name": "x", "config": config}
    file = tmp_path / "app.yaml"
    file.write_text(json.dumps({"applications": [{"name": "x", "plugin": "llm", "deployments": [deployment]}]}))
    command = [BUILD / "salver", "check", file, "--plugins", BUILD / "plugins"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert got.returncode == 0, got.stderr


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weights_are_as_many(shapes, name):
    c = json.loads((shapes / name / "config.json").read_text())
    d, ff, head, vocab = c["hidden_size"], c["intermediate_size"], c["head_dim"], c["vocab_size"]
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    bias = q + 2 * kv if c["model_type"] == "qwen2" else 0
    norms = 2 * d + (2 * head if c["model_type"] == "qwen3" else 0)
    layer = d * (2 * q + 2 * kv) + 3 * d * ff + bias + norms
    total = c["num_hidden_layers"] * layer + d + vocab * d * (1 if c["tie_word_embeddings"] else 2)
    assert total / 1e9 == pytest.approx(WEIGHTS[name], abs=1e-4)
