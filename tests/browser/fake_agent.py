"""A session whose model wants to save three texts, one after the other, so that there is something to approve."""

from __future__ import annotations

from types import SimpleNamespace

from jupyter_gpt.inference.completion import Completion, Usage
from jupyter_gpt.stages.prompt import Prompting
from jupyter_gpt.stages.prompt_options import Prompt
from jupyter_gpt.stages.prompt_techniques import prompt_with_techniques

SAID = (
    'Thought: first\nAction: save\nAction Input: {"text": "<b>one</b>"}',
    'Thought: next\nAction: save\nAction Input: {"text": "two"}',
    'Thought: last\nAction: save\nAction Input: {"text": "three"}',
    "Thought: I now know the answer\nFinal Answer: saved two",
)


class Models(dict):
    about = dict.__getitem__


class Session:
    """As much of `gpt` as `%%prompt --react` needs."""

    def __init__(self):
        model = SimpleNamespace(name="assistant", kind="endpoint", has_chat=False, base_url="here", model="assistant")
        self.models, self.memory, self.said = Models(assistant=model), Prompting(), iter(SAID)

    def prompt(self, text, **options):
        return prompt_with_techniques(self.models, self.memory, text, Prompt.of(text=text, **options), send=self.send)

    def send(self, prompts, *, show=None, deadline=None, **settings):
        done = [
            Completion(
                next(self.said),
                prompt=str(p),
                usage=Usage(9, 9, 0.1),
                finish_reason="stop",
                model="assistant",
                remote=True,
            )
            for p in prompts
        ]
        if show:
            show(done)
        return done
