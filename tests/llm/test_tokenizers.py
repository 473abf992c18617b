# SPDX-License-Identifier: Apache-2.0
"""Our tokenizers against `tokenizers` and `sentencepiece`: the same ids, the same text."""

import json
import random
import re

import gguf_writer
import pytest
from pipe import ADD_SPECIAL, DATA, INCREMENTAL, SKIP_SPECIAL, UNTRUSTED, Ours, first_difference
from pipe import ROOT, Refused, lines, random_bytes, random_unicode
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

TRAINED = sorted(p.parent.name for p in (DATA / "tokenizers").glob("*/tokenizer.json"))
TEXTS = {
    "lines": lines(10000),
    "unicode": random_unicode(4000),
    "bytes": random_bytes(2000),
}


@pytest.fixture(scope="module", params=TRAINED)
def pair(request):
    folder = DATA / "tokenizers" / request.param
    return Ours(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))


def same_ids(ours, theirs, texts):
    for special in (False, True):
        a = ours.encode(texts, ADD_SPECIAL if special else 0)
        b = [e.ids for e in theirs.encode_batch_fast(texts, add_special_tokens=special)]
        assert not first_difference(texts, a, b), first_difference(texts, a, b)
    return b


def same_text(ours, theirs, lists):
    for skip in (False, True):
        a = ours.decode(lists, SKIP_SPECIAL if skip else 0)
        b = theirs.decode_batch(lists, skip_special_tokens=skip)
        assert not first_difference(lists, a, b), first_difference(lists, a, b)
        assert ours.decode(lists, (SKIP_SPECIAL if skip else 0) | INCREMENTAL) == a


@pytest.mark.parametrize("kind", TEXTS)
def test_same_as_tokenizers(pair, kind):
    ours, theirs = pair
    same_text(ours, theirs, same_ids(ours, theirs, TEXTS[kind]))


def spm_texts(kind):
    """Without what our side takes for special tokens: SentencePiece has none in a text."""
    return [t for t in TEXTS[kind] if "<" not in t]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["spm_bpe", "spm_unigram"])
def test_gguf_same_as_sentencepiece(name, kind):
    folder = DATA / "tokenizers" / name
    ours, texts = Ours(folder / "model.gguf"), spm_texts(kind)
    theirs = SentencePieceProcessor(model_file=str(folder / "spm.model"))
    want = theirs.encode(texts)
    got = ours.encode(texts, UNTRUSTED)
    assert not first_difference(texts, got, want), first_difference(texts, got, want)
    text = theirs.decode(want)
    assert not first_difference(want, ours.decode(want), text), first_difference(want, ours.decode(want), text)
    assert ours.decode(want, INCREMENTAL) == text


def as_in_gguf(folder):
    """The tokenizer without what GGUF has no keys for."""
    data = json.loads((folder / "tokenizer.json").read_text())
    for added in data["added_tokens"]:
        added["rstrip"] = False
    if data["model"]["type"] == "WordPiece":
        data["model"]["max_input_chars_per_word"] = 100
    if data["normalizer"] == {"type": "NFC"}:
        data["normalizer"] = None
    return Tokenizer.from_str(json.dumps(data))


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["llama3", "qwen2", "smollm", "wordpiece"])
def test_gguf_same_as_tokenizers(name, kind):
    folder = DATA / "tokenizers" / name
    ours, theirs = Ours(folder / "model.gguf"), as_in_gguf(folder)
    same_text(ours, theirs, same_ids(ours, theirs, TEXTS[kind]))


@pytest.mark.parametrize("name", ["spm_bpe", "spm_unigram"])
def test_random_ids_decode_as_sentencepiece(name):
    """Bytes that are no character, in any order."""
    folder, rng = DATA / "tokenizers" / name, random.Random(5)
    theirs = SentencePieceProcessor(model_file=str(folder / "spm.model"))
    lists = [[rng.randrange(3, theirs.vocab_size() if i % 2 else 300) for _ in range(rng.randint(0, 20))] for i in range(3000)]
    want = theirs.decode(lists)
    for flags in (0, INCREMENTAL):
        got = Ours(folder / "model.gguf").decode(lists, flags)
        assert not first_difference(lists, got, want), first_difference(lists, got, want)


LEVEL = [chr(b) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b else "" for b in range(256)]
LEVEL = [c or chr(0x100 + sum(not d for d in LEVEL[:b])) for b, c in enumerate(LEVEL)]
GPT2 = {"model": "gpt2", "tokens": [*LEVEL, "ab", "<e>"], "token_type": [1] * 257 + [3], "merges": ["a b"]}


def gguf(path, **keys):
    ggml = {**GPT2, **keys}
    gguf_writer.write(path, {f"tokenizer.ggml.{k}": v for k, v in ggml.items() if v is not None})
    return Ours(path)


def pre_names():
    rows = (ROOT / "plugins/llm/gguf_pre.c").read_text().split("known[] = {")[1].split("};")[0]
    for row in re.findall(r'\n    \{((?:\s*"[^"]*")+)', rows):
        yield from " ".join(re.findall(r'"([^"]*)"', row)).split()


@pytest.mark.parametrize("pre", sorted(pre_names()))
def test_every_pre_name_cuts(pre, tmp_path):
    ours = gguf(tmp_path / "m.gguf", pre=pre, bos_token_id=257)
    texts = TEXTS["lines"][:300] + TEXTS["unicode"][:300]
    ids = ours.encode(texts, UNTRUSTED)
    assert ours.decode(ids) == texts
    assert ours.encode(["ab a"], UNTRUSTED) == [[256, 32, 97]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": None}, "no tokenizer.ggml.model"),
        ({"model": "rwkv"}, "'rwkv' is not known; bert, gpt2, llama and t5 are"),
        ({"pre": "nonsense"}, "tokenizer.ggml.pre 'nonsense' is not known; these and their kin are: default"),
        ({"tokens": None}, "tokenizer.ggml.tokens has 0 texts"),
        ({"tokens": ["a", "a"]}, "token 'a' has both id 0 and id 1"),
        ({"tokens": ["a", b"\xff"]}, "token 1 is not valid UTF-8"),
        ({"token_type": [1]}, "token_type has 1 numbers for 258 tokens"),
        ({"merges": None}, "merges has 0 texts"),
        ({"merges": ["ab"]}, "merge 0 has no space in it"),
        ({"merges": ["a xyz"]}, "merge 0, 'a' and 'xyz': the second is not in the vocabulary"),
        ({"bos_token_id": 258}, "bos_token_id is 258; there are 258 tokens"),
        ({"add_bos_token": True}, "add_bos_token is true, but there is no such token"),
        ({"model": "llama"}, "tokenizer.ggml.scores has 0 numbers for 258 tokens"),
        ({"model": "llama", "tokens": ["a"], "scores": [0.0], "token_type": None}, "bos is 1 and eos 2; there are 1"),
        ({"model": "t5", "tokens": ["a"], "scores": [0.0], "token_type": None}, "there is no tokenizer.ggml.unknown"),
        ({"model": "t5", "scores": [0.0] * 258, "precompiled_charsmap": [1, 2, 3]}, "the character map of 3 bytes"),
        ({"model": "bert", "tokens": ["a"], "token_type": None}, "are no tokens; there are 1"),
    ],
)
def test_bad_gguf(keys, message, tmp_path):
    with pytest.raises(Refused, match=re.escape(message)) as refused:
        gguf(tmp_path / "m.gguf", **{"pre": "gpt-2", **keys}).encode(["a"])
    assert "m.gguf" in str(refused.value)
