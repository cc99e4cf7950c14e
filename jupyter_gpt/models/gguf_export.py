"""A model as one GGUF file, for llama.cpp and what is built on it: Ollama, LM Studio, llama-cpp-python.

Written by the `gguf` package as llama.cpp's own converter writes it: weights, tokenizer, chat template, special tokens.
One tensor at a time is in memory. Norms, biases and the positions of GPT-2 stay in float32; in q4_0 the embeddings and
the output head have 8 bits, which costs a small model less accuracy.

llama.cpp rotates pairs of neighbouring numbers in Llama's attention, transformers the two halves of a head: the rows of
its queries and keys are reordered. What the GGUF format has no word for is refused: other architectures, tokenizers
that are no byte-level BPE (--tokenizer char), scaled positions but Llama 3's.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.fetch import check_disk
from jupyter_gpt.models.gguf import PRE
from jupyter_gpt.runs.provenance import Provenance, digest, provenance

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"}
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_0": 2}
BLOCK = 32  # numbers of a row that share a scale
MADE = "jupyter_gpt.provenance"  # key of what made the file
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # types of tokens
TRANSPOSED = re.compile(r"\.(c_attn|c_fc|c_proj)\.weight$")  # GPT-2's Conv1D
ROTATED = re.compile(r"\.self_attn\.([qk])_proj\.(weight|bias)$")
Weights = Callable[[], Iterable[tuple[str, Any]]]  # names and tensors in fp32, as often as it is called


def export(model, file: Path, quantize: str, overwrite: bool = False, adapter: Any = None) -> Path:
    """Write `model` to `file`; returns its absolute path. `adapter` is the peft module of one, which is merged.

    Raises GPTError, one line, for a model or a file that cannot be; the file then is as it was.
    """
    target = file.expanduser().resolve()
    if target.suffix != ".gguf":
        raise GPTError(f"--gguf {file} is not a .gguf file: write --gguf {model.name}.gguf")
    if model.labels:
        raise GPTError(f"{model.name} is a classifier or a reward model: GGUF files hold models that write text")
    config, tokenizer = configuration(model, adapter), vocabulary(model)
    made = provenance("save", {"model": model.name, "from": digest(model.provenance.requested), "quantize": quantize})
    check_target(target, file, made, overwrite)
    temporary = target.with_name(f".writing-{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        check_disk(target.parent, int(model.parameters * {"f32": 4, "f16": 2, "q8_0": 1.1, "q4_0": 0.8}[quantize]))
        weights = partial(merged, adapter) if adapter is not None else partial(stored, model.folder)
        write(temporary, model, config, tokenizer, weights, quantize, made)
        os.replace(temporary, target)
    except OSError as error:
        raise GPTError(f"model {model.name} could not be saved in {file}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def check_target(target: Path, file: Path, made: Provenance, overwrite: bool) -> None:
    """Raises GPTError where the file is another one's."""
    if target.is_dir():
        raise GPTError(f"{file} is a folder: give the name of a file")
    if target.exists() and not overwrite and not made.may_replace(made_by(target)):
        raise GPTError(f"{file} is there already, with something else in it: choose another name, or use --overwrite")


def made_by(file: Path) -> Provenance:
    """What made a GGUF file; unknown of one that is not ours."""
    from gguf import GGUFReader

    try:
        return Provenance.read(json.loads(GGUFReader(file).fields[MADE].contents()))
    except (ValueError, KeyError, IndexError, OSError, TypeError, AttributeError):
        return Provenance("unknown")


def configuration(model, adapter: Any) -> dict:
    """Its `config.json`. Raises GPTError for an architecture that cannot be written."""
    try:
        found = store.read_json(model.folder / "config.json") if adapter is None else adapter.config.to_dict()
    except (OSError, ValueError) as error:
        raise GPTError(f"model {model.name} is damaged: its config.json cannot be read") from error
    kind = found.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise GPTError(f"{model.name} is a {kind}: this package writes GGUF files of {known}")
    local = kind == "mistral" and found.get("sliding_window")
    if local or (kind.startswith("qwen") and found.get("use_sliding_window")):
        raise GPTError(f"{model.name} has sliding-window attention, which a GGUF file of a {kind} does not say")
    used = found.get("activation_function" if kind == "gpt2" else "hidden_act")
    if used not in (("gelu_new", "gelu_pytorch_tanh") if kind == "gpt2" else ("silu",)):
        raise GPTError(f"{model.name} has the activation {used}, which llama.cpp does not compute in a {kind}")
    return found


def rope(config: Mapping) -> tuple[float, Mapping]:
    """The base of the rotary angles, and how they are scaled; transformers has had two places for them."""
    given = config.get("rope_parameters") or {}
    base = given.get("rope_theta", config.get("rope_theta", 10000.0))
    scaling = given or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise GPTError(f"positions scaled by {kind} cannot be written to a GGUF file")
    return float(base), scaling if kind == "llama3" else {}


def llama3_factors(base: float, head: int, scaling: Mapping):
    """What Llama 3.1 and later divide each angle's frequency by."""
    import numpy as np

    factor, low, high = (scaling[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = scaling["original_max_position_embeddings"]
    waves = 2 * math.pi * base ** (np.arange(0, head, 2, dtype=np.float64) / head)
    smooth = np.clip((length / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def vocabulary(model) -> dict:
    """Tokens, their types, merges and the name of the pre-tokenizer. Raises GPTError for what is no byte-level BPE."""
    from jupyter_gpt.models.folder import SAFE

    tokenizer = model.tokenizer
    if tokenizer is None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model.folder, **SAFE)
    spec = json.loads(tokenizer.backend_tokenizer.to_str()) if getattr(tokenizer, "is_fast", False) else {}
    pre = pre_tokenizer(spec)
    if pre is None:
        raise GPTError(f"{model.name} has a tokenizer that llama.cpp does not know: it takes byte-level BPEs")
    added = {int(id): token for id, token in tokenizer.added_tokens_decoder.items()}
    tokens = {id: token for token, id in tokenizer.get_vocab().items()}
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id not in (tokenizer.eos_token_id, None) else None

    def kind(id: int) -> int:
        if id not in tokens:
            return UNUSED
        if id == unknown:
            return UNKNOWN
        return NORMAL if id not in added else CONTROL if added[id].special else USER_DEFINED

    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in spec["model"]["merges"]]
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id] and tokenizer.bos_token_id is not None
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": unknown,
        "pad": tokenizer.pad_token_id,
        "eot": end_of_turn(model, tokenizer),
    }
    return {
        "pre": pre,
        "tokens": tokens,
        "kind": kind,
        "merges": merges,
        "ids": {name: int(id) for name, id in ids.items() if id is not None},
        "begins": begins,
        "template": tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    }


def end_of_turn(model, tokenizer) -> int | None:
    """The token that ends an assistant's turn, where generation ends at another than the end of the text."""
    try:
        found = store.read_json(model.folder / "generation_config.json").get("eos_token_id")
    except (OSError, ValueError):
        return None
    others = [id for id in (found if isinstance(found, list) else [found]) if id not in (None, tokenizer.eos_token_id)]
    return others[0] if others else None


def pre_tokenizer(spec: Mapping) -> str | None:
    """llama.cpp's name of how a tokenizer splits text before it merges; None where it has none."""
    model, normalizer = spec.get("model") or {}, spec.get("normalizer")
    if model.get("type") != "BPE" or (normalizer and normalizer["type"] != "NFC"):
        return None
    given = spec.get("pre_tokenizer") or {}
    steps = given.get("pretokenizers", [given])
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" not in kinds or any(step.get("add_prefix_space") for step in steps):
        return None
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and steps[0].get("behavior") == "Isolated":
        pattern = steps[0]["pattern"].get("Regex")
        return next((name for name, patterns in PRE.items() if pattern in patterns), None)
    return None


def stored(folder: Path) -> Iterator[tuple[str, Any]]:
    """The tensors in a folder's safetensors."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield name, file.get_tensor(name).float().numpy()


def merged(adapter: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of an adapter merged into its base."""
    from jupyter_gpt.nn.lora import merged_tensors

    for name, tensor in merged_tensors(adapter):
        yield name, tensor.detach().float().cpu().numpy()


def write(
    file: Path, model, config: Mapping, words: Mapping, weights: Weights, quantize: str, made: Provenance
) -> None:
    """Goes through the weights twice: the names and sizes of all stand before the first number."""
    import gguf

    kind = ARCHITECTURES[config["model_type"]]
    out = gguf.GGUFWriter(file, kind)
    try:
        out.add_type("model")
        out.add_name(model.name)
        if model.licence:
            out.add_license(model.licence)
        out.add_file_type(FILE_TYPES[quantize])
        out.add_string(MADE, json.dumps(asdict(made)))
        add_sizes(out, kind, config)
        add_tokenizer(out, words, config["vocab_size"])
        for place, tensor in placed(model, kind, config, weights):
            number = number_format(model, place, tensor, quantize)
            size = gguf.GGML_QUANT_SIZES[number]
            nbytes = tensor.size // size[0] * size[1]
            out.add_tensor_info(place, tensor.shape, tensor.dtype, nbytes, raw_dtype=number)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_ti_data_to_file()
        for place, tensor in placed(model, kind, config, weights):
            out.write_tensor_data(gguf.quantize(tensor, number_format(model, place, tensor, quantize)))
    finally:
        out.close()


def placed(model, kind: str, config: Mapping, weights: Weights) -> Iterator[tuple[str, Any]]:
    """The weights by llama.cpp's names, as it reads them. Raises GPTError for one that it does not have."""
    import gguf

    layers = config["n_layer"] if kind == "gpt2" else config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, kind.upper()), layers)
    base, scaling = (0.0, {}) if kind == "gpt2" else rope(config)
    if scaling:
        yield "rope_freqs.weight", llama3_factors(base, head_size(config), scaling)
    for name, tensor in weights():
        if name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")):
            continue  # GPT-2's causal mask, and angles that are computed
        if name == "lm_head.weight" and config.get("tie_word_embeddings", kind == "gpt2"):
            continue
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise GPTError(f"{model.name} has a weight that a GGUF file of a {kind} does not have: {name}")
        yield place, arranged(tensor, name, kind, config)


def head_size(config: Mapping) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def add_sizes(out, kind: str, config: Mapping) -> None:
    """Shapes and constants of the architecture."""
    out.add_vocab_size(config["vocab_size"])
    if kind == "gpt2":
        out.add_context_length(config["n_positions"])
        out.add_embedding_length(config["n_embd"])
        out.add_block_count(config["n_layer"])
        out.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
        out.add_head_count(config["n_head"])
        out.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    heads, head = config["num_attention_heads"], head_size(config)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(config.get("num_key_value_heads") or heads)
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(rope(config)[0])
    out.add_rope_dimension_count(head)
    out.add_key_length(head)
    out.add_value_length(head)


def add_tokenizer(out, words: Mapping, rows: int) -> None:
    """Tokens, a row of the embeddings each; rows beyond the last token are unused ones."""
    ids = range(max(rows, max(words["tokens"]) + 1))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(words["pre"])
    out.add_token_list([words["tokens"].get(id, f"[PAD{id}]") for id in ids])
    out.add_token_types([words["kind"](id) for id in ids])
    out.add_token_merges(words["merges"])
    for name, id in words["ids"].items():
        getattr(out, f"add_{name}_token_id")(id)
    out.add_add_bos_token(words["begins"])
    if words["template"]:
        out.add_chat_template(words["template"])


def arranged(tensor, name: str, kind: str, config: Mapping):
    """A tensor as llama.cpp reads it, C-contiguous."""
    import numpy as np

    if kind == "gpt2" and TRANSPOSED.search(name):
        tensor = tensor.T
    elif kind == "llama" and (which := ROTATED.search(name)):
        heads = config["num_attention_heads"]
        heads = heads if which[1] == "q" else config.get("num_key_value_heads") or heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
    return np.ascontiguousarray(tensor)


def number_format(model, place: str, tensor, quantize: str):
    """The number format of a weight. Raises GPTError for numbers or a shape that it does not take."""
    import gguf
    import numpy as np

    whole = tensor.ndim == 1 or place == "position_embd.weight" or quantize == "f32"
    rough = quantize == "q4_0" and place in ("token_embd.weight", "output.weight")
    kind = "F32" if whole else "Q8_0" if rough else quantize.upper()
    if kind.startswith("Q") and tensor.shape[-1] % BLOCK:
        raise GPTError(
            f"--quantize {quantize} takes rows of a multiple of {BLOCK}: {place} of {model.name} has rows of "
            f"{tensor.shape[-1]}; use --quantize f16"
        )
    if kind == "F16" and np.abs(tensor).max(initial=0) > np.finfo(np.float16).max:
        raise GPTError(f"{model.name} has weights beyond the range of f16, in {place}: use --quantize f32")
    return gguf.GGMLQuantizationType[kind]
