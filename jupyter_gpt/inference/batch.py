"""A batch under way: rows join when their prompts have been read, gain a token a step, and leave when they
are done.

Reading a prompt and adding a token are the same pass over new columns; prompts of like length are read
together, each different one once, and `gather` multiplies them into their samples.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError, OutOfMemory
from jupyter_gpt.inference import sampling
from jupyter_gpt.inference.cache import Rows, gather
from jupyter_gpt.inference.forward import forward_of
from jupyter_gpt.inference.requests import Request, Token
from jupyter_gpt.inference.sequence import Key, Row, allowed, gain, taken, temperature
from jupyter_gpt.nn.device_memory import free, is_out_of_memory
from jupyter_gpt.nn.modules import context_of

NO_DRAW = [0.0] * sampling.DEPTH  # a greedy row takes no numbers
ROOM = 128  # columns taken beyond the prompt; the cache grows when they are full


class Reading:
    """Prompts of like length that are read together, a block of columns at a time; `logits` `(prompts, V)` at
    the end."""

    def __init__(self, keys: list[Key], device: torch.device, room: int):
        self.keys, self.width, self.done_columns = keys, max(len(ids) for ids, _ in keys), 0
        self.cache = Rows(len(keys), self.width + room, device)
        self.logits: Tensor | None = None

    def read(self, module: nn.Module, forward, at_once: int) -> None:
        """The next block: at most about `at_once` tokens."""
        start = self.done_columns
        end = min(self.width, start + max(1, at_once // len(self.keys)))
        block, counts = [], []
        for ids, _ in self.keys:
            padding = self.width - len(ids)
            tokens = ids[max(0, start - padding) : max(0, end - padding)]
            block.append([0] * (end - start - len(tokens)) + list(tokens))
            counts.append(len(tokens))
        device = self.cache.valid.device
        positions, mask = self.cache.append(counts, end - start)
        adapters = adapter_names(module, [adapter for _, adapter in self.keys])
        logits = forward(torch.tensor(block, device=device), positions, mask, self.cache, 1, adapters)
        self.done_columns = end
        if end == self.width:
            self.logits = logits[:, -1]


class Batch:
    """Requests under way on one model. Call `step` while `busy`; `add` at any time between two steps."""

    def __init__(self, module: nn.Module, most: int | None = None):
        self.module, self.forward, self.context = module, forward_of(module), context_of(module)
        self.device = next(module.parameters()).device
        cuda = self.device.type == "cuda"
        self.most = most or (256 if cuda else 64)  # rows at once
        self.at_once = 16384 if cuda else 1024  # tokens read in one pass, so that a stop is felt soon
        self.room = 1024 if cuda else ROOM  # CUDA graphs are good for one place in memory: it should seldom move
        self.waiting: deque[Row] = deque()
        self.readings: list[Reading] = []
        self.rows: list[Row] = []
        self.cache: Rows | None = None
        self.added, self.spent = 0, 0.0

    @property
    def busy(self) -> bool:
        """Whether any sample is unfinished."""
        return bool(self.waiting or self.rows)

    def add(self, request: Request) -> int:
        """Queue a request; returns its number, by which its tokens are told. Raises GPTError as `generate`
        does."""
        number, room = self.added, self.context - len(request.ids)
        if not request.ids:
            raise GPTError("the prompt is empty: give at least one token")
        if room <= 0:
            raise GPTError(
                f"the prompt has {len(request.ids):,} tokens, {1 - room:,} more than fit: the context "
                f"is {self.context:,}, and one place must be left for the answer"
            )
        self.added += 1
        for sample in range(request.samples if request.max_tokens > 0 else 0):
            constraint = request.constraint() if request.constraint else None
            stream = sampling.Stream(request.seed + sample)
            limit = min(request.max_tokens, room)
            self.waiting.append(Row(number, sample, request, limit, stream, constraint))
        return number

    def step(self) -> list[Token]:
        """Read prompts that wait, one pass, or else add a token to every row. Returns the new tokens, perhaps
        none.

        Raises OutOfMemory where memory runs out; everything the batch held is then free again.
        """
        try:
            return self.advance()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        raise OutOfMemory(self.give_up())

    def give_up(self) -> str:
        """Let go of everything; returns what to tell the user: about how much would have fitted."""
        rows = len(self.rows) + len(self.waiting)
        longest = max(len(row.asked.ids) + row.limit for row in (*self.rows, *self.waiting))
        caches = [self.cache, *(reading.cache for reading in self.readings if reading.logits is not None)]
        each = longest * next((cache.bytes_per_token() for cache in caches if cache is not None), 0)
        self.rows, self.readings, self.cache, self.forward = [], [], None, None
        self.waiting.clear()
        told = f"out of memory with {rows} samples of up to {longest:,} tokens"
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        room = free(str(self.device))
        if each and room:
            told += f": there is room for about {int(0.8 * room / each)}"
        return f"{told}; ask for fewer samples or fewer max_tokens"

    def advance(self) -> list[Token]:
        """The work of `step`."""
        began = time.perf_counter()
        free = self.most - len(self.rows)
        if self.readings or (self.waiting and free >= min(len(self.waiting), max(1, self.most // 4))):
            tokens = self.read(list(self.waiting)[:free], began)
            self.spent = 0.0 if tokens else self.spent + time.perf_counter() - began
            return tokens
        width = max(len(row.pending) for row in self.rows)
        ids = [[0] * (width - len(row.pending)) + row.pending for row in self.rows]
        positions, mask = self.cache.append([len(row.pending) for row in self.rows], width)
        adapters = adapter_names(self.module, [row.asked.adapter for row in self.rows])
        logits = self.forward(torch.tensor(ids, device=self.device), positions, mask, self.cache, width, adapters)
        return self.speak(self.rows, logits, began)

    def read(self, joining: list[Row], began: float) -> list[Token]:
        """One pass over the prompts of `joining`; when all are read, the rows join and get their first
        token."""
        unfinished = [reading for reading in self.readings if reading.logits is None]
        if not unfinished:
            known = {key for reading in self.readings for key in reading.keys}
            left = [key for key in dict.fromkeys(row.key for row in joining) if key not in known]
            if left:
                spare = min(self.room, max(row.limit for row in joining))
                unfinished = [Reading(alike(left, self.at_once), self.device, spare)]
                self.readings += unfinished
        if unfinished:
            unfinished[0].read(self.module, self.forward, self.at_once)
        known = {key for reading in self.readings if reading.logits is not None for key in reading.keys}
        if not all(row.key in known for row in joining):
            return []
        for _ in joining:
            self.waiting.popleft()
        return self.join(joining, began - self.spent)

    def join(self, joining: list[Row], began: float) -> list[Token]:
        """Multiply what was read into one row per sample, beside the rows under way."""
        parts, logits, ordered = [], [], []
        for reading in self.readings:
            rows = [row for row in joining if row.key in reading.keys]
            chosen = [reading.keys.index(row.key) for row in rows]
            parts.append((reading.cache, chosen))
            logits.append(reading.logits[chosen])
            ordered += rows
        if self.rows:
            parts.insert(0, (self.cache, list(range(len(self.rows)))))
        alone = len(parts) == 1 and parts[0][1] == list(range(len(parts[0][0].positions)))
        spare = min(self.room, max(row.limit for row in ordered))
        self.rows += ordered
        self.cache = parts[0][0] if alone else gather(parts, spare)
        self.readings = []
        return self.speak(ordered, torch.cat(logits)[:, None], began)

    def speak(self, rows: list[Row], logits: Tensor, began: float) -> list[Token]:
        """Report what `rows` say next, given the model's fp32 logits `(B, t, V)` after each of their last t
        tokens.

        That is first the forced tokens that waited for these logits, then a token that is drawn or forced
        now, unless the row had already come to its end. Finished rows leave.
        """
        said: list[tuple[int, int, int]] = []  # index in rows, column of the logits that foretell it, token
        width, going = logits.shape[1], [n for n, row in enumerate(rows) if row.finish is None]
        for n, row in enumerate(rows):
            last = width - (row.finish is None)  # the columns before this one foretell what is unsaid
            said += [(n, last - len(row.unsaid) + k, token) for k, token in enumerate(row.unsaid)]
            row.unsaid, row.pending = [], []
        if going:
            ahead = logits[:, -1] if len(going) == len(rows) else logits[going, -1]
            for n, tokens in zip(going, self.choose([rows[n] for n in going], ahead), strict=True):
                said.append((n, width - 1, tokens[0]))
                rows[n].unsaid = tokens[1:]
                rows[n].pending = tokens if rows[n].finish is None else tokens[:-1]
        return self.report(rows, logits, said, began)

    def choose(self, rows: list[Row], logits: Tensor) -> list[list[int]]:
        """The tokens each row gains, at least one: drawn from fp32 logits `(B, V)`, or forced, and those
        forced after."""
        forced = [row.constraint.forced() if row.constraint else [] for row in rows]
        drawing = [n for n, tokens in enumerate(forced) if not tokens]
        if drawing:
            some = [rows[n] for n in drawing]
            scores = allowed(some, logits if len(some) == len(rows) else logits[drawing])
            asked, warm = [row.asked for row in some], [temperature(row) for row in some]
            drawn = sampling.draw(
                scores,
                [row.stream.next() if t else NO_DRAW for row, t in zip(some, warm, strict=True)],
                warm,
                [r.top_k for r in asked],
                [r.top_p for r in asked],
                [r.min_p for r in asked],
            )
            for n, token in zip(drawing, drawn, strict=True):
                forced[n] = taken(rows[n], token)
        return [gain(row, tokens) for row, tokens in zip(rows, forced, strict=True)]

    def report(self, rows: list[Row], logits: Tensor, said: list, began: float) -> list[Token]:
        """The tokens of `said` with their log probabilities; rows whose end has been told are taken out."""
        said.sort()
        if logits.shape[1] == 1 and len(said) == len(rows):
            chosen = logits[:, 0]
        else:
            chosen = logits[[n for n, _, _ in said], [column for _, column, _ in said]]
        most = [rows[n].asked.top_logprobs for n, _, _ in said]
        nats, tops = sampling.describe(chosen, [token for _, _, token in said], most)
        if any(nat != nat for nat in nats):
            raise GPTError("the model answers with NaN: its weights are damaged, or its training diverged")
        seconds = time.perf_counter() - began
        tokens = []
        for place, ((n, _, token), logprob, top) in enumerate(zip(said, nats, tops, strict=True), 1):
            row = rows[n]
            more = row.unsaid or (place < len(said) and said[place][0] == n)
            finish = None if more else row.finish
            tokens.append(Token(row.request, row.sample, token, logprob, top, seconds, finish))
        for n in range(len(self.rows) - 1, -1, -1):
            if self.rows[n].finish and not self.rows[n].unsaid:
                self.cache.drop(n)
                self.rows[n] = self.rows[-1]
                self.rows.pop()
        if not self.rows:
            self.cache = None
        return tokens


def alike(keys: list[Key], at_once: int) -> list[Key]:
    """Of the prompts to read, the shortest and those that can share its passes with little padding."""
    keys = sorted(keys, key=lambda key: len(key[0]))
    taken, real = [], 0
    for key in keys:
        real += len(key[0])
        area = len(key[0]) * (len(taken) + 1)
        if taken and (area > at_once or area > 1.2 * real + 64):
            break
        taken.append(key)
    return taken


def adapter_names(module: nn.Module, names: Iterable[str | None]) -> list[str] | None:
    """The peft adapter of each row; None when every row uses what is active."""
    names = list(names)
    if not any(names):
        return None
    return [name or active(module) for name in names]


def active(module: nn.Module) -> str:
    """The name of the adapter that a peft model uses when it is not told."""
    names = module.active_adapters
    return names[0] if names else "__base__"
