"""Which tokens of a chat template a base has never learned: an adapter then trains their rows with it.

LoRA leaves embedding and head as they are. A base that was never shown `<|end|>` holds it for the least probable of all
tokens, whatever came before, and no adapter of its layers says otherwise. So:

- A base without a chat template is not an assistant: of the template that it is given, every special token that did not
  begin or end its documents is new to it.
- A model with a template of its own knows it, unless a token's row in the head is one of those that no text ever used
  (Land and Bartolo 2024): such rows were all pushed down by the same gradients, or all drawn around one mean when
  the vocabulary was extended, and lie in one place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jupyter_gpt.data.chat import rendered, with_template
from jupyter_gpt.errors import GPTError

FEWEST = 3  # unused rows by which the place is known where they lie
SPREAD = 3.0  # times their own distance from its middle: a row that is nearer is one of them
CLOSE = 0.25  # of the distance of other rows: as near as that they must lie, or it is no place
SAMPLED = 1024  # of the other rows
CONVERSATION = [{"role": role, "content": "?"} for role in ("system", "user", "assistant")]


def untrained(module: nn.Module, tokenizer) -> list[int]:
    """Ids of the tokens of the chat template whose rows a causal LM has yet to learn, in order.

    None for a head that is more than one matrix: peft has no rows for it.
    """
    head = module.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return []
    marks = template_tokens(tokenizer)
    if not tokenizer.chat_template:
        return sorted(marks - {tokenizer.bos_token_id, tokenizer.eos_token_id})
    unused = sorted({*range(len(tokenizer), len(head.weight)), *specials(tokenizer)} - marks)
    if len(unused) < FEWEST or not marks:
        return []
    found = sorted(marks)
    with torch.no_grad():
        middle = head.weight[unused].float().median(dim=0).values

        def far(places: Sequence[int]) -> Tensor:
            return (head.weight[places].float() - middle).norm(dim=1)

        others = range(0, len(tokenizer), max(1, len(tokenizer) // SAMPLED))
        near = min(SPREAD * float(far(unused).median()), CLOSE * float(far(others).median()))
        return [token for token, distance in zip(found, far(found).tolist(), strict=True) if distance <= near]


def specials(tokenizer) -> set[int]:
    """Tokens that no text is cut into, because it would have to spell them out; those of a document's ends left out."""
    named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    return set(tokenizer.added_tokens_decoder) - named


def template_tokens(tokenizer) -> set[int]:
    """The added tokens that the chat template, its own or the one it would be given, writes between the words."""
    chat = with_template(tokenizer)
    added, found = chat.added_tokens_decoder, set()
    for messages in (CONVERSATION, CONVERSATION[1:]):
        try:
            text = rendered(chat, messages) + rendered(chat, messages[:-1], ask=True)
        except GPTError:  # one that has no system prompt, say
            continue
        found |= {token for token in chat(text, add_special_tokens=False, verbose=False).input_ids if token in added}
    return found
