"""Values as Python gives them, fitted to the types that options have.

A number of numpy becomes Python's, a column a list, and a model, a run or an index stands wherever its name does.
`ELSEWHERE` knows what options are called in other libraries.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jupyter_gpt.data.files import text_of
from jupyter_gpt.errors import GPTError

# What an option is called elsewhere (transformers, TRL, peft, nanochat, OpenAI, LlamaIndex), and what it may be called
# here: the first of these that a function takes is meant.
_NAMES = """
max_new_tokens: max_tokens; max_length: max_tokens context; max_completion_tokens: max_tokens;
max_completion_length: max_tokens; min_new_tokens: min_tokens; num_return_sequences: samples; n: samples;
num_generations: samples; do_sample: temperature; stop_sequences: stop; stop_strings: stop; system_prompt:
system; top_logprobs: logprobs; model_name: model base policy; model_name_or_path: model base policy; model_id:
model base policy; model: base policy; base_model: base policy model; learning_rate: lr; num_train_epochs:
epochs; num_epochs: epochs; num_ppo_epochs: epochs; num_iterations: epochs steps; max_steps: steps; num_steps: steps;
train_steps: steps; batch_size: batch batch_tokens prompts_per_step; per_device_train_batch_size: batch
batch_tokens prompts_per_step; train_batch_size: batch batch_tokens prompts_per_step;
gradient_accumulation_steps: batch_tokens batch prompts_per_step; warmup_ratio: warmup; warmup_steps: warmup;
max_grad_norm: clip; grad_clip: clip; gradient_checkpointing: checkpointing; optim: optimizer; torch_dtype:
dtype; bf16: dtype; fp16: dtype; device_map: device; max_seq_length: context; seq_len: context; sequence_length:
context; block_size: context; n_ctx: context; max_position_embeddings: context; n_layer: depth; num_layers:
depth; num_hidden_layers: depth; layers: depth; n_embd: width; hidden_size: width; d_model: width; n_head:
heads; num_attention_heads: heads; num_key_value_heads: kv_heads; n_kv_heads: kv_heads; intermediate_size: mlp;
r: lora; lora_r: lora; lora_rank: lora; rank: lora; target_modules: lora_targets; use_dora: dora; use_rslora:
rslora; load_in_4bit: load_in; load_in_8bit: load_in; eval_steps: eval_every; save_steps: checkpoint_every;
random_seed: seed; test_size: held_out; validation_split: held_out; kl_coef: kl; init_kl_coef: kl; target_kl:
kl_target; cliprange: clip; epsilon: clip; gae_lambda: lam; reward_model: reward; reward_funcs: reward;
reward_fn: reward; train_dataset: data mixture prompts; dataset: data mixture prompts source; chunk_size:
chunk_tokens; chunk_overlap: overlap; embedding_model: embedder; similarity_top_k: k; top_n: k; reranker:
rerank; loss_type: loss; epsilon_high: clip_high; scale_rewards: no_std; report_to: log_to; save_total_limit: keep;
assistant_only_loss: train_on; device_batch_size: micro_tokens; total_batch_size: batch_tokens; max_seq_len: context;
quantization_method: quantize; force: overwrite; exist_ok: overwrite; api_key: key_env; url: base_url; messages: text;
query: question
"""
ELSEWHERE: dict[str, str] = {
    name: here for name, _, here in (pair.partition(": ") for pair in " ".join(_NAMES.split()).split("; "))
}
WANTED = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", Path: "a path"}
MISSING = object()
NAMED = ("jupyter_gpt.models.", "jupyter_gpt.runs.", "jupyter_gpt.retrieval.indexes", "jupyter_gpt.stages.")


class WrongArgument(GPTError, TypeError):
    """An argument that a function does not take, or not so."""


def fitted(name: str, value: object, hint: object) -> object:
    """The value as its hint has it: a thing by its name, a number of numpy as Python's, a column as a list.

    Raises WrongArgument, which says what the value is and what it should be.
    """
    value = by_name(value)
    found = value if any(is_exactly(value, each) for each in options_of(hint)) else MISSING
    for allowed in options_of(hint) if found is MISSING else ():
        made = converted(name, value, allowed)
        if made is not None:
            found = made
            break
    if name == "seed" and isinstance(found, int) and not 0 <= found < 1 << 63:
        raise WrongArgument(f"seed={found}: wanted is a whole number, from 0 and below 2 to the 63rd")
    if found is not MISSING:
        return found
    kind = type(value).__name__
    shown = "" if hasattr(value, "iloc") else f"{' '.join(repr(value).split()):.40} "
    raise WrongArgument(f"{name}={shown}is of type {kind}: wanted is {' or '.join(wanted(hint))}")


def by_name(value: object) -> object:
    """What has a name in the session (a model, a run, an index, rankings, a corpus, an endpoint) by that name."""
    if isinstance(value, list | tuple):
        return type(value)(map(by_name, value)) if any(is_named(each) for each in value) else value
    return value.name if is_named(value) else value


def is_named(value: object) -> bool:
    """Whether it is something of ours that the session knows by a name."""
    return type(value).__module__.startswith(NAMED) and isinstance(getattr(value, "name", None), str)


def options_of(hint: object) -> tuple:
    """The alternatives of a hint."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def is_exactly(value: object, hint: object) -> bool:
    """Whether a value is of that type as it stands."""
    kind = typing.get_origin(hint) or hint
    if kind in (object, typing.Any) or isinstance(hint, typing.TypeVar):
        return True
    if kind is type(None) or kind is None:
        return value is None
    if kind is Callable:
        return callable(value)
    if kind in (int, float):
        return isinstance(value, kind) and not isinstance(value, bool)
    if kind in (list, tuple, Sequence, Iterable):
        if not isinstance(value, list | tuple):
            return False
        [inner, *_] = typing.get_args(hint) or (object,)
        return all(any(is_exactly(item, each) for each in options_of(inner)) for item in value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def converted(name: str, value: object, hint: object) -> object | None:
    """The value made into that type, where nothing is lost; None where it is none."""
    kind = typing.get_origin(hint) or hint
    if kind in (int, float, bool):
        value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value if kind is bool and isinstance(value, bool) else None
        if kind is bool:
            return bool(value) if value in (0, 1) else None
        return float(value) if kind is float else int(value) if float(value).is_integer() else None
    if kind is Path or kind is str:
        return kind(value) if isinstance(value, str | Path) else None
    if kind in (list, tuple, Sequence, Iterable):
        [inner, *_] = typing.get_args(hint) or (object,)
        return items(name, value, inner)
    return None


def items(name: str, value: object, inner: object) -> list | None:
    """A list of `inner`: from a tuple, a Series, the rows of a table; or with one text, or one chat, as its item."""
    allowed = options_of(inner)
    if isinstance(value, str) and any(each is str or typing.get_origin(each) is typing.Literal for each in allowed):
        return [value]
    if is_chat(value) and any(is_exactly(value, each) for each in allowed):
        return [value]
    if str in allowed and hasattr(value, "iloc") and hasattr(value, "columns"):
        value = value.to_dict("records")
    if isinstance(value, str | bytes | Mapping) or hasattr(value, "columns") or not isinstance(value, Iterable):
        return None
    found = value.tolist() if hasattr(value, "tolist") else list(value)
    if str in allowed:
        found = [text_in(item, f"item {number} of {name}") for number, item in enumerate(found)]
    return [fitted(f"{name}[{number}]", item, inner) for number, item in enumerate(found)]


def is_chat(value: object) -> bool:
    """Whether it is the turns of one conversation."""
    return (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(t, Mapping) and "role" in t for t in value)
    )


def text_in(item: object, where: str) -> object:
    """The text of a row, as tables and datasets have rows; anything else as it is."""
    if not isinstance(item, Mapping) or "role" in item:
        return item
    for key in ("prompt", "question"):
        if isinstance(item.get(key), str):
            return item[key]
    return text_of(item, where)


def wanted(hint: object) -> Iterator[str]:
    """A hint in words, an alternative each."""
    for each in options_of(hint):
        kind, inner = typing.get_origin(each) or each, typing.get_args(each)
        if kind in WANTED:
            yield WANTED[kind]
        elif kind is Callable:
            yield "a function"
        elif kind in (list, tuple, Sequence, Iterable):
            yield "a list of " + " or ".join(
                {str: "texts", int: "numbers", float: "numbers", Callable: "functions"}.get(i, "rows")
                for i in options_of(inner[0] if inner else object)
            )
        elif kind in (dict, Mapping):
            yield "a mapping"
        elif kind is not type(None):
            yield f"a {getattr(kind, '__name__', kind)}"
