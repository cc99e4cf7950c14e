"""One GRPO step on one GPU, the 135M shape with LoRA of rank 16: ours, and TRL's GRPOTrainer as it comes.

    python tests/benchmarks/grpo_gpu.py [--steps 3] [--prompts 8] [--samples 16] [--tokens 128] [--ours-only]

The work and the clocks of `grpo_cpu.py`, with random weights and a tokenizer trained here, so that nothing is fetched.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from figures import Figure, tell
from grpo_cpu import ours, theirs
from sft_gpu import model_of_shape

sys.path.insert(0, str(Path(__file__).parents[1]))
VOCAB = 8192


def keep_policy(gpt, layers: int):
    """The model `policy` in a session: SmolLM2-135M's shape with a vocabulary of 8,192 tokens and a chat template."""
    from helpers.tiny import CHAT
    from jupyter_gpt.data.tokenizer import train_bpe
    from jupyter_gpt.nn.devices import default_device

    texts = (path.read_text(encoding="utf-8", errors="replace") for path in Path(os.__file__).parent.glob("*.py"))
    tokenizer = train_bpe(texts, VOCAB)
    tokenizer.chat_template = CHAT
    module = model_of_shape(layers, len(tokenizer)).to(default_device())
    return gpt.models.keep("policy", module, tokenizer, "pull", None, ["policy (pull)"], 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 3), ("prompts", 8), ("samples", 16), ("tokens", 128), ("layers", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JUPYTER_GPT_HOME"] = folder
        from jupyter_gpt import gpt

        model = keep_policy(gpt, given.layers)
        seconds, generating, alone = ours(model, given)
        tokens = given.prompts * given.samples * given.tokens
        drawing = statistics.median(generating)
        more = drawing / statistics.median(alone) / tokens
        print(f"generation: {drawing:.2f} s of a step, {more:.2f} times the engine alone", flush=True)
        peer = None
        if not given.ours_only and importlib.util.find_spec("trl"):
            peer = 1 / statistics.median(theirs(model, given))
        what = f"GRPO 135M, {given.prompts} × {given.samples} × {given.tokens} tokens (peer: TRL)"
        tell([Figure(what, 1 / statistics.median(seconds), "steps/s", peer)], given.json)


if __name__ == "__main__":
    main()
