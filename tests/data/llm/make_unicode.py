#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of plugins/llm/unicode.c, unicode_old.c and regex_names.c anew.

Asks `tokenizers` (0.23.3) about every character. Run it by a Python whose unicodedata is of Unicode 14 (3.11),
the oldest that the libraries below us know; then format with clang-format and look at the difference.
"""

import pathlib
import re
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0"
LLM = pathlib.Path(__file__).resolve().parents[3] / "plugins/llm"
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
POSIX = {
    "alpha": "L Nl", "alnum": "L Nl Nd", "word": "L M Nd Nl Pc", "upper": "Lu", "lower": "Ll",
    "graph": "L M N P S Cf Co", "print": "L M N P S Zs Cf Co", "blank": "Zs", "punct": "P S", "cntrl": "Cc",
    "digit": "Nd", "space": "", "xdigit": "",
}  # fmt: skip
NAMES = {
    "letter": "L", "mark": "M", "number": "N", "punctuation": "P", "symbol": "S", "separator": "Z",
    "lowercaseletter": "Ll", "uppercaseletter": "Lu", "titlecaseletter": "Lt", "modifierletter": "Lm",
    "otherletter": "Lo", "decimalnumber": "Nd",
}  # fmt: skip
SCRIPTS = (
    "Arabic Armenian Bengali Bopomofo Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul "
    "Hebrew Hiragana Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar Oriya Sinhala Tamil Telugu Thai "
    "Tibetan"
).split()


def members(pattern):
    split, found = pre_tokenizers.Split(Regex(pattern), "removed"), set()
    for i in range(0, len(ALL), 8192):
        chunk = ALL[i : i + 8192]
        kept = set()
        for _, (begin, end) in split.pre_tokenize_str("".join(map(chr, chunk))):
            kept.update(range(begin, end))
        found.update(c for j, c in enumerate(chunk) if j not in kept)
    return found


def ranges(chars, label=lambda c: None):
    made = []
    for c in sorted(chars):
        if made and made[-1][1] == c - 1 and made[-1][2] == label(c):
            made[-1][1] = c
        else:
            made.append([c, c, label(c)])
    return made


CATEGORY = {c: g for g in CATEGORIES for c in members(rf"\p{{{g}}}")}


def of(*wanted):
    return {c for c in ALL if CATEGORY.get(c, "Cn") in wanted or CATEGORY.get(c, "Cn")[0] in wanted}


def new_ranges():
    new = [c for c in ALL if CATEGORY.get(c, "Cn") != unicodedata.category(chr(c))]
    return "".join(f'{{{a:#x}, {b:#x}, "{g}"}}, ' for a, b, g in ranges(new, lambda c: CATEGORY.get(c, "Cn")))


def emptied(normalizer):
    return {c for c in ALL if normalizer.normalize_str(chr(c)) == ""}


def cutting(step):
    return {c for c in ALL if len(step.pre_tokenize_str("a" + chr(c) + "a")) > 1}


def bert(**on):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **on})


def moves(nfd, c, combining):
    """Whether the normal form takes the combining class of c for 0: it does not trade places."""
    text = "a" + chr(c) + "\u0334" if combining > 1 else "a\u0301" + chr(c)
    return nfd.normalize_str(text) != unicodedata.normalize("NFD", text)


def opposites():
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    symbols = {c for c in range(0x21, 0x7F) if not chr(c).isalnum()}
    known = [c for c in ALL if CATEGORY.get(c, "Cn") == unicodedata.category(chr(c))]
    yield "mark", emptied(normalizers.StripAccents()) ^ of("M")
    yield "nonspacing", emptied(bert(strip_accents=True)) ^ of("Mn")
    yield "other", ((emptied(bert(clean_text=True)) | {9, 10, 13}) ^ of("Cc", "Cf", "Co")) - {0xFFFD}
    yield "punctuation", cutting(pre_tokenizers.Punctuation()) ^ (of("P") | symbols)
    yield "numeric", cutting(pre_tokenizers.Digits(True)) ^ of("N")
    yield "whole", {
        c
        for c in ALL
        if nfkd.normalize_str(chr(c)) != unicodedata.normalize("NFKD", chr(c))
        or nfd.normalize_str(chr(c)) != unicodedata.normalize("NFD", chr(c))
    }
    classes = ((c, unicodedata.combining(chr(c))) for c in known)
    yield "class0", {c for c, combining in classes if combining and moves(nfd, c, combining)}


def items(chars):
    return "".join(f"\\\\x{{{a:x}}}" + (f"-\\\\x{{{b:x}}}" if a != b else "") for a, b, _ in ranges(chars))


def literal(text):
    """In pieces of a line, cut before an item."""
    pieces = re.findall(r"(?:\\\\x\{\w+\}(?:-\\\\x\{\w+\})?){1,7}", text)
    return "\n     ".join(f'"{p}"' for p in pieces or [""])


def class_rows():
    yield "any", "", '"\\\\x{0}-\\\\x{10ffff}"'
    yield "ascii", "", '"\\\\x{0}-\\\\x{7f}"'
    for name, categories in NAMES.items():
        yield name, categories, '""'
    for name, categories in POSIX.items():
        found, base = members(f"[[:{name}:]]"), of(*categories.split()) if categories else set()
        assert not base - found, name
        yield name, categories, "ALPHABETIC" if name in ("alpha", "alnum") else literal(items(found - base))
    for name in SCRIPTS:
        yield name.lower(), "", literal(items(members(rf"\p{{{name}}}")))


def replace(file, begin, end, text):
    path = LLM / file
    before, rest = path.read_text().split(begin, 1)
    path.write_text(before + begin + text + end + rest.split(end, 1)[1])


def main():
    replace("unicode.c", "new_ranges[] = {\n", "};\n", "    " + new_ranges() + "\n")
    for name, chars in opposites():
        text = "".join(f"{{{a:#x}, {b:#x}}}, " for a, b, _ in ranges(chars))
        replace("unicode_old.c", f"struct range {name}[] = {{\n", "};\n", "    " + text + "\n")
    alphabetic = literal(items(members("[[:alpha:]]") - of("L", "Nl"))).replace("\n", " \\\n")
    replace("regex_names.c", "#define ALPHABETIC \\\n", "\n\nstatic", "    " + alphabetic)
    rows = "".join(f'    {{"{n}", "{g}", {more}}},\n' for n, g, more in class_rows())
    replace("regex_names.c", "classes[] = {\n", "};\n", rows)


if __name__ == "__main__":
    main()
