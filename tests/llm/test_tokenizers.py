# SPDX-License-Identifier: Apache-2.0
"""Our tokenizers against `tokenizers` and `sentencepiece`: the same ids, the same text."""

import pytest
from pipe import ADD_SPECIAL, DATA, INCREMENTAL, SKIP_SPECIAL, Ours, first_difference
from pipe import lines, random_bytes, random_unicode
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
