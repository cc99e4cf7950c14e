"""What transformers makes of a model's folder: nothing from the network, nothing pickled, no code of the model."""

from __future__ import annotations

from contextlib import contextmanager

SAFE = {"local_files_only": True, "trust_remote_code": False}


@contextmanager
def quiet():
    """Without transformers' progress bars and warnings."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def from_folder(folder, labels=None, **options):
    """`from_pretrained` of a causal LM, or with `labels` of a classifier, from safetensors only."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    with quiet():
        return auto.from_pretrained(folder, use_safetensors=True, **SAFE, **options)
