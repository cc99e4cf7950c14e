"""A model with 8-bit or 4-bit weights in memory (`nn/quantized.py`), rounded from its files a few rows at a time.

The whole model is never in memory in more bits, where the names in its files are those of its parameters; other
architectures are loaded first. The embedding table is kept in 8 bits, as is the output head: a head in 4 bits costs
accuracy and saves a fifth of its time. Norms, biases and layers of other kinds stay in bf16. In int4, layers whose
shapes the kernels do not take have 8 bits.

A GGUF's 4-bit weights lie dequantised in the folder that %gpt pull makes; they have their codes again here, exactly,
with scales rounded to bf16 (`quantized.grid_of`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jupyter_gpt.models.folder import SAFE, from_folder, quiet
from jupyter_gpt.nn import quantized
from jupyter_gpt.nn.architectures import is_known_architecture
from jupyter_gpt.nn.quantized import Int4, Int8, QuantizedEmbedding, QuantizedLinear

Read = Callable[[str, int | None, int | None], Tensor]  # rows of a parameter in fp32; all of them for None, None
STACKED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
CHUNK = 1 << 20  # numbers that are rounded at once
BLOCK = 64  # rows of a piece are a multiple of it


def needed(folder: Path, count: int, dtype: str) -> int:
    """Bytes of a model of `count` numbers on disk, its table of embeddings twice in 8 bits."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        table = config["vocab_size"] * (config.get("hidden_size") or config["n_embd"])
    except (OSError, ValueError, KeyError, TypeError):  # a nested configuration: a table of a tenth
        table = count // 10
    return int(2 * table + max(0, count - table) * (1.0 if dtype == "int8" else 0.625))


def load(folder: Path, labels: list[str] | None, dtype: str) -> tuple[Any, list[str]]:
    """The module in the safetensors of `folder`, and the names of weights that are missing there."""
    files = stored(folder)
    module = skeleton(folder, labels)
    own = {name: parameter.shape for name, parameter in module.named_parameters(remove_duplicate=False)}
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    tied = {f"{name_of(module, head)}.weight"} if head is not None and is_tied(module) else set()
    if all(files.get(name, (None, None))[1] == list(shape) for name, shape in own.items() if name not in tied):
        return quantize(module, dtype, reader(files)), []
    module, info = from_folder(folder, labels, dtype="auto", output_loading_info=True)

    def read(name: str, start: int | None, end: int | None) -> Tensor:
        return module.get_parameter(name).detach()[start:end].float()

    return quantize(module, dtype, read), sorted(info["missing_keys"])


def skeleton(folder: Path, labels: list[str] | None) -> Any:
    """The module without memory for its parameters; its buffers are there."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    with quiet():
        config = AutoConfig.from_pretrained(folder, **SAFE)
        with init_empty_weights(include_buffers=False):
            return auto.from_config(config, trust_remote_code=False)


def stored(folder: Path) -> dict[str, tuple[Path, list[int]]]:
    """The file and the shape of each tensor in a folder."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: (path, file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def reader(files: dict[str, tuple[Path, list[int]]]) -> Read:
    """Reads rows from files; what was read is not kept, and neither is the file mapped for longer."""
    from safetensors import safe_open

    def read(name: str, start: int | None, end: int | None) -> Tensor:
        with safe_open(files[name][0], framework="pt") as file:
            rows = file.get_slice(name)
            return rows[start:end].clone().float()

    return read


def name_of(module: Any, part: nn.Module | None) -> str:
    return next((name for name, each in module.named_modules() if each is part), "")


def is_tied(module: Any) -> bool:
    """Whether the head's matrix is the table of embeddings."""
    return bool(getattr(module.config.get_text_config(), "tie_word_embeddings", False))


def quantize(module: Any, dtype: str, read: Read) -> Any:
    """Round the linear layers of `module`, and its table of embeddings, in place; the rest becomes bf16."""
    table, head = module.get_input_embeddings(), None
    if hasattr(module, "get_output_embeddings"):
        head = module.get_output_embeddings()
    table_name, head_name = name_of(module, table), name_of(module, head)
    trunk = table_name.partition(".")[0] + "." if "." in table_name else ""
    layers = {
        name: part
        for name, part in module.named_modules()
        if part is not head and name.startswith(trunk) and is_linear(part)
    }
    codes = None
    if type(table) is nn.Embedding and table.weight.dim() == 2:
        codes, scale = in_8_bits(read, f"{table_name}.weight", len(table.weight))
        put(module, table_name, QuantizedEmbedding(codes, scale, table.padding_idx))
    if head is not None and is_linear(head):
        if codes is None or not is_tied(module):
            codes, scale = in_8_bits(read, f"{head_name}.weight", len(head.weight))
        put(module, head_name, QuantizedLinear(Int8(codes, scale), bias_of(read, head, head_name)))
    for names in together(module, layers):
        some = [layers[name] for name in names]
        whole = rounded(read, [f"{name}.weight" for name in names], some, dtype)
        sizes = [outputs_and_inputs(layer)[0] for layer in some]
        parts = [whole] if len(some) == 1 else quantized.parts_of(whole, sizes)
        for name, layer, weights in zip(names, some, parts, strict=True):
            put(module, name, QuantizedLinear(weights, bias_of(read, layer, name)))
    for name, parameter in list(module.named_parameters()):
        if parameter.is_meta or parameter.dtype != torch.bfloat16:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, nn.Parameter(read(name, None, None).bfloat16(), False))
    for part in module.modules():  # what was made as a buffer of 32 bits stays so: angles need them
        part.requires_grad_(False)
    module.config.dtype = torch.bfloat16
    return module


def is_linear(layer: Any) -> bool:
    return type(layer) is nn.Linear or type(layer).__name__ == "Conv1D"


def put(module: Any, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part.eval())


def bias_of(read: Read, layer: Any, name: str) -> nn.Parameter | None:
    return None if layer.bias is None else nn.Parameter(read(f"{name}.bias", None, None).bfloat16(), False)


def pieces(count: int, width: int) -> list[tuple[int, int]]:
    rows = max(BLOCK, CHUNK // width // BLOCK * BLOCK)
    return [(start, min(count, start + rows)) for start in range(0, count, rows)]


def in_8_bits(read: Read, name: str, count: int) -> tuple[Tensor, Tensor]:
    width = read(name, 0, 1).shape[1]
    found = [quantized.to_int8(read(name, *rows)) for rows in pieces(count, width)]
    return torch.cat([codes for codes, _ in found]), torch.cat([scale for _, scale in found])


def together(module: Any, layers: dict[str, Any]) -> list[list[str]]:
    """The names of `layers`, together those that our forward multiplies as one matrix (`decode_forward.py`)."""
    if not is_known_architecture(module):
        return [[name] for name in layers]
    found: dict[str, list[str]] = {}
    for name in layers:
        parent, _, last = name.rpartition(".")
        kind = next((n for n, group in enumerate(STACKED) if last in group), last)
        found.setdefault(f"{parent}.{kind}", []).append(name)
    return [
        one
        for names in found.values()
        for one in (
            [sorted(names, key=order)] if len({fits(layers[name]) for name in names}) == 1 else [[n] for n in names]
        )
    ]


def order(name: str) -> int:
    """The place of a layer among those that are stacked."""
    last = name.rpartition(".")[2]
    return next((group.index(last) for group in STACKED if last in group), 0)


def fits(layer: Any) -> tuple[int, bool]:
    """What layers have in common that are stacked: their inputs, and whether they can have 4 bits."""
    N, K = outputs_and_inputs(layer)
    return K, quantized.takes_int4(N, K)


def outputs_and_inputs(layer: Any) -> tuple[int, int]:
    """A Conv1D holds its weights transposed."""
    first, second = layer.weight.shape
    return (second, first) if type(layer).__name__ == "Conv1D" else (first, second)


def rounded(read: Read, names: list[str], layers: list[Any], dtype: str) -> Int8 | Int4:
    """The weights of layers that read the same input, one below another; a Conv1D's are transposed, and read whole."""
    codes, scales = [], []
    in_4_bits = dtype == "int4" and all(fits(layer)[1] for layer in layers)
    for name, layer in zip(names, layers, strict=True):
        N, K = outputs_and_inputs(layer)
        whole = read(name, None, None).t().contiguous() if type(layer).__name__ == "Conv1D" else None
        for start, end in pieces(N, K):
            rows = read(name, start, end) if whole is None else whole[start:end]
            some, scale = quantized.to_int4(rows) if in_4_bits else quantized.to_int8(rows)
            codes.append(some.to(torch.uint8) if in_4_bits else some)
            scales.append(scale)
    if not in_4_bits:
        return Int8(torch.cat(codes), torch.cat(scales))
    packed = [quantized.pack_int4(piece.to(torch.int32)) for piece in torch.cat(codes).split(16 * BLOCK)]
    return Int4(packed, scales)


def notes(module: Any, dtype: str) -> list[str]:
    """What a user should know of a quantised module on this machine, a line each."""
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    layers = [p for p in module.modules() if isinstance(p, QuantizedLinear) and p is not head]
    said = []
    if other := sum(layer.weights.name != dtype for layer in layers):
        said.append(f"{other} of its {len(layers)} linear layers have 8 bits: their shapes do not fit 4-bit kernels")
    few = any(quantized.takes_int4(layer.out_features, layer.in_features) for layer in layers)
    if layers and not few:
        said.append("its linear layers have 8 bits: their shapes do not fit 4-bit kernels")
    left = sum(p.numel() for p in module.parameters())
    if left > sum(layer.in_features * layer.out_features for layer in layers) / 4:
        said.append(f"{left:,} of its weights stay in bfloat16: they are in no linear layer")
    if not quantized.has_kernels(quantized.BITS[dtype]):
        said.append(f"this CPU has no fast {dtype} products: {dtype} saves memory here, and takes more time")
    elif "avx512f" not in quantized.cpu_flags() and not quantized.has_integer_products():
        said.append(f"this CPU has no AVX-512: {dtype} saves memory here, and little time")
    elif dtype == "int8" and "amx_bf16" in quantized.cpu_flags():
        more = "; int4 saves both" if few else ""
        said.append(f"this CPU multiplies bfloat16 as fast as int8: it saves memory here, no time{more}")
    return said
