# SPDX-License-Identifier: Apache-2.0
"""Our tokenizer behind a pipe (tests/tools/tokenize.c), and the texts that it is compared on."""

import os
import pathlib
import random
import struct
import subprocess
import tempfile
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/llm"
CORPUS = (DATA / "corpus.txt").read_text().splitlines()
BUILD = pathlib.Path(os.environ.get("SALVER_BUILD", ROOT / "build"))

ADD_SPECIAL, UNTRUSTED = 1, 2
SKIP_SPECIAL, INCREMENTAL = 1, 2


class Refused(Exception):
    pass


class Ours:
    def __init__(self, path):
        self.path = path

    def ask(self, questions):
        """All questions at once: the answers would fill the pipe while we write."""
        with tempfile.TemporaryFile() as file:
            for q in questions:
                file.write(q)
            file.seek(0)
            run = subprocess.run([BUILD / "tests/tokenize", self.path], stdin=file, capture_output=True)
        if run.returncode:
            raise Refused(run.stderr.decode())
        at, answers = 0, []
        for q in questions:
            (n,) = struct.unpack_from("<I", run.stdout, at)
            size = n if q[:1] == b"d" else 4 * n
            answers.append(run.stdout[at + 4 : at + 4 + size])
            at += 4 + size
        assert at == len(run.stdout)
        return answers

    def encode(self, texts, flags=ADD_SPECIAL):
        data = [t.encode() for t in texts]
        answers = self.ask([b"e" + struct.pack("<II", flags, len(d)) + d for d in data])
        return [list(struct.unpack(f"<{len(a) // 4}I", a)) for a in answers]

    def decode(self, lists, flags=0):
        questions = [b"d" + struct.pack(f"<II{len(i)}I", flags, len(i), *i) for i in lists]
        return [a.decode() for a in self.ask(questions)]


SPECIALS = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<tool>", "</tool>", "<s>", "</s>"]
SPECIALS += ["<unk>", "[CLS]", "[SEP]", "[MASK]", "<mask>", "<0x0A>", "▁", "##"]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u200b", "\u2028", "\x85"]


def lines(n, seed=1):
    """Lines made of the corpus' words, numbers, spaces of all kinds, and pieces of special tokens."""
    rng = random.Random(seed)
    words = [w for line in CORPUS for w in line.split()]
    made = list(CORPUS)
    while len(made) < n:
        parts = []
        for _ in range(rng.randint(1, 14)):
            kind = rng.random()
            if kind < 0.50:
                parts.append(rng.choice(words))
            elif kind < 0.56:
                parts.append(unicodedata.normalize(rng.choice(["NFD", "NFKD"]), rng.choice(words)))
            elif kind < 0.62:
                parts.append(rng.choice(rng.choice(words)) * rng.randint(2, 9))
            elif kind < 0.72:
                parts.append(str(rng.randint(0, 10 ** rng.randint(1, 12))))
            elif kind < 0.80:
                word = rng.choice(words)
                parts.append(word[: rng.randint(1, len(word))].swapcase())
            elif kind < 0.86:
                parts.append(rng.choice(SPECIALS))
            else:
                parts.append(rng.choice("!?.,;:-_/\\'\"()[]{}<>@#$%^&*+=|~`") * rng.randint(1, 4))
            if rng.random() < 0.8:
                parts.append(" " if rng.random() < 0.8 else rng.choice(SPACES))
        made.append("".join(parts))
    return made[:n]


# Marks of many classes, old and new ones, jamo, joiners; and what they are composed with.
COMBINING = [range(*r) for r in (
    (0x41, 0x7A), (0xC0, 0x17F), (0x300, 0x370), (0x591, 0x5BE), (0x64B, 0x660), (0x8CA, 0x900), (0x93C, 0x950),
    (0x9BC, 0x9D8), (0xB3C, 0xB58), (0x1026, 0x1040), (0x1100, 0x1113), (0x1161, 0x1176), (0x11A8, 0x11C3),
    (0x1AB0, 0x1AD0), (0x1DC0, 0x1E00), (0x200B, 0x2010), (0x20D0, 0x20F1), (0x302A, 0x3030), (0x3099, 0x309B),
    (0xAC00, 0xAC20), (0xFE00, 0xFE30), (0x10EFD, 0x10F00), (0x110B9, 0x110BB), (0x11930, 0x11945), (0x1E4EC, 0x1E4F0),
    (0x10D40, 0x10D90), (0x11380, 0x113E3), (0x13430, 0x13560), (0x16D40, 0x16D7A), (0x16EA0, 0x16ED4),
    (0x1CC00, 0x1CD00), (0x2EBF0, 0x2EC20), (0x1FA80, 0x1FB00), (0xA7CB, 0xA7DD), (0x1C80, 0x1C8B), (0x24B6, 0x24EA),
)]  # fmt: skip


def random_unicode(n, seed=2):
    """Characters from all planes, ASCII and combining ones among them more often."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        chars = []
        for _ in range(rng.randint(0, 40)):
            kind = rng.random()
            top = 0x80 if kind < 0.2 else 0x800 if kind < 0.45 else 0x10000 if kind < 0.8 else 0x110000
            c = rng.randrange(top)
            if kind > 0.9:
                c = rng.choice(rng.choice(COMBINING))
            if not 0xD800 <= c < 0xE000:
                chars.append(chr(c))
        made.append("".join(chars))
    return made


def random_bytes(n, seed=3):
    """Any bytes, with U+FFFD where they are not UTF-8: what a caller hands over."""
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(0, 60)).decode("utf-8", "replace") for _ in range(n)]


def first_difference(texts, ours, theirs):
    for text, a, b in zip(texts, ours, theirs, strict=True):
        if a != b:
            return f"{text!r}\n ours   {a}\n theirs {b}"
    return None
