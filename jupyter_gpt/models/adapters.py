"""Adapters in the store: a peft folder and the name of its base.

In memory an adapter is a weight-sharing copy of its base (`nn/lora.py`): loading it loads the base, and memory is freed
only when both are unloaded. A base that was trained again has other weights: its old adapters are refused.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.folder import SAFE, quiet
from jupyter_gpt.models.load import check_weights, first_line

CONFIG = "adapter_config.json"
CHUNK, CHUNKS = 1 << 16, 64  # bytes of a file that are hashed at once, and how often


def is_adapter(module) -> bool:
    """Whether a module is a peft model."""
    return hasattr(module, "peft_config")


def mark(folder: Path) -> str:
    """A fingerprint of the weights in `folder`: a hash of evenly spaced chunks of its safetensors."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for n in range(CHUNKS):
                file.seek(n * max(0, size - CHUNK) // (CHUNKS - 1))
                digest.update(file.read(CHUNK))
    return digest.hexdigest()[:32]


def write(module, folder: Path, base: Path) -> None:
    """Save the adapter as peft does, with its base's folder; none of the base's weights."""
    for config in module.peft_config.values():
        config.base_model_name_or_path = str(base)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft would look the base up on the hub
        module.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's blank model card


def own_tensors(module) -> list:
    """The tensors that are the adapter's, not its base's."""
    from peft import get_peft_model_state_dict

    return list(get_peft_model_state_dict(module, save_embedding_layers=False).values())


def load(model, base) -> None:
    """Load the adapter `model` on a weight-sharing copy of the resident `base`. Raises GPTError if it is damaged or was
    trained on other weights than those of `base`.
    """
    from transformers import AutoTokenizer

    check_weights(model, CONFIG)
    check_base(model, base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.folder, **SAFE)
        module = around(base.module, model, tokenizer)
    except Exception as error:  # damaged files raise anything
        raise GPTError(f"model {model.name} cannot be loaded from {model.folder}: {first_line(error)}") from error
    model.module, model.tokenizer = module.requires_grad_(False).eval(), tokenizer
    model.trained = model.trained or sum(tensor.numel() for tensor in own_tensors(module))
    model.parameters = model.parameters or base.parameters + model.trained


def around(base, model, tokenizer):
    """The adapter in `model`'s folder as a peft module on a weight-sharing copy of the module `base`."""
    from peft import PeftModel

    from jupyter_gpt.nn.heads import with_head
    from jupyter_gpt.nn.lora import with_shared_weights

    copy = with_head(base, model.labels, tokenizer.pad_token_id) if model.labels else with_shared_weights(base)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return PeftModel.from_pretrained(copy, model.folder, torch_device=str(base.device))


def check_base(model, base) -> None:
    """Raises GPTError if the adapter `model` was trained on other weights than `base` has now."""
    if model.base_mark and model.base_mark != mark(base.folder):
        raise GPTError(
            f"{model.name} was trained on another {base.name} than the one that is here now: run its cell again"
        )
