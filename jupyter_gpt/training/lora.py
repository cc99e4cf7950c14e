"""LoRA (Hu et al. 2022): a small adapter trained beside a base that stays as it is, bit for bit.

Each adapter model is a *twin* of its base: the same modules, made once more around the base's own tensors. peft puts its
layers into the twin, so the base is never touched: many adapters share one base in memory, none has to be switched off
or on while another trains, and whatever takes a module takes a twin.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence

from torch import nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.token_rows import is_wrapped, unwrapped
from jupyter_gpt.training.device import seeded

ALL_LINEAR = "all-linear"  # every linear layer but the head: learns as full finetuning does (QLoRA, section 4)


def twin(module: nn.Module) -> nn.Module:
    """The same architecture around the very tensors of `module`: parameters and buffers are shared, nothing is copied.

    Modules, configuration and hooks are its own, so what is put into the twin is not put into `module`. Never change
    the weights of a twin in place, by training, merging or `.to(dtype)`: they are the base's. Takes some milliseconds.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def copied(module: nn.Module) -> nn.Module:
    """A copy with tensors of its own, trainable, in fp32: what full finetuning works on."""
    return copy.deepcopy(module).float().requires_grad_(True)


def lora(
    module: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    targets: str | list[str] | None = None,
    *,
    dora: bool = False,
    rslora: bool = False,
    dropout: float = 0.0,
    tokens: Sequence[int] = (),
    task: str = "CAUSAL_LM",
    seed: int = 0,
) -> nn.Module:
    """A peft model of a twin of `module`, its adapter in fp32 and trainable, everything else frozen.

    The output of a layer W `(out, in)` becomes W x + alpha/rank * B A x, A `(rank, in)` drawn from `seed`, B `(out,
    rank)` zero, so that training starts from the base exactly. `alpha` is 2 * rank by default; `targets` are names of
    layers (their last part, or dotted), "all-linear" (default), or one regular expression. `dora` learns the magnitudes
    of the weights too (Liu et al. 2024), `rslora` scales by alpha/sqrt(rank) (Kalajdzievski 2023). The rows of `tokens` in
    the embedding and in the head of words are trained with the adapter (`chat_tokens.py` says which should be). `task` is
    peft's: "CAUSAL_LM" or "SEQ_CLS", whose head is then trained in full.

    Raises GPTError for a rank below one, and for targets that match nothing: it lists what there is.
    """
    from peft import LoraConfig

    if rank < 1:
        raise GPTError(f"--lora {rank} must be at least 1: it is the rank of the adapter")
    widest = module.config.get_text_config().hidden_size
    if rank > max(64, widest):
        raise GPTError(f"--lora {rank} is more than the width of the model, {widest}: a full rank would change no more")
    config = LoraConfig(
        r=rank, lora_alpha=alpha if alpha is not None else 2 * rank, target_modules=checked_targets(module, targets),
        use_dora=dora, use_rslora=rslora, lora_dropout=dropout, task_type=task,
        fan_in_fan_out=bool(conv_names(module)), trainable_token_indices=row_targets(module, tokens),
    )  # fmt: skip
    model = adapted(twin(module), config, seed)
    model.train(module.training)
    trained(model)
    return model


def adapted(module: nn.Module, config: object, seed: int) -> nn.Module:
    """peft's layers in `module`, drawn from `seed`."""
    from peft import get_peft_model

    with seeded(seed, next(module.parameters()).device), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers in ways it will unlearn
        return get_peft_model(module, config)


def again(model: nn.Module, seed: int = 0) -> nn.Module:
    """A second adapter like that of the peft model `model`, on a twin of the same base, with the same weights so far."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = False, None  # peft sets the name anew, and warns of another
    copy_of = adapted(plain_base(model), config, seed)
    weights = {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}
    set_peft_model_state_dict(copy_of, weights)
    copy_of.train(model.training)
    return copy_of


def plain_base(model: nn.Module) -> nn.Module:
    """A twin of the base of the peft model `model`, with no adapter in it."""
    from peft.tuners.lora import LoraLayer

    base = twin(model.get_base_model())
    for name, layer in list(base.named_modules()):
        if is_wrapped(layer) or isinstance(layer, LoraLayer):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, unwrapped(layer) if is_wrapped(layer) else layer.get_base_layer())
    base.__dict__.pop("peft_config", None)
    return base


def merged(model: nn.Module) -> nn.Module:
    """The full model that the peft model `model` amounts to: W + alpha/rank * B A in tensors of its own, in fp32."""
    whole = copy.deepcopy(model).float()
    return whole.merge_and_unload(safe_merge=True)


def row_targets(module: nn.Module, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Which rows of which tables are trained, as peft takes it: the embedding and a head of words, which may be tied to it."""
    if not tokens:
        return None
    table = module.get_input_embeddings()
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    layers = [table] + [head] * (head is not None and head.weight is not table.weight)  # peft follows a tie by itself
    return {name: list(tokens) for name, layer in module.named_modules() if any(layer is one for one in layers)}


def own_tokens(model: nn.Module) -> list[int]:
    """The tokens whose rows the peft model `model` has of its own."""
    rows = model.peft_config["default"].trainable_token_indices or {}
    return sorted({token for ids in rows.values() for token in ids})


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters of a model. Raises GPTError when there is none: such a run would change nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise GPTError("nothing of this model is trainable: the run would leave every weight as it is")
    return parameters


def linear_layers(module: nn.Module) -> list[str]:
    """The dotted names of the layers LoRA adapts: the linear ones of the trunk, neither embeddings nor head.

    Those two are often one tensor: an adapter of the one, merged, would change the other.
    """
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    trunk = {id(layer) for layer in getattr(module, "base_model", module).modules()}
    return [
        name
        for name, layer in module.named_modules()
        if layer is not head and id(layer) in trunk
        and (isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D")
    ]  # fmt: skip


def linear_names(module: nn.Module) -> list[str]:
    """The last parts of their names, each once, in order."""
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear_layers(module)))


def conv_names(module: nn.Module) -> list[str]:
    """Layers that hold their weights transposed, as GPT-2's do."""
    return [name for name, layer in module.named_modules() if type(layer).__name__ == "Conv1D"]


def checked_targets(module: nn.Module, targets: str | list[str] | None) -> str | list[str]:
    """`targets` as peft takes them. Raises GPTError where one of them names no layer, or one that is not adapted."""
    if targets in (None, ALL_LINEAR, [ALL_LINEAR]):
        return ALL_LINEAR
    wanted = [targets] if isinstance(targets, str) else list(targets)
    known, names = linear_layers(module), [name for name, _ in module.named_modules()]
    there = f"there are {', '.join(linear_names(module))}"
    pattern = len(wanted) == 1 and wanted[0] not in names and re.search(r"[\\*+?|()\[\]^$]", wanted[0])
    for target in wanted:
        try:
            end = target if pattern else rf"(.*\.)?{re.escape(target)}"
            found = [name for name in names if re.fullmatch(end, name)]
        except re.error as error:
            raise GPTError(f"--lora-targets {target} is no regular expression: {error}") from None
        if not found:
            raise GPTError(f"--lora-targets {target} matches no layer: {there}")
        if odd := [name for name in found if name not in known]:
            raise GPTError(f"--lora-targets {target} matches {odd[0]}, which is no linear layer below the head: {there}")
    return wanted[0] if pattern else wanted
