#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains one small tokenizer of each kind on corpus.txt and writes them to tokenizers/NAME/.

Needs tokenizers 0.23.3 and sentencepiece 0.2.3 (tests/requirements.txt), and for the GGUF files gguf
0.19.0. Run it in this folder; what it wrote is committed. Patterns are those of the models named.
"""

import json
import pathlib

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
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


def train(tokenizer, trainer, name):
    tokenizer.train_from_iterator(LINES, trainer)
    save(name, tokenizer)
    return tokenizer


def sentencepiece_like():
    """Llama's way of BPE, from `tokenizers` alone."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=names, show_progress=False, limit_alphabet=250, max_token_length=12
    )
    # Without words the trainer would join over spaces.
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    t.train_from_iterator(LINES, trainer)
    t.pre_tokenizer = None
    model = json.loads(t.to_str())
    model["added_tokens"] = [a for a in model["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(model))
    t.post_processor = template(t, "<s> $A </s>")
    save("sp_bpe", t)


def bert():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=names, show_progress=False)
    t.train_from_iterator(LINES, trainer)
    t.post_processor = template(t, "[CLS] $A [SEP]")
    save("wordpiece", t)
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(True)]
    )
    t.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    t.add_tokens([AddedToken("Everyone", single_word=True), AddedToken("FREE", normalized=True)])
    save("wordpiece_odd", t)


def suffixes():
    """CLIP's end-of-word suffix, with what the older models have around it."""
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=True))
    t.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    t.decoder = decoders.BPEDecoder("</w>")
    names = ["<unk>", "<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=names, end_of_word_suffix="</w>", show_progress=False, limit_alphabet=200
    )
    t.train_from_iterator(LINES, trainer)
    t.post_processor = processors.BertProcessing(("<|end|>", 2), ("<|begin|>", 1))
    save("suffix", t)
    t.model.fuse_unk = False
    save("suffix_unfused", t)


def unigram(name, lines, size, scheme, split, byte_fallback):
    t = Tokenizer(models.Unigram())
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    t.normalizer = normalizers.Sequence(steps)
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    t.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)
    names = ["<s>", "</s>", "<unk>"] + ([f"<0x{i:02X}>" for i in range(256)] if byte_fallback else [])
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(lines, trainer)
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    data = json.loads(t.to_str())
    data["model"]["byte_fallback"] = byte_fallback
    data["added_tokens"] = [a for a in data["added_tokens"] if not a["content"].startswith("<0x")]
    if byte_fallback:
        steps = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme, split=split)]
        t.decoder = decoders.Sequence(steps[::-1])
        data["decoder"] = json.loads(t.to_str())["decoder"]
    t = Tokenizer.from_str(json.dumps(data))
    t.post_processor = template(t, "$A </s>")
    save(name, t)


RULES = {  # of a small normalization map: longest first counts, some go, some become more
    "ﬁ": "fi", "ﬂ": "fl", "½": "1/2", "１": "1", "２": "2", "３": "3", "Ａ": "A", "Ｂ": "B", "Ｃ": "C",
    "\u00a0": " ", "\u3000": " ", "\t": " ", "\n": " ", "\r": "", "\u200b": "", "…": "...", "e\u0301": "\u00e9", "\u2581": " ",
    "ｶﾞ": "ガ", "ｶ": "カ", "ﾊ": "ハ", "ﾝ": "ン", "ｸ": "ク", "™": "tm", "\x7f": "", "№": "No",
}  # fmt: skip


def spm(name, kind, size, **options):
    """A SentencePiece model, and the GGUF and tokenizer.json that converters make of it."""
    (OUT / name).mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES[:31]),
        model_prefix=str(OUT / name / "spm"),
        model_type=kind,
        vocab_size=size,
        byte_fallback=True,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    (OUT / name / "spm.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(OUT / name / "spm.model"))


def kinds(sp):
    """token_type of GGUF, as llama.cpp's converter sets it."""
    for i in range(sp.vocab_size()):
        yield (
            2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 5 if sp.is_unused(i) else 6 if sp.is_byte(i) else 1
        )


def gguf_file(path, model, tokens, types, scores=None, merges=None, **keys):
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores:
        w.add_token_scores(scores)
    if merges:
        w.add_token_merges(merges)
    for key, value in keys.items():
        add = w.add_bool if isinstance(value, bool) else w.add_uint32 if isinstance(value, int) else w.add_string
        if isinstance(value, (bytes, list)):
            add = w.add_array
            value = list(value)
        add(f"tokenizer.ggml.{key}", value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def from_spm(name, sp, model, **keys):
    n = sp.vocab_size()
    gguf_file(
        OUT / name / "model.gguf",
        model,
        [sp.id_to_piece(i) for i in range(n)],
        list(kinds(sp)),
        [sp.get_score(i) for i in range(n)],
        unknown_token_id=sp.unk_id(),
        bos_token_id=sp.bos_id(),
        eos_token_id=sp.eos_id(),
        **keys,
    )


def normalizer_of(model_file):
    """The serialized map inside a SentencePiece model."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model_file.read_bytes())
    return proto.normalizer_spec.precompiled_charsmap


def all_sentencepiece():
    sp = spm("spm_bpe", "bpe", 1400, normalization_rule_name="identity", remove_extra_whitespaces=False)
    from_spm("spm_bpe", sp, "llama")
    rules = OUT / "rules.tsv"
    hexes = lambda text: " ".join(f"{ord(c):X}" for c in text)  # noqa: E731
    rules.write_text("".join(f"{hexes(k)}\t{hexes(v)}\n" for k, v in RULES.items()))
    sp = spm("spm_unigram", "unigram", 1250, normalization_rule_tsv=str(rules))
    rules.unlink()
    charsmap = normalizer_of(OUT / "spm_unigram" / "spm.model")
    from_spm("spm_unigram", sp, "t5", precompiled_charsmap=charsmap, remove_extra_whitespaces=True)
    t = Tokenizer(models.Unigram([(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.vocab_size())], 0, True))
    t.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
    )
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = template(t, "$A </s>")
    save("spm_unigram", t)


def all_gguf():
    """What llama.cpp's converter makes of some of the others."""
    for name, pre in (("llama3", "llama-bpe"), ("qwen2", "qwen2"), ("smollm", "smollm")):
        t = json.loads((OUT / name / "tokenizer.json").read_text())
        vocab = {**t["model"]["vocab"], **{a["content"]: a["id"] for a in t["added_tokens"]}}
        types = {a["id"]: 3 if a["special"] else 4 for a in t["added_tokens"]}
        tokens = sorted(vocab, key=vocab.get)
        gguf_file(
            OUT / name / "model.gguf",
            "gpt2",
            tokens,
            [types.get(i, 1) for i in range(len(tokens))],
            merges=[" ".join(m) for m in t["model"]["merges"]],
            pre=pre,
            bos_token_id=0,
            eos_token_id=1,
        )
    t = json.loads((OUT / "wordpiece" / "tokenizer.json").read_text())
    vocab = t["model"]["vocab"]
    phantom = [w if w[0] + w[-1] == "[]" else w[2:] if w.startswith("##") else "▁" + w for w in sorted(vocab, key=vocab.get)]
    gguf_file(
        OUT / "wordpiece" / "model.gguf",
        "bert",
        phantom,
        [3 if i < 5 else 1 for i in range(len(phantom))],
        cls_token_id=vocab["[CLS]"],
        seperator_token_id=vocab["[SEP]"],
        unknown_token_id=vocab["[UNK]"],
    )


if __name__ == "__main__":
    all_byte_level()
    sentencepiece_like()
    bert()
    suffixes()
    unigram("unigram", LINES[:30], 1300, "always", True, False)
    unigram("unigram_bytes", LINES[:14], 900, "first", False, True)
    all_sentencepiece()
    all_gguf()
