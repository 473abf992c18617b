# SPDX-License-Identifier: Apache-2.0
"""Chat templates against jinja2: the same text, byte by byte, and the same refusals. And what of the text is trusted."""

import json
import re

import chat
import pytest
from conversations import TEXTS, conversations

FILES = sorted(p.name for p in chat.TEMPLATES.glob("*.jinja"))
SOURCES = {name: (chat.TEMPLATES / name).read_text() for name in FILES}
SPECIAL = re.compile(r"<\|[^|<>]+\|>|</?s>|<[a-z_]+>|\[/?INST\]")
# What a conversation may say beside texts of its own: the API's words for roles, and our marks.
ROLES = {"system", "user", "assistant", "tool", "function", "developer", "ipython"}


def test_enough_templates():
    assert len(FILES) >= 14


@pytest.mark.parametrize("name", FILES)
def test_same_as_jinja2(name):
    questions = [c | {"template": SOURCES[name]} for c in conversations(50, seed=FILES.index(name) + 1)]
    expected = [chat.reference(q) for q in questions]
    answers = chat.ours(questions)
    differences = [chat.difference(*row) for row in zip(questions, answers, expected, strict=True)]
    assert not any(differences), next(d for d in differences if d)
    rendered = sum(kind == "out" for kind, _ in expected)
    assert rendered >= 20, f"only {rendered} conversations were rendered at all"


def replaced(value, key=None):
    """The same conversation in letters that no template has: all its strings in Georgian."""
    if isinstance(value, dict):
        return {georgian(k) if key == "free" else k: replaced(v, "free" if key in ("arguments", "free") else k) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(v, key) for v in value]
    if not isinstance(value, str) or key in ("role", "type"):
        return value
    return georgian(value)


def georgian(text):
    return "".join(chr(0x10D0 + ord(c) % 33) if c.isalnum() else c for c in text)


def cut(text, spans):
    """(trusted, untrusted) parts of a text; spans are in bytes."""
    data, trusted, untrusted, at = text.encode(), [], [], 0
    for begin, end in spans:
        assert at <= begin < end <= len(data)
        untrusted.append(data[at:begin].decode())
        trusted.append(data[begin:end].decode())
        at = end
    untrusted.append(data[at:].decode())
    return trusted, untrusted


@pytest.mark.parametrize("name", FILES)
def test_no_letter_of_the_input_is_trusted(name):
    questions = []
    for c in conversations(50, seed=77):
        questions.append(replaced(c) | {"template": SOURCES[name], "bos_token": "<s>", "eos_token": "</s>"})
    assert not re.search("[\u10d0-\u10ff]", SOURCES[name])
    seen = 0
    for a in chat.ours(questions):
        if "error" in a:
            continue
        trusted, untrusted = cut(a["out"], a["spans"])
        assert not re.search("[\u10d0-\u10ff]", "".join(trusted)), a
        seen += len(trusted)
    assert seen


@pytest.mark.parametrize("name", FILES)
def test_what_is_left_without_the_input_is_the_templates(name):
    """Every word of the trusted text stands in the template, or is a role."""
    words = set(re.findall(r"\w+", SOURCES[name].replace("\\n", "\n").replace("\\t", "\t"))) | ROLES | {"s"}
    words |= {w.upper() for w in words} | {w.title() for w in words}
    for a in chat.ours([c | {"template": SOURCES[name]} for c in conversations(50, seed=78)]):
        if "error" in a:
            continue
        for part in cut(a["out"], a["spans"])[0]:
            unknown = [w for w in re.findall(r"\w+", part)[1:-1] if w not in words]
            assert not unknown, (unknown, part)


@pytest.mark.parametrize("name", FILES)
def test_special_tokens_in_a_users_text_are_text(name):
    """Between marks that only the user wrote, nothing is trusted."""
    tokens = sorted(set(SPECIAL.findall(SOURCES[name])) | {"<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]"})
    texts = [t for t in TEXTS if t.strip()] + tokens
    questions = []
    for text in texts:
        marked = f"\u1c90{text}\u1c91"
        messages = [{"role": "user", "content": marked}, {"role": "assistant", "content": marked}, {"role": "user", "content": marked}]
        questions.append({"template": SOURCES[name], "messages": messages, "add_generation_prompt": True})
    found = 0
    for a in chat.ours(questions):
        for m in re.finditer("\u1c90[^\u1c90\u1c91]*\u1c91", a.get("out", "")):  # an error: the template's own refusal
            begin = len(a["out"][: m.start()].encode())
            end = begin + len(m.group().encode())
            assert all(e <= begin or b >= end for b, e in a["spans"]), (m.group(), a)
            found += 1
    assert found >= len(texts)


def test_the_templates_own_tokens_are_trusted():
    messages = [{"role": "user", "content": "hi"}]
    (a,) = chat.ours([{"template": SOURCES["smollm2.jinja"], "messages": messages, "add_generation_prompt": True}])
    trusted, untrusted = cut(a["out"], a["spans"])
    assert "".join(untrusted) == "hi"
    assert "".join(trusted).count("<|im_start|>") == 3


def test_input_nested_as_deep_as_allowed():
    for depth in (10, 60):
        value = json.loads("[" * depth + "]" * depth)
        for t in ("{{ messages }}", "{{ messages | tojson }}", "{{ messages == messages }}"):
            q = {"template": t, "messages": value}
            (a,) = chat.ours([q])
            assert not chat.difference(q, a)
