"""Rollouts by vLLM (`%%rlhf --rollouts ENDPOINT`): the policy trains here, and samples there.

Before each step vLLM gets the weights as they stand: a full model, with the adapter merged, in safetensors that both
can read. The log-probabilities that enter the importance ratio are the trainer's, of the same tokens: those of vLLM
come from other kernels in another number format, and with them the ratio would not be 1 where nothing was learned yet
(Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). How far both are apart is a
metric, and an error where vLLM cannot have the policy's weights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference import vllm
from jupyter_gpt.nn.lora import merged_tensors
from jupyter_gpt.stages.policy import is_adapter
from jupyter_gpt.stages.rollout import Prompt, logprobs_and_entropy, rollout_from

LARGEST_GAP = 0.5  # nats a token: other kernels and bf16 make some hundredths


class RolloutServer:
    """vLLM behind `endpoint`. `folder` is the run's: the weights go through it, and are removed by `close`."""

    def __init__(self, endpoint, folder: Path):
        self.endpoint, self.folder = endpoint, folder / "rollouts"
        self.step: int | None = None  # that whose weights vLLM has

    def roll_out(self, training, prompts: Sequence[Prompt], samples: int, seeds: Sequence[int]) -> Iterator[None]:
        """As `rollout.roll_out`: yields while it waits, returns the `Rollout`, `old` by the policy as it trains."""
        if self.step != training.step:
            yield from self.refresh(training)
        ids, most = [each.ids for each in prompts], training.recipe.max_tokens
        streams = [seed * 1024 for seed in seeds]
        found = yield from vllm.sample(self.endpoint, ids, samples, most, training.stop, streams)
        rollout = rollout_from(
            training.tokenizer,
            prompts,
            samples,
            [each.ids for each in found],
            [each.logprobs for each in found],
            [each.finish for each in found],
            training.stop,
            training.device,
        )
        theirs = rollout.old
        rollout.old, _ = yield from logprobs_and_entropy(training.policy, training, rollout.rows)
        mask = rollout.mask
        rollout.sampler_gap = float(((rollout.old - theirs).abs() * mask).sum() / mask.sum())
        if not rollout.sampler_gap <= LARGEST_GAP:
            raise GPTError(
                f"{self.endpoint.name} samples from other weights than the policy's: its log-probabilities are "
                f"{rollout.sampler_gap:.2f} nats per token away on average"
            )
        return rollout

    def refresh(self, training) -> Iterator[None]:
        """Give vLLM the weights of the policy as they stand."""
        self.folder.mkdir(exist_ok=True)
        write_weights(training.model, self.folder / "model.safetensors", training.recipe.dtype)
        yield
        yield from vllm.reload(self.endpoint, self.folder)
        self.step = training.step

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def write_weights(policy, path: Path, dtype: str) -> None:
    """The weights of a policy as transformers would save them, an adapter merged, in the dtype it is trained in."""
    from safetensors.torch import save_file

    named = merged_tensors(policy) if is_adapter(policy) else policy.state_dict().items()
    tied = getattr(policy.config, "tie_word_embeddings", False)
    tensors = {}
    for name, tensor in named:
        if not (tied and name == "lm_head.weight"):  # it is the table of embeddings
            kind = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
            tensors[name] = tensor.detach().to("cpu", kind, copy=True).contiguous()
    temporary = path.with_suffix(".writing")
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)
