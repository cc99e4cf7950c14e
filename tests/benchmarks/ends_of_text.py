"""How likely a pretrained model takes a text to end: inside documents of 1,500 tokens, and at their ends.

    python tests/benchmarks/ends_of_text.py [--steps 600] [--context 128]

Documents of about 1,500 characters (a token each), stories in a row with "The end." after the last, pretrained through
`gpt.pretrain` in rows of 128. Mean probability of the end-of-text token on documents that were trained on: over the
first row of each (it begins with the delimiter), over windows from their middles, and right after their last token. And
with documents that break off after exactly 1,500 tokens, whose ends cannot be known: there one in 1,500 is right in a
window from the middle, and nothing from the beginning.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import islice

import numpy as np
import torch

TOKENS, COUNT = 1500, 300


def documents(told: bool) -> list[str]:
    from jupyter_gpt.data import sources

    stories, found = sources.read("stories"), []
    while len(found) < COUNT:
        text = "\n".join(islice(stories, 12))
        while len(text) < TOKENS:
            text += "\n" + next(stories)
        cut = text[: TOKENS - 1]
        found.append(cut[: cut.rindex(".") + 1] + " The end." if told else cut)
    return found


@torch.no_grad()
def ends(model, rows: np.ndarray, eot: int) -> np.ndarray:
    """The probability of the end after each token of `rows` (B, T)."""
    found = [model(torch.from_numpy(part)).logits.float().softmax(-1)[..., eot] for part in np.array_split(rows, 10)]
    return torch.cat(found).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--context", type=int, default=128)
    given = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    from jupyter_gpt import gpt
    from jupyter_gpt.data.documents import Documents

    T, random = given.context, np.random.default_rng(0)
    for told in (True, False):
        run = gpt.pretrain(
            "ends",
            {"$docs": 1},
            variables={"docs": documents(told)},
            depth=2,
            width=64,
            context=T,
            tokenizer="char",
            steps=given.steps,
            batch_tokens=16 * T,
            eval_every=given.steps,
            sample_every=given.steps,
            overwrite=True,
        )
        model, data = gpt.models["ends"].module, Documents.open(run.folder / "data")
        texts = [np.asarray(data[d]).astype(np.int64) for d in data.training(0)]
        first = np.stack([text[:T] for text in texts])
        places = [(text, random.integers(T, len(text) - T - 10)) for text in texts for _ in range(4)]
        inside = np.stack([text[at : at + T] for text, at in places])
        last = np.stack([text[-T:] for text in texts])
        figures = [ends(model, rows, data.eot) for rows in (first, inside, last)]
        print(
            f"{'The end.' if told else 'broken off':10}  validation {run.history['val_loss'].dropna().iloc[-1]:.3f}  "
            f"P(end) in the first {T} tokens {figures[0].mean():.6f}  in windows {figures[1].mean():.6f}  "
            f"at the end {figures[2][:, -1].mean():.4f}  (one in {TOKENS:,} is {1 / TOKENS:.6f})"
        )


if __name__ == "__main__":
    main()
