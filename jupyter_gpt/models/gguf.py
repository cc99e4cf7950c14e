"""GGUF to a transformers folder: `python gguf.py FILE FOLDER`. Prints one line of JSON: {"licence": …}.

In its own process: it takes several times the file's memory, an interrupt ends it at once, and a damaged file can only
crash itself. Imports nothing of this package.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path

EXACT = 1e9  # parameters up to which dequantised weights are saved in fp32, exactly; bf16 above
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SPLIT = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = (
    "'(?i:[sdmt]|ll|ve|re)",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
)
# llama.cpp's names of splits before merging, and the patterns that mean them: digits one by one, or up to three.
PRE = {
    "qwen2": tuple(ending + SPLIT % "" for ending in ENDINGS),
    "llama-bpe": tuple(ending + SPLIT % "{1,3}" for ending in ENDINGS),
}


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
    sizes = {key.partition(".")[2]: field.contents() for key, field in reader.fields.items() if key.endswith("_length")}
    table = next((int(tensor.shape[-1]) for tensor in reader.tensors if tensor.name == "token_embd.weight"), None)
    del reader

    more = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    known = {  # sizes of the published models that transformers takes for granted
        "qwen3": {"head_dim": sizes.get("attention.key_length")},
        "gpt2": {"n_positions": sizes.get("context_length"), "vocab_size": table},
    }
    config.update({name: size for name, size in known.get(config.model_type, {}).items() if size})
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=dtype, **more
    )
    remove_gguf_marks(model)
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    pre = words.get("tokenizer.ggml.pre")
    if pre == "smollm":
        split_digits(tokenizer)
    elif pre in PRE:
        split_by(tokenizer, PRE[pre][0])
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


def split_by(tokenizer, pattern: str) -> None:
    """A byte-level BPE that splits as GPT-4's and later ones do; of a Llama transformers reads GPT-2's split."""
    from tokenizers import Regex, pre_tokenizers

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), to_bytes]
    )


def main(file: Path, folder: Path) -> None:
    import gguf

    # transformers reads the vocabulary three times, for seconds each, and makes the map of names anew for each tensor
    read, gguf.get_tensor_name_map = cache(gguf.GGUFReader), cache(gguf.get_tensor_name_map)
    gguf.GGUFReader = lambda path: read(Path(path).resolve())
    os.chdir(file.parent)  # else a file of that name in the working directory would be read instead
    print(json.dumps(convert(file, folder)))


if __name__ == "__main__":
    main(*(Path(path).absolute() for path in sys.argv[1:]))
