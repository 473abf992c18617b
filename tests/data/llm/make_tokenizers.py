#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains one small tokenizer of each kind on corpus.txt and writes them to tokenizers/NAME/.

Needs tokenizers 0.23.3 and sentencepiece 0.2.3 (tests/requirements.txt), and for the GGUF files gguf
0.19.0. Run it in this folder; what it wrote is committed. Patterns are those of the models named.
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = pathlib.Path(__file__).parent
LINES = (HERE / "corpus.txt").read_text().splitlines()
OUT = HERE / "tokenizers"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")
HAN = "&&[^\\p{Han}]]"
KIMI = r"[\p{Han}]+|" + O200K.replace(UPPER, UPPER[:-1] + HAN).replace(LOWER, LOWER[:-1] + HAN)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROLS = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"]


def save(name, tokenizer):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False))


def template(tokenizer, single):
    names = [w for w in single.split() if w != "$A"]
    return processors.TemplateProcessing(
        single=single, special_tokens=[(n, tokenizer.token_to_id(n)) for n in names]
    )


def splits(*patterns):
    return [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]


def byte_level(name, steps, normalizer=None, ignore_merges=False, single=None, post=None, vocab=560):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=CONTROLS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    t.train_from_iterator(LINES, trainer)
    t.add_tokens(["<tool>", AddedToken("</tool>", rstrip=True, normalized=False)])
    if single:
        t.post_processor = template(t, single)
    elif post:
        t.post_processor = post(t)
    save(name, t)


def all_byte_level():
    level = pre_tokenizers.ByteLevel
    plain = level(add_prefix_space=False, use_regex=False)
    byte_level("gpt2", [level(add_prefix_space=False)], post=lambda t: processors.ByteLevel())
    byte_level(
        "roberta",
        [level(add_prefix_space=True)],
        post=lambda t: processors.RobertaProcessing(("<|end|>", 1), ("<|begin|>", 0)),
    )
    byte_level("llama3", [*splits(LLAMA3), plain], ignore_merges=True, single="<|begin|> $A")
    byte_level("qwen2", [*splits(QWEN2), plain], normalizer=normalizers.NFC())
    byte_level("cl100k", [*splits(CL100K), plain])
    byte_level("o200k", [*splits(O200K), plain])
    byte_level("tekken", [*splits(TEKKEN), plain], ignore_merges=True)
    byte_level("kimi", [*splits(KIMI), plain])
    byte_level("smollm", [pre_tokenizers.Digits(True), level(add_prefix_space=False)])
    byte_level("deepseek3", [*splits(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3), plain])


if __name__ == "__main__":
    all_byte_level()
