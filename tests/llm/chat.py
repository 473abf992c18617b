# SPDX-License-Identifier: Apache-2.0
"""Chat templates rendered twice: by jinja2 as transformers sets it up, and by ours behind a pipe
(tests/tools/render.c)."""

import json
import os
import pathlib
import subprocess
import tempfile
from datetime import datetime

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "tests/data/llm/templates"
BUILD = pathlib.Path(os.environ.get("SALVER_BUILD", ROOT / "build"))
NOW = 1790000000  # 2026-09-21
FIELDS = "messages tools documents extra add_generation_prompt continue_final_message".split()


class Generation(Extension):
    """{% generation %}: a call block that gives its own text, as transformers' AssistantTracker."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("render"), [], [], body).set_lineno(line)

    def render(self, caller):
        return caller()


class TemplateDict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class TemplateNamespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attrs = dict(*args, **kwargs)
        for name in attrs:
            TemplateNamespace.check_name(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        TemplateNamespace.check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check_name(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(form):
    return datetime.fromtimestamp(NOW).strftime(form)


def environment():
    """transformers 5's, from its utils/chat_template_utils.py."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    env.globals["dict"] = TemplateDict()
    env.globals["namespace"] = TemplateNamespace
    return env


ENV = environment()


def compiled(source, cache={}):  # noqa: B006
    if source not in cache:
        cache[source] = ENV.from_string(source)
    return cache[source]


def reference(q):
    """("out", text), or ("error", words) where jinja2 raises anything."""
    variables = {
        "messages": q.get("messages", []),
        "tools": q.get("tools"),
        "documents": q.get("documents"),
        "add_generation_prompt": q.get("add_generation_prompt", False),
        "bos_token": q.get("bos_token", ""),
        "eos_token": q.get("eos_token", ""),
    } | q.get("extra", {})
    try:
        return "out", compiled(q["template"]).render(**variables)
    except Exception as e:  # whatever a template does wrong
        return "error", f"{type(e).__name__}: {e}"


def ours(questions, program=None):
    """All at once: the answers would fill the pipe while we write."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        for q in questions:
            file.write(json.dumps({"now": NOW} | q, ensure_ascii=False) + "\n")
        file.seek(0)
        run = subprocess.run([program or BUILD / "tests/render"], stdin=file, capture_output=True)
    assert run.returncode == 0, (run.returncode, run.stderr.decode())
    answers = [json.loads(line) for line in run.stdout.split(b"\n")[:-1]]
    assert len(answers) == len(questions)
    return answers


def difference(q, answer, expected=None):
    """None when both agree: on the text, or on raising."""
    kind, text = expected or reference(q)
    if kind == "error" and "error" in answer:
        return None
    if kind == "out" and answer.get("out") == text:
        return None
    return f"{q['template'][:300]!r}\n jinja2 {kind}: {text!r}\n ours   {answer}"
