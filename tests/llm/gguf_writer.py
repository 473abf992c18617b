# SPDX-License-Identifier: Apache-2.0
"""GGUF files of keys alone, and the keys that llama.cpp's converter makes of a SentencePiece model."""

import struct


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    """Type and value: bool 7, uint32 4, string 8, array 9 of int32 5, float32 6 or string 8."""
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, list):
        kind, code = {str: (8, None), int: (5, "i"), float: (6, "f")}[type(v[0])]
        items = struct.pack(f"<{len(v)}{code}", *v) if code else b"".join(map(string, v))
        return struct.pack("<IIQ", 9, kind, len(v)) + items
    return struct.pack("<I", 8) + string(v)


def write(path, keys):
    body = b"".join(string(k) + value(v) for k, v in keys.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + body)


def piece_type(sp, i):
    if sp.is_unknown(i):
        return 2
    if sp.is_control(i):
        return 3
    return 5 if sp.is_unused(i) else 6 if sp.is_byte(i) else 1


def from_sentencepiece(path, sp):
    ids = range(sp.vocab_size())
    ggml = {
        "model": "llama",
        "tokens": [sp.id_to_piece(i) for i in ids],
        "scores": [float(sp.get_score(i)) for i in ids],
        "token_type": [piece_type(sp, i) for i in ids],
        "unknown_token_id": sp.unk_id(),
        "bos_token_id": sp.bos_id(),
        "eos_token_id": sp.eos_id(),
    }
    write(path, {"general.architecture": "llama", **{f"tokenizer.ggml.{k}": v for k, v in ggml.items()}})
