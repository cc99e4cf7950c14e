"""A session whose models write at once what stands here, so that a comparison can be made where there is no model."""

from __future__ import annotations

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.stages.compare import compare
from jupyter_gpt.stages.rankings import AllRankings

FOX = (
    "there was a little fox who lived in a small red house by the river. Every morning she went to the mill."
    "\n\n"
    "“Good day,” said the miller, and gave her a loaf of <b>bread</b>."
)
HEN = (
    "there was a little hen who lived in a small house by the river. Every evening she went to the mill.\n\n"
    "“Good day,” said the miller, and gave her a bag of corn."
)
WRITTEN = {
    "Once upon a time": (FOX, HEN, "the end."),
    "The capital of France is": (" Paris, the city of light.", " Lyon.", ""),
    "2 + 2 =": (" 4", " 4", " 4"),
    "Why is the sky blue?": (
        "It is not.",
        "Sunlight is scattered by the air, blue light most of all.",
        "Ask a bird.",
    ),
}


class Session:
    """As much of `gpt` as comparing needs."""

    def __init__(self, names: tuple[str, ...] = ("storyteller", "smollm2")):
        self.names, self.rankings = names, AllRankings()
        self.models = {name: name for name in names}

    def prompts(self, texts: list[str], *, model: str, samples: int, seed: int, **options) -> list:
        place = self.names.index(model)
        return [Completion(WRITTEN[text][place], prompt=f"<|{model}|>{text}", finish_reason="stop") for text in texts]

    def compare(self, models: list[str], prompts: list[str], **options):
        return compare(self, models, prompts, **options)
