"""The optimisers of a run: Muon on the transformer's matrices with AdamW on the rest, or AdamW on everything.

Embeddings, the head, norms and biases are not matrices that mix features, and Muon's theory does not speak of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from jupyter_gpt.nn.lora import trained_by_name
from jupyter_gpt.nn.lora_linear import unwrapped
from jupyter_gpt.nn.muon import Muon


@dataclass
class Optimizers:
    """What steps a model: one of `muon` and `adamw` may be None; `names` keys the AdamW state by parameter name."""

    muon: Muon | None
    adamw: torch.optim.AdamW | None
    names: dict[Tensor, str]

    def step(self, factor: float) -> None:
        """One update of every parameter, at `factor` times the peak learning rates; clears the gradients."""
        if self.muon:
            self.muon.step(factor)
        if self.adamw:
            for group in self.adamw.param_groups:
                group["lr"] = group["peak"] * factor
            self.adamw.step()
        for parameter in self.names:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as named tensors for safetensors."""
        tensors = self.muon.state() if self.muon else {}
        for parameter, moments in self.adamw.state.items() if self.adamw else ():
            for key, value in moments.items():
                tensors[f"adamw.{self.names[parameter]}.{key}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        if self.muon:
            self.muon.load(tensors)
        for group in self.adamw.param_groups if self.adamw else ():
            for parameter in group["params"]:
                prefix = f"adamw.{self.names[parameter]}."
                self.adamw.state[parameter] = {
                    key: tensors[prefix + key].to(parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if prefix + key in tensors
                }


def optimizers(model: nn.Module, recipe, compile: bool = False) -> Optimizers:
    """The optimisers `recipe` asks for, over the trainable parameters of `model`."""
    names = {p: n for n, p in model.named_parameters() if p.requires_grad}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = model.get_output_embeddings().weight
    matrices = [p for p in names if p.ndim == 2 and id(p) not in tables and p is not head]
    vectors = [p for p in names if p.ndim < 2]
    tables_only = [p for p in names if id(p) in tables and p is not head]
    peaks = [(tables_only, recipe.lr_embedding, 0.0), ([head], recipe.lr_head, 0.0), (vectors, recipe.lr_vectors, 0.0)]
    muon = None
    if recipe.optimizer == "muon":
        from transformers.pytorch_utils import Conv1D

        transposed = frozenset(id(m.weight) for m in model.modules() if isinstance(m, Conv1D))
        muon = Muon(
            matrices, recipe.lr, recipe.momentum, recipe.weight_decay, transposed, muon_blocks(model, recipe), compile
        )
    else:
        peaks.append((matrices, recipe.lr, recipe.weight_decay))
    return Optimizers(muon, adamw(peaks, (recipe.beta1, recipe.beta2), 1e-10), names)


def finetuning_optimizers(model: nn.Module, recipe) -> Optimizers:
    """The optimisers of a finetuning run over what is trainable of `model`, be it all of it or an adapter.

    AdamW has one rate for all (weight decay for the matrices, not for rows of an adapter: they are whole rows, no
    changes that fade); with Muon the tables, the head and the vectors keep the ratios to it that they have in
    pretraining. `recipe` has optimizer, lr, weight_decay, momentum, beta1, beta2, eps.
    """
    names = {p: n for n, p in model.named_parameters() if p.requires_grad}
    rows = {id(p) for p, n in names.items() if ".trainable_tokens_" in n}
    if recipe.optimizer == "adamw":
        matrices = [p for p in names if p.ndim > 1 and id(p) not in rows]
        others = [p for p in names if p.ndim < 2 or id(p) in rows]
        peaks = [(matrices, recipe.lr, recipe.weight_decay), (others, recipe.lr, 0.0)]
        return Optimizers(None, adamw(peaks, (recipe.beta1, recipe.beta2), recipe.eps), names)
    from transformers.pytorch_utils import Conv1D

    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | rows
    head = unwrapped(model.get_output_embeddings()).weight
    config = model.config.get_text_config()
    heads, kv_heads = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    heads = heads if isinstance(heads, int) else 1  # none in a state-space model, or other ones in each layer
    shape = SimpleNamespace(
        heads=heads, kv_heads=kv_heads if isinstance(kv_heads, int) else heads, width=config.hidden_size
    )
    scale = (768 / shape.width) ** 0.5
    matrices = [p for p in names if is_matrix(p) and id(p) not in tables and p is not head]
    others = {id(p) for p in matrices} | tables | {id(head)}
    peaks = [
        ([p for p in names if id(p) in tables and p is not head], 1.5 * scale * recipe.lr, 0.0),
        ([p for p in names if p is head], 0.2 * scale * recipe.lr, 0.0),
        ([p for p in names if id(p) not in others], 0.5 * recipe.lr, 0.0),
    ]
    transposed = frozenset(id(m.weight) for m in model.modules() if isinstance(m, Conv1D))
    blocks = muon_blocks(model, shape)
    muon = Muon(matrices, recipe.lr, recipe.momentum, recipe.weight_decay, transposed, blocks)
    return Optimizers(muon, adamw(peaks, (0.8, 0.95), 1e-10), names)


def adamw_of(modules: Mapping[str, nn.Module], peaks: Mapping[str, float], weight_decay: float = 0.0) -> Optimizers:
    """One AdamW over the trainable parameters of `modules`, each module with a peak learning rate of its own."""
    names = {parameter: name for name, parameter in trained_by_name(modules).items()}
    groups = [
        {"params": [p for p in module.parameters() if p.requires_grad], "peak": peaks[name], "lr": peaks[name]}
        for name, module in modules.items()
    ]
    return Optimizers(None, torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True), names)


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter mixes features: a matrix, or a stack of them; a kernel `(D, 1, k)` goes over time alone."""
    return p.ndim in (2, 3) and min(p.shape[-2:]) > 1


def adamw(peaks: list[tuple[list, float, float]], betas: tuple[float, float], eps: float) -> torch.optim.AdamW | None:
    """AdamW over groups of (parameters, peak rate, weight decay); None where there is nothing to step."""
    groups = [{"params": ps, "peak": lr, "lr": lr, "weight_decay": decay} for ps, lr, decay in peaks if ps]
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True) if groups else None


def muon_blocks(model: nn.Module, recipe) -> dict[int, tuple[int, int]]:
    """Where Muon cuts a matrix before it orthogonalises: ids of weights to (dimension, pieces).

    The projections of attention into their heads, each a matrix of its own; in models narrower than 512, where Muon
    weighs against the few tokens of a step, the MLP's into pieces of 64 or more hidden units too (MuonBP, Khaled et al.
    2025). On tinyshakespeare the loss is the same to 0.01, at a quarter of the work. A matrix of such a name in another
    architecture, which does not divide so, stays whole.
    """
    from transformers.pytorch_utils import Conv1D

    heads, kv = recipe.heads, recipe.kv_heads
    linear = {
        "q_proj": (0, heads),
        "k_proj": (0, kv),
        "v_proj": (0, kv),
        "o_proj": (1, heads),
        "gate_proj": (0, None),
        "up_proj": (0, None),
        "down_proj": (1, None),
    }
    conv = {"attn.c_attn": (1, 3 * heads), "attn.c_proj": (0, heads), "mlp.c_fc": (1, None), "mlp.c_proj": (0, None)}
    found = {}
    for name, module in model.named_modules():
        cuts = conv if isinstance(module, Conv1D) else linear if isinstance(module, nn.Linear) else {}
        for ending, (dim, pieces) in cuts.items():
            if name.endswith("." + ending):
                size = module.weight.shape[dim]
                pieces = pieces or (units(size) if recipe.width < 512 else 1)
                if size % pieces == 0:
                    found[id(module.weight)] = dim, pieces
    return found


def units(hidden: int) -> int:
    """Into how many pieces of 64 or more an MLP is cut."""
    return next(n for n in range(hidden // 64 or 1, 0, -1) if hidden % n == 0)
