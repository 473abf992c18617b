#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny random checkpoints tiny-*/ and tiny-*.gguf, and what transformers says of each.

Needs torch, transformers 5, tokenizers, safetensors and gguf; tests need only what it wrote. Run it
with the names of the checkpoints to make (all without): a name's weights depend on its seed alone.

A folder is one in Hugging Face's layout with reference.json beside it: ids of a prompt, the logits
of its last positions, the 64 ids that greedy decoding then gives, all in float32. A GGUF has
NAME.json, made from the weights as they are in the file, dequantised.
"""
import json
import os
import sys

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB = 320
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PROMPT, POSITIONS, GREEDY, LEAST_GAP = 45, 3, 64, .02
TEXT = """The quick brown fox jumps over the lazy dog. The capital of France is Paris, and the capital of
Japan is Tokyo. You are a helpful assistant. What is the answer to this question? The user asks and the
assistant answers in a few short sentences. There is a time for everything, and a season for every
activity under the heavens. 1 2 3 4 5 6 7 8 9 10 100 1000. Hello, world! How are you today?"""
TEMPLATE = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ \
'<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + \
message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if \
add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

SHAPE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, vocab_size=VOCAB, max_position_embeddings=8192,
             rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)


def row(model, seed, dtype, rope=None, theta=10000.0, old=False, shards=1, template="jinja", q=None,
        eos=(2, 0), generation=None, **config):
    """old: config.json as transformers 4 wrote it; q: tensor types of the GGUF, by pattern."""
    return dict(model=model, seed=seed, dtype=dtype, rope=rope, theta=theta, old=old, shards=shards,
                template=template, q=q, eos=list(eos), generation=generation or {}, config=config)


ROWS = {
    "tiny-llama": row("Llama", 1, "float32", tie_word_embeddings=True,
                      generation=dict(do_sample=True, temperature=0.6, top_p=0.9),
                      q={"": "F32"}),
    "tiny-llama-bias": row("Llama", 2, "bfloat16", rope=dict(rope_type="linear", factor=2.0), old=True,
                           shards=2, template="string", tie_word_embeddings=False,
                           attention_bias=True, mlp_bias=True, eos=(2,), q={"": "Q4_1", "embd": "Q8_0"}),
    "tiny-llama3": row("Llama", 3, "bfloat16", rope=LLAMA3, theta=500000.0, old=True, template="named",
                       tie_word_embeddings=True, q={"": "Q5_0", "embd": "Q5_1"}),
    "tiny-mistral": row("Mistral", 4, "float16", sliding_window=24, tie_word_embeddings=False,
                        q={"": "Q8_0", "embd": "F16", "output": "F16"}),
    "tiny-qwen2": row("Qwen2", 5, "bfloat16", use_sliding_window=True, sliding_window=24,
                      max_window_layers=1, head_dim=8, tie_word_embeddings=False),
    "tiny-qwen2-yarn": row("Qwen2", 6, "bfloat16", rope=YARN, theta=1000000.0, old=True, head_dim=8,
                           tie_word_embeddings=True, q={"": "Q4_0", "embd": "BF16"}),
    "tiny-qwen3": row("Qwen3", 7, "bfloat16", theta=1000000.0, tie_word_embeddings=True,
                      rms_norm_eps=1e-6, generation=dict(do_sample=True, temperature=0.6, top_p=0.95, top_k=20),
                      q={"": "Q4_1", "down": "Q5_1", "embd": "Q8_0"}),
}


def make_tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    assert t.get_vocab_size() == VOCAB
    return t


def make_model(r):
    """Random weights, wide enough that the best token is seldom close to the second."""
    cls = getattr(transformers, r["model"] + "ForCausalLM")
    rope = dict(r["rope"] or dict(rope_type="default"), rope_theta=r["theta"])
    shape = dict(SHAPE, **r["config"])
    if r["model"] == "Qwen2":
        shape.pop("head_dim") # it has none of its own
    config = getattr(transformers, r["model"] + "Config")(rope_parameters=rope, **shape)
    config.architectures = [cls.__name__]
    config._attn_implementation = "eager"
    model = cls(config).float().eval()
    g = torch.Generator().manual_seed(r["seed"])
    std = {"q_proj": .3, "k_proj": .3, "v_proj": .4, "o_proj": .6, "gate_proj": .3, "up_proj": .3,
           "down_proj": .6, "embed_tokens": .5, "lm_head": .5}
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            kind = next((k for k in std if k in name), None)
            p.copy_(1 + .2 * noise if "norm" in name else .3 * noise if name.endswith(".bias")
                    else std[kind] * noise)
            p.copy_(p.to(getattr(torch, r["dtype"])).float())
    return model


def reference(model, seed):
    """The first of some random prompts at which greedy decoding never meets a near tie."""
    g = torch.Generator().manual_seed(1000 + seed)
    for _ in range(100):
        r = decode(model, torch.randint(len(SPECIAL), VOCAB, (PROMPT,), generator=g).tolist())
        if r["least_gap"] >= LEAST_GAP:
            print("  least gap %g, spread %.2f, distinct of %d: %d" % (
                r["least_gap"], np.std(r["logits"]), GREEDY, len(set(r["greedy"]))))
            return r
    raise SystemExit("no prompt without a near tie; try another seed")


def decode(model, prompt):
    ids, gaps, greedy = list(prompt), [], []
    with torch.no_grad():
        last = model(torch.tensor([ids])).logits[0, -POSITIONS:]
        for _ in range(GREEDY):
            top = model(torch.tensor([ids])).logits[0, -1].topk(2)
            gaps.append((top.values[0] - top.values[1]).item())
            greedy.append(top.indices[0].item())
            ids.append(greedy[-1])
            if gaps[-1] < LEAST_GAP:
                break
    return dict(prompt=prompt, logits=[[float("%.9g" % v) for v in row] for row in last.tolist()],
                greedy=greedy, least_gap=float("%.3g" % min(gaps)))


def write_json(path, value, indent=2):
    with open(path, "w") as f:
        json.dump(value, f, indent=indent, ensure_ascii=False)
        f.write("\n")


def write_config(folder, model, r):
    c = model.config.to_dict()
    keep = {k: v for k, v in c.items() if k in (
        "architectures", "attention_bias", "mlp_bias", "attention_dropout", "bos_token_id",
        "eos_token_id", "head_dim", "hidden_act", "hidden_size", "initializer_range",
        "intermediate_size", "layer_types", "max_position_embeddings", "max_window_layers",
        "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
        "rms_norm_eps", "rope_parameters", "sliding_window", "tie_word_embeddings", "use_cache",
        "use_sliding_window", "vocab_size")}
    if r["old"]:
        rope = dict(keep.pop("rope_parameters"))
        keep["rope_theta"] = rope.pop("rope_theta")
        keep["rope_scaling"] = rope
        if rope["rope_type"] == "linear":
            rope["type"] = rope.pop("rope_type") # before 4.43
        keep["torch_dtype"] = r["dtype"]
        keep.pop("layer_types", None)
        keep["transformers_version"] = "4.46.0"
    else:
        keep["dtype"] = r["dtype"]
        keep["transformers_version"] = transformers.__version__
    write_json(folder + "/config.json", keep)
    write_json(folder + "/generation_config.json", dict(
        bos_token_id=1, eos_token_id=r["eos"] if len(r["eos"]) > 1 else r["eos"][0], pad_token_id=0,
        **r["generation"]))


def write_tokenizer(folder, tokenizer, r):
    tokenizer.save(folder + "/tokenizer.json")
    config = dict(
        added_tokens_decoder={str(i): dict(content=s, lstrip=False, normalized=False, rstrip=False,
                                           single_word=False, special=True)
                              for i, s in enumerate(SPECIAL)},
        bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0], unk_token=SPECIAL[0],
        clean_up_tokenization_spaces=False, model_max_length=8192,
        tokenizer_class="PreTrainedTokenizerFast")
    if r["template"] == "string":
        config["chat_template"] = TEMPLATE
    elif r["template"] == "named":
        config["chat_template"] = [dict(name="tool_use", template="{{ raise_exception('tools') }}"),
                                   dict(name="default", template=TEMPLATE)]
    else:
        with open(folder + "/chat_template.jinja", "w") as f:
            f.write(TEMPLATE)
    write_json(folder + "/tokenizer_config.json", config)


def write_weights(folder, model, r):
    tied = model.config.tie_word_embeddings
    tensors = {k: v.to(getattr(torch, r["dtype"])).contiguous() for k, v in model.state_dict().items()
               if not (tied and k == "lm_head.weight")}
    if r["shards"] == 1:
        save_file(tensors, folder + "/model.safetensors", metadata={"format": "pt"})
        return
    names, where = sorted(tensors), {}
    for i in range(r["shards"]):
        file = "model-%05d-of-%05d.safetensors" % (i + 1, r["shards"])
        part = names[i::r["shards"]]
        save_file({n: tensors[n] for n in part}, folder + "/" + file, metadata={"format": "pt"})
        where.update({n: file for n in part})
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(folder + "/model.safetensors.index.json",
               dict(metadata=dict(total_size=size), weight_map=dict(sorted(where.items()))))


GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, end = rest.rsplit(".", 1)
    return "blk.%s.%s.%s" % (layer, GGUF_NAMES[part], end)


def permute(w, heads, back=False):
    """From halves to pairs, as convert_hf_to_gguf.py of llama.cpp turns the rows of q and k."""
    n = w.shape[0] // heads // 2
    shape = (heads, n, 2) if back else (heads, 2, n)
    return w.reshape(*shape, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def heads_of(name, config):
    for part, n in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
        if part in name and config.model_type in ("llama", "mistral"):
            return n
    return 0


def write_gguf(path, model, tokenizer, r):
    """Returns the weights as the file has them."""
    c = model.config
    arch = "llama" if c.model_type == "mistral" else c.model_type
    w = gguf.GGUFWriter(path, arch)
    write_gguf_keys(w, arch, c, r)
    write_gguf_tokenizer(w, tokenizer, r)
    state = {}
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        a, heads, out = t.float().numpy(), heads_of(name, c), gguf_name(name)
        if heads:
            a = permute(a, heads)
        kind = "F32" if a.ndim == 1 else next(
            v for k, v in sorted(r["q"].items(), key=lambda kv: -len(kv[0])) if k in out)
        kind = gguf.GGMLQuantizationType[kind]
        raw = gguf.quants.quantize(np.ascontiguousarray(a), kind)
        w.add_tensor(out, raw, raw_dtype=kind)
        a = gguf.quants.dequantize(raw, kind).astype(np.float32).reshape(a.shape)
        state[name] = torch.tensor(permute(a, heads, back=True) if heads else a)
    if r["rope"] is LLAMA3:
        w.add_tensor("rope_freqs.weight", llama3_divisors(c))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return state


def write_gguf_keys(w, arch, c, r):
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(r["theta"])
    w.add_vocab_size(c.vocab_size)
    if head_dim * c.num_attention_heads != c.hidden_size:
        w.add_key_length(head_dim)
        w.add_value_length(head_dim)
    if arch == "llama":
        w.add_rope_dimension_count(head_dim)
    if r["model"] == "Mistral":
        w.add_sliding_window(c.sliding_window)
    if r["rope"] and r["rope"]["rope_type"] in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(r["rope"]["rope_type"]))
        w.add_rope_scaling_factor(r["rope"]["factor"])
        if "original_max_position_embeddings" in r["rope"]:
            w.add_rope_scaling_orig_ctx_len(r["rope"]["original_max_position_embeddings"])


def write_gguf_tokenizer(w, tokenizer, r):
    vocab = {i: t for t, i in tokenizer.get_vocab().items()}
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([vocab[i] for i in range(VOCAB)])
    w.add_token_types([gguf.TokenType.CONTROL if i < len(SPECIAL) else gguf.TokenType.NORMAL
                       for i in range(VOCAB)])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m)
                        for m in json.loads(tokenizer.to_str())["model"]["merges"]])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_pad_token_id(0)
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)


def llama3_divisors(c):
    """rope_freqs.weight: what each frequency is divided by (convert_hf_to_gguf.py, LlamaModel)."""
    p, n = c.rope_parameters, c.head_dim
    freqs = 1.0 / (p["rope_theta"] ** (torch.arange(0, n, 2, dtype=torch.float32) / n))
    low = p["original_max_position_embeddings"] / p["low_freq_factor"]
    high = p["original_max_position_embeddings"] / p["high_freq_factor"]
    out = []
    for f in freqs:
        length = 2 * np.pi / f
        if length < high:
            out.append(1)
        elif length > low:
            out.append(p["factor"])
        else:
            smooth = (p["original_max_position_embeddings"] / length - p["low_freq_factor"]) / (
                p["high_freq_factor"] - p["low_freq_factor"])
            out.append(1 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def main():
    tokenizer = make_tokenizer()
    for name in sys.argv[1:] or ROWS:
        r = ROWS[name]
        print(name)
        model, folder = make_model(r), HERE + "/" + name
        os.makedirs(folder, exist_ok=True)
        write_config(folder, model, r)
        write_tokenizer(folder, tokenizer, r)
        write_weights(folder, model, r)
        for file in os.listdir(folder):
            os.chmod(folder + "/" + file, 0o644)
        own = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        write_json(folder + "/reference.json", reference(own, r["seed"]), indent=None)
        if r["q"]:
            print(name + ".gguf")
            state = write_gguf(folder + ".gguf", model, tokenizer, r)
            if model.config.tie_word_embeddings:
                state["lm_head.weight"] = state["model.embed_tokens.weight"]
            model.load_state_dict(state)
            write_json(folder + ".gguf.json", reference(model, r["seed"]), indent=None)


main()
