"""The optimisers of a run: Muon on the transformer's matrices with AdamW on the rest, or AdamW on everything.

Embeddings, the head, norms and biases are not matrices that mix features, and Muon's theory does not speak of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jupyter_gpt.training.muon import Muon
from jupyter_gpt.training.recipe import Recipe


@dataclass
class Optimizers:
    """What steps a model: `muon` may be None; `names` keys the AdamW state by parameter name."""

    muon: Muon | None
    adamw: torch.optim.AdamW
    names: dict[Tensor, str]

    def step(self, factor: float) -> None:
        """One update of every parameter, at `factor` times the peak learning rates; clears the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * factor
        if self.muon:
            self.muon.step(factor)
        self.adamw.step()
        for parameter in self.names:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as named tensors for safetensors."""
        tensors = self.muon.state() if self.muon else {}
        for parameter, moments in self.adamw.state.items():
            for key, value in moments.items():
                tensors[f"adamw.{self.names[parameter]}.{key}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        if self.muon:
            self.muon.load(tensors)
        for group in self.adamw.param_groups:
            for parameter in group["params"]:
                prefix = f"adamw.{self.names[parameter]}."
                self.adamw.state[parameter] = {
                    key: tensors[prefix + key].to(parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if prefix + key in tensors
                }


def optimizers(model: nn.Module, recipe: Recipe, compile: bool = False) -> Optimizers:
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
    groups = [{"params": ps, "peak": lr, "lr": lr, "weight_decay": wd} for ps, lr, wd in peaks if ps]
    betas = (recipe.beta1, recipe.beta2)
    return Optimizers(muon, torch.optim.AdamW(groups, betas=betas, eps=1e-10, fused=True), names)


def muon_blocks(model: nn.Module, recipe: Recipe) -> dict[int, tuple[int, int]]:
    """Where Muon cuts a matrix before it orthogonalises: ids of weights to (dimension, pieces).

    The projections of attention into their heads, each a matrix of its own; in models narrower than 512, where Muon
    weighs against the few tokens of a step, the MLP's into pieces of 64 or more hidden units too (MuonBP, Khaled et al.
    2025). On tinyshakespeare the loss is the same to 0.01, at a quarter of the work.
    """
    heads, kv = recipe.heads, recipe.kv_heads
    units = next(n for n in range(recipe.mlp // 64 or 1, 0, -1) if recipe.mlp % n == 0) if recipe.width < 512 else 1
    cuts = {
        "q_proj": (0, heads), "k_proj": (0, kv), "v_proj": (0, kv), "o_proj": (1, heads),
        "gate_proj": (0, units), "up_proj": (0, units), "down_proj": (1, units),
        "attn.c_attn": (1, 3 * heads), "attn.c_proj": (0, heads), "mlp.c_fc": (1, units), "mlp.c_proj": (0, units),
    }  # fmt: skip
    return {
        id(module.weight): where
        for name, module in model.named_modules()
        for ending, where in cuts.items()
        if name.endswith("." + ending)
    }
