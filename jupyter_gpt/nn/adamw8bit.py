"""AdamW whose moments have 8 bits (Dettmers et al. 2022), by bitsandbytes: a quarter of the memory of its state.

Of tables and heads, where rare tokens meet large gradients, and of small tensors the moments stay in fp32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_gpt.errors import GPTError

if TYPE_CHECKING:
    from torch import Tensor

NAME = "adamw8bit"
TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
MOMENTS = 2 + 8 / 256  # bytes per parameter: two moments, and an fp32 scale of each for 256 values


def check(optimizer: str | None, shard: bool = False) -> None:
    """Raises GPTError where an optimizer cannot run here."""
    if optimizer != NAME:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise GPTError(f"--optimizer {NAME} needs an extra: pip install 'jupyter_gpt[bitsandbytes]'")
    if shard:
        raise GPTError(f"--shard divides the optimizer state already: leave --optimizer {NAME} out")


def adamw8bit(groups: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> Any:
    """The optimizer over groups of parameters as `torch.optim.AdamW` takes them; a group with `bits` 32 has its moments
    in fp32."""
    from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

    class ByGroup(AdamW8bit):
        def get_config(self, gindex, pindex, group):
            return {**super().get_config(gindex, pindex, group), "optim_bits": group["bits"]}

    return ByGroup(groups, betas=betas, eps=eps)


def own(moments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of the state of a parameter what a checkpoint holds: the tables of what 8 bits stand for are the same for all."""
    return ((key, value) for key, value in moments.items() if not key.startswith("qmap"))


def restored(optimizer: Any, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state of a parameter, from what a checkpoint holds of it."""
    tables = {}
    if "absmax1" in state:
        optimizer.fill_qmap()
        device = state["state1"].device
        tables = {key: optimizer.name2qmap[name].to(device) for key, name in TABLES.items()}
    return {**state, **tables, "step": int(state["step"])}
