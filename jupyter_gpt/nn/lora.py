"""LoRA (Hu et al. 2022): a small adapter trained beside a base that stays as it is, bit for bit.

Each adapter model is a copy of its base's modules around the base's own tensors (`with_shared_weights`). peft puts its
layers into the copy, so the base is never touched: many adapters share one base in memory, none has to be switched off
or on while another trains, and whatever takes a module takes such a copy.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.devices import seeded
from jupyter_gpt.nn.lora_linear import is_wrapped, unwrapped
from jupyter_gpt.nn.modules import eval_mode, trained
from jupyter_gpt.nn.transformer import probe, trunk_paths

ALL_LINEAR = "all-linear"  # every linear layer but the head: learns as full finetuning does (QLoRA, section 4)


def with_shared_weights(module: nn.Module) -> nn.Module:
    """The same architecture around the very tensors of `module`: parameters and buffers are shared, nothing is copied.

    Modules, configuration and hooks are its own, so what is put into the copy is not put into `module`. Never change
    the weights of a weight-sharing copy in place, by training, merging or `.to(dtype)`: they are the base's. Takes some
    milliseconds.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared | states(module))


def states(module: nn.Module) -> dict[int, None]:
    """What a forward pass has left in a module for its gradient, as RecurrentGemma leaves its state: to
    `copy.deepcopy`, which would refuse it, nothing."""
    kept = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    return {id(value): None for value in kept if value.grad_fn is not None}


def copied(module: nn.Module) -> nn.Module:
    """A copy with tensors of its own, trainable, in fp32: what full finetuning works on."""
    return copy.deepcopy(module, states(module)).float().requires_grad_(True)


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
    """A peft model of a weight-sharing copy of `module`, its adapter in fp32 and trainable, everything else frozen.

    The output of a layer W `(out, in)` becomes W x + alpha/rank * B A x, A `(rank, in)` drawn from `seed`, B `(out,
    rank)` zero, so that training starts from the base exactly. `alpha` is 2 * rank by default; `targets` are names of
    layers (their last part, or dotted), "all-linear" (default), or one regular expression. `dora` learns the magnitudes
    of the weights too (Liu et al. 2024), `rslora` scales by alpha/sqrt(rank) (Kalajdzievski 2023). The rows of `tokens`
    in the embedding and in the head of words are trained with the adapter (`chat_tokens.py` says which should be).
    `task` is peft's: "CAUSAL_LM" or "SEQ_CLS", whose head is then trained in full.

    Raises GPTError for a rank below one, and for targets that match nothing: it lists what there is.
    """
    from peft import LoraConfig

    if rank < 1:
        raise GPTError(f"--lora {rank} must be at least 1: it is the rank of the adapter")
    widest = module.config.get_text_config().hidden_size
    if rank > max(64, widest):
        raise GPTError(f"--lora {rank} is more than the width of the model, {widest}: a full rank would change no more")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha if alpha is not None else 2 * rank,
        target_modules=checked_targets(module, targets),
        use_dora=dora,
        use_rslora=rslora,
        lora_dropout=dropout,
        task_type=task,
        fan_in_fan_out=bool(conv_names(module)),
        trainable_token_indices=row_targets(module, tokens),
    )
    model = adapted(with_shared_weights(module), config, seed)
    model.train(module.training)
    trained(model)
    return model


def adapted(module: nn.Module, config: object, seed: int) -> nn.Module:
    """peft's layers in `module`, drawn from `seed`."""
    from peft import get_peft_model

    with seeded(seed, next(module.parameters()).device), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers in ways it will unlearn
        try:
            return get_peft_model(module, config)
        except ValueError as error:
            raise GPTError(
                f"{module.config.model_type} models take no such adapter: {str(error).splitlines()[0]}"
            ) from error


def clone_adapter(model: nn.Module, seed: int = 0, base: nn.Module | None = None) -> nn.Module:
    """A second adapter like that of the peft model `model`, on `base` or a weight-sharing copy of the same base, with
    the same weights so far."""
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = False, None  # peft sets the name anew, and warns of another
    copy_of = adapted(plain_base(model) if base is None else base, config, seed)
    copy_adapter(model, copy_of)
    copy_of.train(model.training)
    return copy_of


def copy_adapter(model: nn.Module, to: nn.Module) -> None:
    """Give the adapter of the peft model `to` the weights of that of `model`."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}
    set_peft_model_state_dict(to, weights)


def plain_base(model: nn.Module) -> nn.Module:
    """A copy, sharing weights, of the base of the peft model `model`, with no adapter in it."""
    from peft.tuners.lora import LoraLayer

    base = with_shared_weights(model.get_base_model())
    for name, layer in list(base.named_modules()):
        if is_wrapped(layer) or isinstance(layer, LoraLayer):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, unwrapped(layer) if is_wrapped(layer) else layer.get_base_layer())
    base.__dict__.pop("peft_config", None)
    return base


def merged(model: nn.Module) -> nn.Module:
    """The full model that the peft model `model` amounts to: W + alpha/rank * B A in tensors of its own, in fp32."""
    whole = copy.deepcopy(model, states(model)).float()
    return whole.merge_and_unload(safe_merge=True)


def merged_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The names and tensors of `merged(model)`, one at a time where the adapter allows it: that takes the memory of one
    matrix, not of a second model."""
    from peft.tuners.lora import LoraLayer

    config = model.peft_config["default"]
    if config.use_dora or config.trainable_token_indices:
        yield from merged(model).state_dict().items()
        return
    layers = {
        f"{name}.weight": part for name, part in model.get_base_model().named_modules() if isinstance(part, LoraLayer)
    }
    for name, tensor in plain_base(model).state_dict().items():
        if name in layers:
            tensor = tensor.float() + layers[name].get_delta_weight("default").float()
        yield name, tensor


def row_targets(module: nn.Module, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The rows of each table that are trained, as peft takes them: of the embedding, and of a head that may be tied."""
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


def linear_layers(module: nn.Module) -> list[str]:
    """The dotted names of the layers LoRA adapts: the linear ones of the trunk, neither embeddings nor head.

    Those two are often one tensor: an adapter of the one, merged, would change the other. Left out is what an adapter
    would not reach, a layer whose weight the model reads without calling it (`dt_proj` of Mamba), what is linear by its
    class alone (a router that returns a choice), and what peft refuses (`out_proj` of Mamba).
    """
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    path = next(iter(trunk_paths(module)), "")
    found = {
        name: layer
        for name, layer in module.named_modules()
        if layer is not head
        and name.startswith(path and f"{path}.")
        and (isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D")
    }
    reached, refused = called(module, path, found), refused_by_peft(module, found)
    return [name for name in found if kind_of(name) in reached and name.rsplit(".", 1)[-1] not in refused]


def kind_of(name: str) -> str:
    """The name of a layer without the numbers of blocks and experts."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def called(module: nn.Module, path: str, layers: dict[str, nn.Module]) -> set[str]:
    """The kinds of those `layers` that the part of `module` at `path` calls and that return one tensor, found by a few
    tokens; of experts, no token comes to all."""
    found: set[str] = set()

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            found.add(kind_of(name))

    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output, name=name: note(name, output))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad(), eval_mode(module):
            module.get_submodule(path)(input_ids=probe(module), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def refused_by_peft(module: nn.Module, names: Iterable[str]) -> set[str]:
    """Those last parts of names that peft refuses to adapt in this architecture."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    check = getattr(LoraModel, "_check_target_module_compatiblity", None)  # since 0.16; there is no public function
    refused = set()
    for last in {name.rsplit(".", 1)[-1] for name in names} if check else ():
        try:
            check(None, LoraConfig(), module, last)
        except ValueError:
            refused.add(last)
    return refused


def conv_names(module: nn.Module) -> list[str]:
    """Layers that hold their weights transposed, as GPT-2's do."""
    return [name for name, layer in module.named_modules() if type(layer).__name__ == "Conv1D"]


def checked_targets(module: nn.Module, targets: str | list[str] | None) -> str | list[str]:
    """`targets` as peft takes them. Raises GPTError where one of them names no layer, or one that is not adapted."""
    known, names = linear_layers(module), [name for name, _ in module.named_modules()]
    if not known:
        raise GPTError(f"{module.config.model_type} models have no linear layer that LoRA can adapt: leave --lora out")
    if targets in (None, ALL_LINEAR, [ALL_LINEAR]):
        return known
    wanted = [targets] if isinstance(targets, str) else list(targets)
    there = f"there are {', '.join(dict.fromkeys(name.rsplit('.', 1)[-1] for name in known))}"
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
            raise GPTError(f"--lora-targets {target} matches {odd[0]}, which LoRA does not adapt: {there}")
    return wanted[0] if pattern else wanted
