"""A small catalogue of published base models and assistants, with their licences.

The talk's point is what a licence allows: LLaMA was the strongest base model of its day, for research only. `hub` is
where `%gpt pull NAME` gets it, None if its weights are not on the hub. Sizes and licences are those of the model cards
and papers.
"""

from __future__ import annotations

from typing import NamedTuple

APACHE = "Apache-2.0"


class Entry(NamedTuple):
    """A published model. `parameters` to three digits; `terms`: what its licence allows; `tokens` of pretraining, for a
    base model whose makers told them."""

    name: str
    hub: str | None
    parameters: float
    assistant: bool
    licence: str
    terms: str
    year: int
    tokens: float | None = None


FREE = "any use"
LLAMA = "commercial use below 700M users a month; ask for access"
GEMMA = "commercial use within a list of prohibited uses; ask for access"

CATALOGUE = (
    Entry("gpt2", "openai-community/gpt2", 124e6, False, "MIT", FREE, 2019),
    Entry("gpt2-medium", "openai-community/gpt2-medium", 355e6, False, "MIT", FREE, 2019),
    Entry("gpt2-large", "openai-community/gpt2-large", 774e6, False, "MIT", FREE, 2019),
    Entry("gpt2-xl", "openai-community/gpt2-xl", 1.56e9, False, "MIT", FREE, 2019),
    Entry("llama-7b", None, 6.74e9, False, "LLaMA licence", "research only, not for commercial use", 2023, 1e12),
    Entry("llama-65b", None, 65.2e9, False, "LLaMA licence", "research only, not for commercial use", 2023, 1.4e12),
    Entry("pythia-70m", "EleutherAI/pythia-70m", 70.4e6, False, APACHE, FREE, 2023, 300e9),
    Entry("pythia-160m", "EleutherAI/pythia-160m", 162e6, False, APACHE, FREE, 2023, 300e9),
    Entry("pythia-410m", "EleutherAI/pythia-410m", 405e6, False, APACHE, FREE, 2023, 300e9),
    Entry("pythia-1.4b", "EleutherAI/pythia-1.4b", 1.41e9, False, APACHE, FREE, 2023, 300e9),
    Entry("llama-2-7b", "meta-llama/Llama-2-7b-hf", 6.74e9, False, "Llama 2 Community", LLAMA, 2023, 2e12),
    Entry("mistral-7b", "mistralai/Mistral-7B-v0.1", 7.24e9, False, APACHE, FREE, 2023),
    Entry("phi-2", "microsoft/phi-2", 2.78e9, False, "MIT", FREE, 2023, 1.4e12),
    Entry("llama-3.1-8b", "meta-llama/Llama-3.1-8B", 8.03e9, False, "Llama 3.1 Community", LLAMA, 2024, 15e12),
    Entry("llama-3.2-1b", "meta-llama/Llama-3.2-1B", 1.24e9, False, "Llama 3.2 Community", LLAMA, 2024, 9e12),
    Entry("gemma-2-2b", "google/gemma-2-2b", 2.61e9, False, "Gemma Terms", GEMMA, 2024, 2e12),
    Entry("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", 494e6, False, APACHE, FREE, 2024, 18e12),
    Entry(
        "qwen2.5-3b",
        "Qwen/Qwen2.5-3B",
        3.09e9,
        False,
        "Qwen Research",
        "research only, not for commercial use",
        2024,
        18e12,
    ),
    Entry("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", 135e6, False, APACHE, FREE, 2024, 2e12),
    Entry("smollm2-360m", "HuggingFaceTB/SmolLM2-360M", 362e6, False, APACHE, FREE, 2024, 4e12),
    Entry("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B", 1.71e9, False, APACHE, FREE, 2024, 11e12),
    Entry("olmo-2-7b", "allenai/OLMo-2-1124-7B", 7.3e9, False, APACHE, FREE, 2024, 4e12),
    Entry("olmo-2-1b", "allenai/OLMo-2-0425-1B", 1.48e9, False, APACHE, FREE, 2025, 4e12),
    Entry("qwen3-0.6b-base", "Qwen/Qwen3-0.6B-Base", 596e6, False, APACHE, FREE, 2025, 36e12),
    Entry("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf", 6.74e9, True, "Llama 2 Community", LLAMA, 2023),
    Entry("zephyr-7b", "HuggingFaceH4/zephyr-7b-beta", 7.24e9, True, "MIT", FREE, 2023),
    Entry("mistral-7b-instruct", "mistralai/Mistral-7B-Instruct-v0.2", 7.24e9, True, APACHE, FREE, 2023),
    Entry("tinyllama-1.1b-chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1.1e9, True, APACHE, FREE, 2024),
    Entry(
        "llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", 1.24e9, True, "Llama 3.2 Community", LLAMA, 2024
    ),
    Entry("gemma-2-2b-it", "google/gemma-2-2b-it", 2.61e9, True, "Gemma Terms", GEMMA, 2024),
    Entry("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", 494e6, True, APACHE, FREE, 2024),
    Entry("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 135e6, True, APACHE, FREE, 2024),
    Entry("smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 362e6, True, APACHE, FREE, 2024),
    Entry("smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1.71e9, True, APACHE, FREE, 2024),
    Entry("olmo-2-1b-instruct", "allenai/OLMo-2-0425-1B-Instruct", 1.48e9, True, APACHE, FREE, 2025),
    Entry("qwen3-0.6b", "Qwen/Qwen3-0.6B", 596e6, True, APACHE, FREE, 2025),
    Entry("qwen3-1.7b", "Qwen/Qwen3-1.7B", 1.72e9, True, APACHE, FREE, 2025),
)

ABSENT = "GPT-4, Claude and the like have no published weights: `%gpt config endpoint` uses them through their APIs."


def find(name: str) -> Entry | None:
    """The entry of that name or hub name, ignoring case."""
    wanted = name.lower()
    return next((e for e in CATALOGUE if wanted in (e.name, (e.hub or "").lower())), None)


def names() -> list[str]:
    """The names that `%gpt pull` can get."""
    return [entry.name for entry in CATALOGUE if entry.hub]
