# SPDX-License-Identifier: Apache-2.0
"""Where patterns cut a text: each word gets a space before it, which its first id shows."""

import pytest
from pipe import Ours, first_difference, lines, random_unicode
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

TEXTS = lines(1200, seed=11) + random_unicode(1500, seed=12)
CATEGORIES = "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf Co".split()
REGEXES = [
    *(rf"\p{{{c}}}" for c in CATEGORIES),
    *(rf"[[:{c}:]]+" for c in "alpha digit space punct alnum cntrl xdigit word blank upper lower graph print".split()),
    *(rf"\p{{{c}}}+" for c in "Han Hiragana Katakana Hangul Latin Cyrillic Greek Arabic Hebrew Thai Devanagari".split()),
    r"\s+", r"\S+", r"\w+", r"\W+", r"\d+", r"\D+", r"\h+", r"\H+",
    r"\P{L}+", r"\p{^L}+", r"[^\p{L}]+", r"[\P{L}\p{Lu}]+", r"[^\S\n]+", r"[^\W\d_]+",
    r"\p{N}{1,3}+", r"a{2}+b", r"\p{N}{,2}", r"\p{N}{2,}?", r"a{,}", r"x{a}", r"\{", r"[a-z]{2}",
    r"\bt", r"\Bt", r"(?<=a)b", r"(?<!a)b", r"(?>a+)b", r"^.", r".$", r"\Aa", r"e\z", r"(?m:a.b)", r"\R",
    r"[\p{L}&&[^\p{Han}a-f]]+", r"[^\p{L}&&[a-z]]+", r"[a-f[x-z]]+", r"[[a-c][xy]]+", r"[^[a-c][xy]]+", r"[\P{L}\P{Lu}]", r"[a[^\p{L}]]+", r"[]a]", r"[a\]b-]+", r"[+-]+",
    r"(?i:straße|'S|k)", r"(?i)THE", r"(?i:the|a(?-i:N))d?", r"\x41|\x{e9}|\u00e8", r"(a)(?:b)(?#c)?", r"a|", r"(?=a)",
    r"\d{1,3}(?=(?:\d{3})*\b)", r"(?=(\d{3})+(?!\d))", r"\s+(?!\S)|\s+", r"\s*[\r\n]+", r"a++a|a?+b|c*+", "a#b|#",
]  # fmt: skip
BEHAVIORS = ["isolated", "removed", "contiguous", "merged_with_previous", "merged_with_next"]


def make(folder, *steps):
    level = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    t.pre_tokenizer = pre_tokenizers.Sequence([*steps, level])
    (folder / "tokenizer.json").write_text(t.to_str())
    return t


def compare(folder, *steps):
    theirs = make(folder, *steps)
    want = [e.ids for e in theirs.encode_batch(TEXTS)]
    got = Ours(folder).encode(TEXTS)
    assert not first_difference(TEXTS, got, want), first_difference(TEXTS, got, want)


@pytest.mark.parametrize("regex", REGEXES)
def test_regex(regex, tmp_path):
    compare(tmp_path, pre_tokenizers.Split(Regex(regex), "isolated"))


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_behavior(behavior, invert, tmp_path):
    compare(tmp_path, pre_tokenizers.Split(Regex(r"[aeiou]|\s|\d\d"), behavior, invert))
    compare(tmp_path, pre_tokenizers.Split("aa", behavior, invert))


P = pre_tokenizers
STEPS = {
    "whitespace": P.Whitespace(),
    "whitespace_split": P.WhitespaceSplit(),
    "bert": P.BertPreTokenizer(),
    "digits": P.Digits(False),
    "each_digit": P.Digits(True),
    "delimiter": P.CharDelimiterSplit("e"),
    "metaspace": P.Metaspace(),
    "metaspace_first": P.Metaspace(prepend_scheme="first"),
    "metaspace_whole": P.Metaspace(prepend_scheme="never", split=False),
    "byte_level": P.ByteLevel(),
    "fixed": P.FixedLength(3),
    **{f"punctuation_{b}": P.Punctuation(b) for b in BEHAVIORS},
}


@pytest.mark.parametrize("name", STEPS)
def test_step(name, tmp_path):
    compare(tmp_path, STEPS[name])
