"""A scripted model: says what the test tells it to, and remembers what it was asked."""

import pytest

from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.prompting.ask import Ask
from jupyter_gpt.prompting.options import Budget


class Script:
    """`say(prompt, n)` is the text of sample n to a prompt; a list says its texts one after the other. A text that ends
    in "…" is cut off there, at its limit of tokens."""

    def __init__(self, say, cost=None):
        texts = None if callable(say) else iter(say)
        self.say = say if texts is None else lambda prompt, n: next(texts)
        self.cost, self.asked, self.settings = cost, [], []

    def __call__(self, prompts, *, show=None, deadline=None, **settings):
        self.asked += prompts
        self.settings += [settings] * len(prompts)
        done = []
        for prompt in prompts:
            texts = [self.say(prompt, n) for n in range(settings.get("samples") or 1)]
            usage = Usage(len(str(prompt).split()), sum(len(t.split()) for t in texts), 0.1, self.cost)
            samples = [
                Completion(
                    t.removesuffix("…"),
                    tokens=list(range(len(t.split()))),
                    prompt=str(prompt),
                    usage=usage,
                    finish_reason="length" if t.endswith("…") else "stop",
                    sampling=Sampling(max_tokens=len(t.split())),
                    model="script",
                )
                for t in texts
            ]
            samples[0].samples = samples
            done.append(samples[0])
        if show:
            show(done)
        return done


@pytest.fixture
def scripted():
    """`scripted(say, chat=True, templates=None, **settings)`: an Ask of a scripted model, which is its `.send`."""

    def make(say, chat=True, budget=None, cost=None, templates=None, **settings):
        return Ask(Script(say, cost), settings, budget or Budget(), chat=chat, templates=templates)

    return make
