# SPDX-License-Identifier: Apache-2.0
"""Our tokenizers against `tokenizers` and `sentencepiece`: the same ids, the same text."""

import json
import random

import pytest
from pipe import ADD_SPECIAL, DATA, INCREMENTAL, SKIP_SPECIAL, UNTRUSTED, Ours, first_difference
from pipe import lines, random_bytes, random_unicode
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
        b = [e.ids for e in theirs.encode_batch(texts, add_special_tokens=special)]
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
