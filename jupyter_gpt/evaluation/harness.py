"""A model of this kernel as a backend of lm-evaluation-harness (EleutherAI): published benchmarks, scored as published.

The harness asks three things: how probable a continuation is (multiple choice), how probable a whole text is
(perplexity), and what the model writes until a stop text (answers that are read). The first two go through our packed
forward, without padding; the third through the engine, many prompts at once. Tokens are cut where the harness' own
backend cuts them, so that its figures are those of `lm_eval --model hf`.
"""

from __future__ import annotations

import hashlib
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from jupyter_gpt.data.prompt_completion import batches, end_token_id
from jupyter_gpt.evaluation import fingerprint
from jupyter_gpt.inference.answer import decoder
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.models.scoring import at_once
from jupyter_gpt.nn.logprobs import LONGEST, Reader
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.runs.worker import on_worker

ANSWER = 256  # tokens of an answer where a task sets no limit
MOST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of that limit
PROMPTS = 64  # answered together between two looks at the interrupt button
NAMES = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}


@dataclass
class Cost:
    """What a task has cost. Seconds are its share of the batches."""

    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Row:
    """Ids that a model reads, of which the last `count` are scored."""

    ids: tuple[int, ...]
    count: int
    task: str


# What was scored and written, by the weights that did, and its share of the seconds: an evaluation that was stopped
# continues where it was, also within a group of tasks.
known_answers: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()


class KernelModel(TemplateLM):
    """`costs` by task. `progress(done, total)` is called between batches of a kind of request."""

    def __init__(self, model, seed: int = 0, progress: Callable[[int, int], None] | None = None):
        super().__init__()
        own = known_answers.setdefault(model.module, {})
        self.known: dict[bytes, tuple[Any, float]] = own.setdefault(fingerprint.of(model, {}), {})
        self.model, self.seed, self.progress = model, seed, progress
        self.reader = Reader(model.module)
        self.context = min(context_of(model.module), LONGEST)
        self.costs: dict[str, Cost] = defaultdict(Cost)

    @property
    def eot_token_id(self) -> int:
        return int(self.model.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.model.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        return self.model.name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.model.tokenizer.chat_template if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.model.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text. Unless it is said otherwise the tokenizer begins them as it begins any text, with `<s>`
        perhaps, but where the text has that already, as one from a chat template may."""
        tokenizer = self.model.tokenizer
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(str(tokenizer.decode([self.prefix_token_id])))
        return tokenizer(string, add_special_tokens=add_special_tokens, verbose=False).input_ids

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        rows = []
        for request in requests:
            context, continuation = request.args
            if context:
                before, after = self._encode_pair(context, continuation)
            else:
                before, after = [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)
                before, after = (before, after) if before != after[:1] else (after[:1], after[1:])
            rows.append(Row((*before, *after)[-(self.context + 1) :], len(after), name_of(request)))
        return self.scored(rows)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        rows = [Row((*before, *after)[-(self.context + 1) :], len(after), "") for _, before, after in requests]
        return self.scored(rows)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        rows, owners = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.context, context_len=1):
                before, after = make_disjoint_window(window)
                rows.append(Row((*before, *after), len(after), name_of(request)))
                owners.append(number)
        nats = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self.scored(rows), strict=True):
            nats[owner] += value
        return nats

    def scored(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """Log-probability in nats of each row's scored ids, and whether greedy decoding would write them."""
        keys = [key_of(row.ids, row.count) for row in rows]
        missing = [place for place, key in enumerate(keys) if key not in self.known]
        done = len(rows) - len(missing)
        for batch in batches([len(rows[place].ids) for place in missing], at_once(self.model.module)):
            places, began = [missing[n] for n in batch], time.perf_counter()
            some = [rows[place] for place in places]
            scores = on_worker("torch", lambda some=some: self.score(some))
            share = (time.perf_counter() - began) / len(some)
            self.known |= {keys[place]: (score, share) for place, score in zip(places, scores, strict=True)}
            done += len(some)
            self.tell(done, len(rows))
        for row, key in zip(rows, keys, strict=True):
            self.spent(row.task, len(row.ids) - 1, 0, self.known[key][1])
        return [self.known[key][0] for key in keys]

    @torch.no_grad()
    def score(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        hidden, places, targets, first = self.reader.hidden([row.ids[:-1] for row in rows]), [], [], 0
        for row in rows:
            end = first + len(row.ids) - 1
            places += range(end - row.count, end)
            targets += row.ids[-row.count :]
            first = end

        def selected(h, t):
            logits = self.reader.head.logits(h).float()
            return logits.log_softmax(-1).gather(1, t[:, None])[:, 0], logits.argmax(-1) == t

        device = self.reader.device
        chosen = hidden[torch.tensor(places, device=device)]
        logp, greedy = self.reader.head.in_chunks(selected, chosen, torch.tensor(targets, device=device))
        counts = [row.count for row in rows]
        pairs = zip(logp.double().cpu().split(counts), greedy.cpu().split(counts), strict=True)
        return [(float(values.sum()), bool(same.all())) for values, same in pairs]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        asked = [self.request(*request.args) for request in requests]
        keys = [
            key_of(engine.ids, self.seed, sorted(request.args[1].items()))
            for (engine, _), request in zip(asked, requests, strict=True)
        ]
        missing = [place for place, key in enumerate(keys) if key not in self.known]
        done = len(requests) - len(missing)
        for first in range(0, len(missing), PROMPTS):
            places, began = missing[first : first + PROMPTS], time.perf_counter()
            some = [asked[place][0] for place in places]
            written = on_worker("torch", lambda some=some: self.written(some))
            share = (time.perf_counter() - began) / len(some)
            self.known |= {keys[place]: (ids, share) for place, ids in zip(places, written, strict=True)}
            done += len(some)
            self.tell(done, len(requests))
        answers = []
        for request, (engine, stops), key in zip(requests, asked, keys, strict=True):
            ids, share = self.known[key]
            answers.append(before_stop(decoder(self.model.tokenizer)(ids), stops))
            self.spent(name_of(request), len(engine.ids), len(ids), share)
        return answers

    def request(self, context: str, given: dict) -> tuple[Request, list[str]]:
        """A request of the engine, and its stop texts. The beginning of a prompt that is too long is cut off."""
        given = dict(given)
        stops = given.get("until") or []
        stops = [stops] if isinstance(stops, str) else [stop for stop in stops if stop]
        most = min(int(next((given[name] for name in MOST if given.get(name)), ANSWER)), self.context - 1)
        ids = (self.tok_encode(context) or [self.prefix_token_id])[-(self.context - most) :]
        greedy = not given.get("do_sample", float(given.get("temperature") or 0) > 0)
        sampling = {ours: given[name] for name, ours in NAMES.items() if given.get(name) is not None}
        decode = decoder(self.model.tokenizer)

        def until(written: list[int]) -> bool:
            text = decode(written)
            return any(stop in text for stop in stops)

        return (
            Request(
                tuple(ids),
                max_tokens=most,
                seed=self.seed,
                stop_ids=frozenset({self.eot_token_id, end_token_id(self.model.tokenizer)}),
                until=until if stops else None,
                **({"temperature": 0.0} if greedy else sampling),
            ),
            stops,
        )

    def written(self, requests: Sequence[Request]) -> list[list[int]]:
        """The ids of each answer, without the id that ended it."""
        found: list[list[int]] = [[] for _ in requests]
        for token in generate(self.model.module, requests):
            if token is not None and token.id not in requests[token.request].stop_ids:
                found[token.request].append(token.id)
        return found

    def spent(self, task: str, tokens_in: int, tokens_out: int, seconds: float) -> None:
        cost = self.costs[task]
        cost.tokens_in, cost.tokens_out = cost.tokens_in + tokens_in, cost.tokens_out + tokens_out
        cost.seconds += seconds

    def tell(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(done, total)


def key_of(*given: Any) -> bytes:
    return hashlib.blake2b(repr(given).encode(), digest_size=16).digest()


def name_of(request: Any) -> str:
    return request.task_name or ""


def before_stop(text: str, stops: Iterable[str]) -> str:
    """A text up to the first of its stop texts."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
