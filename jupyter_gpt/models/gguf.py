"""GGUF to a transformers folder: `python gguf.py FILE FOLDER`. Prints one line of JSON: {"licence": …}.

In its own process: it takes several times the file's memory, an interrupt ends it at once, and a damaged file can only
crash itself. Imports nothing of this package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EXACT = 1e9  # parameters up to which dequantised weights are saved in fp32, exactly; bf16 above
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def convert(file: Path, folder: Path) -> dict:
    """Write the model of `file` to `folder` as safetensors with its tokenizer and chat template; its licence."""
    import torch
    import transformers
    from gguf import GGUFReader

    reader = GGUFReader(file)
    stored = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    count = sum(int(tensor.n_elements) for tensor in reader.tensors)
    dtype = PLAIN.get(*stored) if len(stored) == 1 else None
    dtype = getattr(torch, dtype or ("float32" if count <= EXACT else "bfloat16"))
    words = {
        key: field.contents() for key in ("tokenizer.ggml.pre", "general.license") if (field := reader.fields.get(key))
    }
    del reader

    more = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype, **more)
    remove_gguf_marks(model)
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if words.get("tokenizer.ggml.pre") == "smollm":
        split_digits(tokenizer)
    tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.save_pretrained(folder)
    return {"licence": words.get("general.license")}


def remove_gguf_marks(model) -> None:
    """Without them transformers saves the dequantised weights."""
    model.hf_quantizer, model.is_quantized = None, False
    for holder, name in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)
    model.config._name_or_path = ""
    vars(model.config).pop("_model_name_or_path", None)


def split_digits(tokenizer) -> None:
    """SmolLM's tokenizer splits off every digit, then splits as GPT-2's; transformers reads only the latter."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


if __name__ == "__main__":
    print(json.dumps(convert(Path(sys.argv[1]), Path(sys.argv[2]))))
