"""The static bundle of a run, by its kind."""

from __future__ import annotations

from importlib import import_module

from jupyter_gpt.notebook.views.bundle import Bundle

KINDS = {"pretrain": "curve", "sft": "finetuning", "classify": "classify", "reward": "reward", "rlhf": "rlhf"}


def run_bundle(run) -> Bundle:
    """The bundle of a run as it stands."""
    module = import_module(f"jupyter_gpt.notebook.views.{KINDS[run.kind]}")
    return module.run_bundle(run)
