"""A session whose models write at once what stands here, so that there is something to rank where there is no model."""

from __future__ import annotations

from types import SimpleNamespace

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.stages.arena import arena
from jupyter_gpt.stages.rank import rank
from jupyter_gpt.stages.rankings import AllRankings

WRITTEN = {
    "Tell me about the fox.": (
        "The fox is a small wild animal with a red coat and a long tail. It hunts mice at night and sleeps in a den.",
        "The fox is red. The fox is red. The fox is red. The fox is red.",
        "Dear friend, thank you for asking! A fox is a clever little hunter that lives at the edge of the wood, and "
        "in spring it raises its cubs there.",
        "I do not know any <b>fox</b>.",
    ),
    "Why was Anna sad?": (
        "Anna was sad because her bird had flown away.",
        "Anna was sad because her bird had flown away.",
        "She was not.\n\nShe only looked so.",
        "",
    ),
    "What is two and two?": ("Four.", "Five.", "Two and two is four, my dear.", "22"),
    "Say yes.": ("Yes.", "Yes.", "Yes.", "Yes."),
}


class Session:
    """As much of `gpt` as ranking needs. Each model begins with another of the texts."""

    def __init__(self, *names: str):
        self.rankings, self.names = AllRankings(), names or ("assistant",)
        self.models = {
            name: SimpleNamespace(
                name=name, kind="endpoint", base_url="here", model=name, has_chat=True, lineage=[f"{name} at a server"]
            )
            for name in self.names
        }

    def prompts(self, texts: list[str], *, model: str, samples: int, seed: int, **options) -> list:
        found, first = [], self.names.index(model)
        for text in texts:
            written = WRITTEN[text][first : first + samples]
            each = [Completion(t, prompt=f"<|{model}|>{text}", finish_reason="stop") for t in written]
            each[0].samples = each
            found.append(each[0])
        return found

    def rank(self, name: str, prompts: list[str], **options):
        return rank(self, name, prompts, **options)

    def arena(self, models: list[str], prompts: list[str], **options):
        return arena(self, models, prompts, **options)
