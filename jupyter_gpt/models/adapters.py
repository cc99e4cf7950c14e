"""Adapter models in the store: a peft folder beside the name of the base that it belongs to.

In memory an adapter is a weight-sharing copy of its base (`nn/lora.py`), so loading one loads its base, and memory
comes back only when both are gone. A base that is made anew has other weights: its adapters are then refused, not
misled.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.load import check_weights, first_line, quiet

CONFIG = "adapter_config.json"
STRETCH, STRETCHES = 1 << 16, 64  # bytes at a time, and how many of them, that tell the weights of a base


def is_adapter(module) -> bool:
    """Whether a module is a peft model: an adapter around a base."""
    return hasattr(module, "peft_config")


def mark(folder: Path) -> str:
    """What tells the weights in `folder` from any others: a hash of stretches all through its safetensors."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for n in range(STRETCHES):
                file.seek(n * max(0, size - STRETCH) // (STRETCHES - 1))
                digest.update(file.read(STRETCH))
    return digest.hexdigest()[:32]


def write(module, folder: Path, base: Path) -> None:
    """The adapter as peft writes it, its base named by the folder that holds it; nothing of the base's weights."""
    for config in module.peft_config.values():
        config.base_model_name_or_path = str(base)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about looking the base up on a hub, which nobody asked for
        module.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in, left blank


def own_bytes(module) -> int:
    """Bytes of what is the adapter's own, not its base's."""
    from peft import get_peft_model_state_dict

    return sum(tensor.nbytes for tensor in get_peft_model_state_dict(module, save_embedding_layers=False).values())


def own_parameters(module) -> int:
    """Numbers that are the adapter's own: those that were trained."""
    from peft import get_peft_model_state_dict

    return sum(tensor.numel() for tensor in get_peft_model_state_dict(module, save_embedding_layers=False).values())


def load(model, base) -> None:
    """Bring the adapter `model` into memory, on a weight-sharing copy of the resident `base`.

    Raises GPTError when it was trained on other weights than those of `base`, or is damaged.
    """
    from transformers import AutoTokenizer

    check_weights(model, CONFIG)
    check_base(model, base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.folder, local_files_only=True, trust_remote_code=False)
        module = around(base.module, model, tokenizer)
    except Exception as error:  # what files of any content make of the libraries that read them
        raise GPTError(f"model {model.name} cannot be loaded from {model.folder}: {first_line(error)}") from error
    model.module, model.tokenizer = module.requires_grad_(False).eval(), tokenizer
    model.trained = model.trained or own_parameters(module)
    model.parameters = model.parameters or base.parameters + model.trained


def around(base, model, tokenizer):
    """The adapter in the folder of `model`, as a peft module on a weight-sharing copy of the module `base`."""
    from peft import PeftModel

    from jupyter_gpt.nn.heads import with_head
    from jupyter_gpt.nn.lora import with_shared_weights

    under = with_head(base, model.labels, tokenizer.pad_token_id) if model.labels else with_shared_weights(base)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return PeftModel.from_pretrained(under, model.folder, torch_device=str(base.device))


def check_base(model, base) -> None:
    """Raises GPTError where the adapter `model` was trained on other weights than those that stand as `base` now."""
    if model.base_mark and model.base_mark != mark(base.folder):
        raise GPTError(
            f"{model.name} was trained on another {base.name} than the one that is here now: run its cell again"
        )
