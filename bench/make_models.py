# SPDX-License-Identifier: Apache-2.0
"""SmolLM2 in other formats for `make bench K=llm`: its weights dequantised to f32, then written as Q8_0 and BF16.

    make_models.py MODEL.gguf FOLDER      prints the paths, one a line; what is there already stays

Everything but the matrices (norms, tokenizer, template) is copied. Needs numpy and gguf.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

FORMATS = {
    "Q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "BF16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
OF_THE_WRITER = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture"}


def copy_fields(reader, writer, file_type):
    for field in reader.fields.values():
        if field.name in OF_THE_WRITER:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = int(file_type) if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, value, kind, sub_type=inner)


def convert(reader, path, quantization, file_type):
    temporary = path.with_suffix(".part")
    writer = gguf.GGUFWriter(temporary, reader.fields["general.architecture"].contents())
    copy_fields(reader, writer, file_type)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, data)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(data, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.rename(path)


def main():
    source, folder = map(Path, sys.argv[1:3])
    folder.mkdir(parents=True, exist_ok=True)
    reader = None
    for name, (quantization, file_type) in FORMATS.items():
        path = folder / f"{source.name.split('.')[0]}.{name}.gguf"
        if not path.exists():
            reader = reader or gguf.GGUFReader(source)
            convert(reader, path, quantization, file_type)
        print(path)


if __name__ == "__main__":
    main()
