# SPDX-License-Identifier: Apache-2.0
"""Fills the second column of template_golden.json: what jinja2, set up as transformers does, makes of the small
templates in the first, or null where it raises. The first column is written by hand: to add a template, add
["text", null]. tests/unit/llm_template.c reads the file. Needs what tests/requirements.txt lists.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "template_golden.json"
sys.path.insert(0, str(HERE.parents[1] / "llm"))
import chat  # noqa: E402


def rows(table, question):
    made = []
    for template, _ in table:
        kind, text = chat.reference(question | {"template": template})
        made.append(json.dumps([template, text if kind == "out" else None]))
    return ",\n".join(made)


def main():
    golden = json.loads(GOLDEN.read_text())
    parts = [f'"input": {json.dumps(golden["input"])}']
    parts += [f'"bare": [\n{rows(golden["bare"], {})}\n]']
    parts += [f'"with_input": [\n{rows(golden["with_input"], golden["input"])}\n]']
    GOLDEN.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
