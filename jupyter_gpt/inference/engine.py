"""The engine: many samples of many prompts from one causal LM, token by token.

A prompt is read once and then copied into its samples; prompts of different length share each step; a finished sample
leaves at once and a waiting one takes its place (continuous batching). Every sample has its own random stream, so it
does not depend on what runs beside it. Log-probabilities come from the same pass; a constraint may mask or force
tokens.

`generate` is a generator that never yields inside a torch context manager. It iterates a `Batch`; a server adds
requests to a batch that is already running.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError, OutOfMemory, is_out_of_memory
from jupyter_gpt.inference import prefix_cache, sampling, speculative
from jupyter_gpt.inference.forward import forward_of
from jupyter_gpt.inference.kv_cache import KVCache, gather
from jupyter_gpt.inference.prefix_cache import Prefix, PrefixCache
from jupyter_gpt.inference.sampling import Request, Sequence, Token, mask_logits
from jupyter_gpt.nn import devices
from jupyter_gpt.nn.modules import context_of, growing_rotations

NO_UNIFORMS = [0.0] * sampling.DEPTH  # greedy sequences take none from their stream
ROOM = 128  # columns allocated beyond the prompt; the cache grows when they are full


def generate(module: nn.Module, requests: Iterable[Request], reuse: bool = False) -> Iterator[Token | None]:
    """Continue the prompts of `requests` with a transformers causal LM or a peft model of one. With `reuse`, the prefix
    cache (`prefix_cache.py`) is used and added to.

    Yields each token as it is sampled, requests and samples numbered as given, and None after passes that only read
    prompts. Prompt and sample stay within the model's context (finish "length"). Raises GPTError for an empty prompt
    and for one that leaves no room in the context.
    """
    requests = list(requests)
    alone = len(requests) == 1 and speculative.uses_lookup(module, requests[0]) and not growing_rotations(module)
    batch = SpeculativeBatch(module, reuse=reuse) if alone else Batch(module, reuse=reuse)
    for request in requests:
        batch.add(request)
    while batch.busy:
        yield from batch.step() or (None,)


def sample(
    model: nn.Module,
    ids: list[int],
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    stop: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """One sample of one prompt: at most `max_tokens` ids, the last perhaps one of `stop`; none if the context is
    full."""
    if len(ids) < context_of(model):
        request = Request(tuple(ids), max_tokens=max_tokens, temperature=temperature, seed=seed, stop_ids=stop)
        yield from (token.id for token in generate(model, [request]) if token is not None)


class Prefill:
    """Prompts of similar length that are read together, a block of columns per pass; at the end `logits` `(P, V)`.

    Of each only the tokens after its known prefix are read.
    """

    def __init__(self, prompts: list[tuple[int, ...]], prefixes: list[Prefix], device: torch.device, room: int):
        self.prompts, self.cached = prompts, [prefix.length for prefix in prefixes]
        self.unread = [ids[cached:] for ids, cached in zip(prompts, self.cached, strict=True)]
        self.width, self.done_columns = max(map(len, self.unread)), 0
        self.cache = prefix_cache.begin(prefixes, self.width + room, device)
        self.logits = None if self.width else torch.stack([prefix.logits for prefix in prefixes])

    def read(self, forward, tokens_per_pass: int) -> None:
        """Read the next block: at most about `tokens_per_pass` tokens."""
        start = self.done_columns
        end = min(self.width, start + max(1, tokens_per_pass // len(self.prompts)))
        block, counts = [], []
        for ids in self.unread:
            padding = self.width - len(ids)
            tokens = ids[max(0, start - padding) : max(0, end - padding)]
            block.append([0] * (end - start - len(tokens)) + list(tokens))
            counts.append(len(tokens))
        positions, mask = self.cache.append(counts, end - start)
        ids = torch.tensor(block, device=self.cache.valid.device)
        logits = forward(ids, positions, mask, self.cache, 1)
        self.done_columns = end
        if end == self.width:
            self.logits = logits[:, -1]


class Batch:
    """Requests being answered by one model. Call `step` while `busy`, and `add` at any time between two steps."""

    def __init__(self, module: nn.Module, max_sequences: int | None = None, reuse: bool = False):
        one_by_one = bool(growing_rotations(module))
        self.known = prefix_cache.cache_of(module) if reuse and not one_by_one else None
        self.module, self.forward, self.context = module, forward_of(module), context_of(module)
        self.device = next(module.parameters()).device
        cuda = self.device.type == "cuda"
        self.max_sequences = 1 if one_by_one else max_sequences or (256 if cuda else 64)
        self.tokens_per_pass = 16384 if cuda else 1024  # of prefill, so that an interrupt is noticed soon
        if one_by_one:
            self.tokens_per_pass = self.context
        self.room = 1024 if cuda else ROOM  # CUDA graphs need the cache to stay in place: it should seldom move
        self.waiting: deque[Sequence] = deque()
        self.prefills: list[Prefill] = []
        self.sequences: list[Sequence] = []
        self.cache: KVCache | None = None
        self.requests, self.prefill_seconds = 0, 0.0

    @property
    def busy(self) -> bool:
        """Whether any sample is unfinished."""
        return bool(self.waiting or self.sequences)

    def add(self, request: Request) -> int:
        """Queue a request; returns its number, which its tokens carry. Raises GPTError as `generate` does."""
        number, room = self.requests, self.context - len(request.ids)
        if not request.ids:
            raise GPTError("the prompt is empty: give at least one token")
        if room <= 0:
            raise GPTError(
                f"the prompt has {len(request.ids):,} tokens, {1 - room:,} more than fit: the context "
                f"is {self.context:,}, and one place must be left for the answer"
            )
        self.requests += 1
        for sample in range(request.samples if request.max_tokens > 0 else 0):
            constraint = request.constraint() if request.constraint else None
            limit = min(request.max_tokens, room)
            self.waiting.append(Sequence(number, sample, request, limit, request.stream(sample), constraint))
        return number

    def step(self) -> list[Token]:
        """One pass: over waiting prompts, or to add a token to every sequence. Returns the new tokens, perhaps none.

        Raises OutOfMemory when memory runs out; the memory of the batch is then free again.
        """
        try:
            return self.advance()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        raise OutOfMemory(self.release())

    def in_memory(self, work: Callable[[], Any], *caches: KVCache) -> Any:
        """What `work` returns; if memory runs out, the prefix caches are freed, and it is done again from the state of
        these `caches` before."""
        states = [cache.state() for cache in caches]
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error) or not devices.release(str(self.device)):
                raise
        devices.give_back(self.device.type)
        for cache, state in zip(caches, states, strict=True):
            cache.restore(state)
        return work()

    def release(self) -> str:
        """Free everything; returns the error message, which says about how much would have fitted."""
        count = len(self.sequences) + len(self.waiting)
        longest = max(len(s.request.ids) + s.limit for s in (*self.sequences, *self.waiting))
        caches = [self.cache, *(prefill.cache for prefill in self.prefills if prefill.logits is not None)]
        each = longest * next((cache.bytes_per_token() for cache in caches if cache is not None), 0)
        self.sequences, self.prefills, self.cache, self.forward = [], [], None, None
        self.waiting.clear()
        message = f"out of memory with {count} samples of up to {longest:,} tokens"
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        devices.release(str(self.device))
        room = devices.free(str(self.device))
        if each and room:
            message += f": there is room for about {int(0.8 * room / each)}"
        return f"{message}; ask for fewer samples or fewer max_tokens"

    def advance(self) -> list[Token]:
        """The work of `step`."""
        began = time.perf_counter()
        places = self.max_sequences - len(self.sequences)
        if self.prefills or (self.waiting and places >= min(len(self.waiting), max(1, self.max_sequences // 4))):
            tokens = self.prefill(list(self.waiting)[:places], began)
            self.prefill_seconds = 0.0 if tokens else self.prefill_seconds + time.perf_counter() - began
            return tokens
        width = max(len(s.pending) for s in self.sequences)
        ids = [[0] * (width - len(s.pending)) + s.pending for s in self.sequences]
        logits = self.read(ids, [len(s.pending) for s in self.sequences])
        return self.next_tokens(self.sequences, logits, began)

    def read(self, ids: list[list[int]], counts: list[int]) -> Tensor:
        """One pass over new tokens of all sequences, the last `counts[b]` of row b: their logits `(B, t, V)`."""
        width = len(ids[0])

        def work() -> Tensor:
            positions, mask = self.cache.append(counts, width)
            return self.forward(torch.tensor(ids, device=self.device), positions, mask, self.cache, width)

        return self.in_memory(work, self.cache)

    def prefill(self, joining: list[Sequence], began: float) -> list[Token]:
        """One pass over the prompts of `joining`; once all are read, the sequences join and get their first token."""
        unfinished = [prefill for prefill in self.prefills if prefill.logits is None]
        if not unfinished:
            known = {ids for prefill in self.prefills for ids in prefill.prompts}
            left = [ids for ids in dict.fromkeys(s.request.ids for s in joining) if ids not in known]
            if left:
                spare = min(self.room, max(s.limit for s in joining))
                unfinished = [self.in_memory(lambda: self.next_prefill(left, spare))]
                self.prefills += unfinished
        if unfinished and unfinished[0].logits is None:
            self.read_prompts(unfinished[0])
        known = {ids for prefill in self.prefills if prefill.logits is not None for ids in prefill.prompts}
        if not all(s.request.ids in known for s in joining):
            return []
        for _ in joining:
            self.waiting.popleft()
        return self.join(joining, began - self.prefill_seconds)

    def next_prefill(self, prompts: list[tuple[int, ...]], spare: int) -> Prefill:
        """Some of the prompts, with the prefixes of them that are known."""
        cache = self.prefixes()
        found = {ids: cache.find(ids) if cache else prefix_cache.Prefix() for ids in prompts}
        chosen = similar_length({ids: prefix.length for ids, prefix in found.items()}, self.tokens_per_pass)
        return Prefill(chosen, [found[ids] for ids in chosen], self.device, spare)

    def prefixes(self) -> PrefixCache | None:
        """The prefix cache, as long as the weights are those that this batch began with."""
        if self.known and self.known.state != prefix_cache.state_of(self.module):
            self.known.clear()
            self.known = None
        return self.known

    def read_prompts(self, prefill: Prefill) -> None:
        """Read the next block of prompts. When they have been read they are kept in the prefix cache."""
        self.in_memory(lambda: prefill.read(self.forward, self.tokens_per_pass), prefill.cache)
        if prefill.logits is None:
            return
        if any(prefill.cached):
            self.in_memory(prefill.cache.close_gaps)
        if cache := self.prefixes():
            for row, ids in enumerate(prefill.prompts):
                cache.add(ids, prefill.cache, row, prefill.logits[row])

    def keep_answer(self, s: Sequence, row: int) -> None:
        """Keep what has been read of a prompt and its first answer: the next turn of a chat begins with it."""
        if s.sample == 0 and (cache := self.prefixes()):
            ids = (*s.request.ids, *s.ids)
            cache.add(ids[: self.cache.positions[row]], self.cache, row)

    def join(self, joining: list[Sequence], began: float) -> list[Token]:
        """Copy each prompt's keys and values into its samples, beside the sequences that already run."""
        parts, logits, ordered = [], [], []
        for prefill in self.prefills:
            mine = [s for s in joining if s.request.ids in prefill.prompts]
            rows = [prefill.prompts.index(s.request.ids) for s in mine]
            for s, row in zip(mine, rows, strict=True):
                s.cached = prefill.cached[row]
            parts.append((prefill.cache, rows))
            logits.append(prefill.logits[rows])
            ordered += mine
        if self.sequences:
            parts.insert(0, (self.cache, list(range(len(self.sequences)))))
        as_it_is = len(parts) == 1 and parts[0][1] == list(range(len(parts[0][0].positions)))
        spare = min(self.room, max(s.limit for s in ordered))
        self.sequences += ordered
        self.cache = parts[0][0] if as_it_is else self.in_memory(lambda: gather(parts, spare))
        self.prefills = []
        return self.next_tokens(ordered, torch.cat(logits)[:, None], began)

    def next_tokens(self, sequences: list[Sequence], logits: Tensor, began: float) -> list[Token]:
        """The next tokens, given the model's fp32 logits `(B, t, V)` after each sequence's last t tokens.

        First the forced tokens that waited for these logits, then one that is sampled or forced now, unless the
        sequence had already finished. Finished sequences leave.
        """
        new: list[tuple[int, int, int]] = []  # index in sequences, column of the logits that predict it, token
        width, open_ones = logits.shape[1], [n for n, s in enumerate(sequences) if s.finish is None]
        for n, s in enumerate(sequences):
            last = width - (s.finish is None)  # the columns before this one predict what is unreported
            new += [(n, last - len(s.unreported) + k, token) for k, token in enumerate(s.unreported)]
            s.unreported, s.pending = [], []
        if open_ones:
            ahead = logits[:, -1] if len(open_ones) == len(sequences) else logits[open_ones, -1]
            for n, tokens in zip(open_ones, self.choose([sequences[n] for n in open_ones], ahead), strict=True):
                new.append((n, width - 1, tokens[0]))
                sequences[n].unreported = tokens[1:]
                sequences[n].pending = tokens if sequences[n].finish is None else tokens[:-1]
        return self.report(sequences, logits, new, began)

    def choose(self, sequences: list[Sequence], logits: Tensor) -> list[list[int]]:
        """The tokens each sequence gets, at least one: sampled from fp32 logits `(B, V)` or forced, and those forced
        after."""
        tokens = [s.constraint.forced() if s.constraint else [] for s in sequences]
        rows = [n for n, forced in enumerate(tokens) if not forced]
        if rows:
            some = [sequences[n] for n in rows]
            scores = mask_logits(some, logits if len(some) == len(sequences) else logits[rows])
            for n, token in zip(rows, self.draw(some, scores), strict=True):
                tokens[n] = sequences[n].replacement(token)
        return [s.append(new) for s, new in zip(sequences, tokens, strict=True)]

    def draw(self, sequences: list[Sequence], scores: Tensor) -> list[int]:
        """One token for each sequence from masked logits `(B, V)`, with the next numbers of its stream."""
        temperatures, requests = [s.temperature for s in sequences], [s.request for s in sequences]
        return sampling.draw(
            scores,
            [s.stream.next() if t else NO_UNIFORMS for s, t in zip(sequences, temperatures, strict=True)],
            temperatures,
            [r.top_k for r in requests],
            [r.top_p for r in requests],
            [r.min_p for r in requests],
        )

    def report(self, sequences: list[Sequence], logits: Tensor, new: list, began: float) -> list[Token]:
        """The tokens of `new` with their log-probabilities; sequences whose last token is reported are removed."""
        new.sort()
        if logits.shape[1] == 1 and len(new) == len(sequences):
            rows = logits[:, 0]
        else:
            rows = logits[[n for n, _, _ in new], [column for _, column, _ in new]]
        counts = [sequences[n].request.top_logprobs for n, _, _ in new]
        logprobs, tops = sampling.describe(rows, [token for _, _, token in new], counts)
        if any(logprob != logprob for logprob in logprobs):
            raise GPTError("the model answers with NaN: its weights are damaged, or its training diverged")
        seconds = time.perf_counter() - began
        tokens = []
        for place, ((n, _, token), logprob, top) in enumerate(zip(new, logprobs, tops, strict=True), 1):
            s = sequences[n]
            more = s.unreported or (place < len(new) and new[place][0] == n)
            finish = None if more else s.finish
            tokens.append(Token(s.request_number, s.sample, token, logprob, top, seconds, finish, cached=s.cached))
            s.cached = 0
        for n in range(len(self.sequences) - 1, -1, -1):
            if self.sequences[n].finish and not self.sequences[n].unreported:
                self.keep_answer(self.sequences[n], n)
                self.cache.drop(n)
                self.sequences[n] = self.sequences[-1]
                self.sequences.pop()
        if not self.sequences:
            self.cache = None
        return tokens


class SpeculativeBatch(Batch):
    """A batch of one sample, whose next tokens are drafted and then verified in one pass (`speculative.py`)."""

    def __init__(self, module: nn.Module, reuse: bool = False):
        super().__init__(module, reuse=reuse)
        self.lookup, self.pace = speculative.PromptLookup(), speculative.Pace()

    def advance(self) -> list[Token]:
        """One pass: over the prompt, over the last token, or over it and a draft."""
        if not self.sequences or self.sequences[0].finish:
            return super().advance()
        [s] = self.sequences
        ids, began = [*s.request.ids, *s.ids], time.perf_counter()
        most = min(self.pace.length(), s.limit - len(s.ids) - 1)
        draft = self.lookup.draft(ids, most) if most > 0 else []
        if not draft:
            self.pace.add(0, 0)
            return super().advance()
        return self.verify(s, draft, began)

    def verify(self, s: Sequence, draft: list[int], began: float) -> list[Token]:
        """One pass over the pending tokens and a draft of those that follow: it is kept as far as its tokens are those
        that are chosen from the pass's logits, and the token that is chosen after them is added."""
        first, count = len(s.pending) - 1, len(draft)
        block, waiting = [*s.pending, *draft], s.unreported
        logits = self.read([block], [len(block)])
        tokens: list[int] = []
        while s.finish is None and len(tokens) <= count and tokens == draft[: len(tokens)]:
            tokens += self.choose([s], logits[:, first + len(tokens)])[0]
        pairs = zip(draft, tokens, strict=False)
        right = next((n for n, (a, b) in enumerate(pairs) if a != b), min(count, len(tokens)))
        self.pace.add(count, right)
        self.cache.truncate(count - right)
        s.unreported = tokens[right + 1 :]  # forced ones whose logits are still to come
        s.pending = tokens[right:] if s.finish is None else tokens[right:-1]
        new = [(0, n, token) for n, token in enumerate([*waiting, *tokens[: right + 1]])]
        reported = self.report(self.sequences, logits, new, began)
        return [reported[0]._replace(drafted=count, accepted=right), *reported[1:]]


def similar_length(known: dict[tuple[int, ...], int], tokens_per_pass: int) -> list[tuple[int, ...]]:
    """Of prompts, with the lengths of their known prefixes, the shortest: as many as can share passes with little
    padding. Those that are known as a whole come first, and without others."""
    chosen: list[tuple[int, ...]] = []
    cached = unread = widest = 0
    for ids in sorted(known, key=lambda ids: (len(ids) > known[ids], known[ids], len(ids))):
        new = len(ids) - known[ids]
        cached, unread, widest, rows = cached + known[ids], unread + new, max(widest, new), len(chosen) + 1
        areas = ((widest * rows, unread), (known[ids] * rows, cached))
        mixed = widest > 0 and chosen and len(chosen[-1]) == known[chosen[-1]]
        if chosen and (mixed or widest * rows > tokens_per_pass or any(area > 1.2 * n + 64 for area, n in areas)):
            break
        chosen.append(ids)
    return chosen
