"""The prefix cache: the keys and values of what a model has read, so that a prompt's known prefix is not read again.

The prompts of a model, and the first answer to each, are kept in a tree of tokens (RadixAttention,
Zheng et al. 2024). The next turn of a chat, few-shot examples, the instructions of tools and of `%%rag`, the prompts of
a tree of thoughts begin with what is there: those keys and values are copied, and the rest of the prompt is read. A
prompt that is there as a whole has its logits there too: it is not read at all, and by itself is answered with the same
bits as the first time.

All models of a device together keep at most a sixteenth of its memory, and less while less than that is free; what was
not used for longest goes first. The entries of a model go when its weights change, when it is unloaded, when a training
begins on the device, and when memory runs out.

Keys and values do not depend on what follows them, but their last bits depend on how many tokens were read in one pass.
In fp32 that is the difference between any two batch sizes; in 16 bits it may change a greedy text now and then.
"""

from __future__ import annotations

import inspect
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from jupyter_gpt.inference.decode_forward import fingerprint
from jupyter_gpt.inference.kv_cache import KVCache, new_layers
from jupyter_gpt.nn import devices
from jupyter_gpt.nn.architectures import STATIC_ROPE
from jupyter_gpt.nn.modules import base_of, is_hooked, keeps_keys_and_values, takes_cache

SHORTEST = 32  # tokens: a shorter prefix is read again, which costs nothing
SHARE = 16  # of a device's memory

_caches: WeakKeyDictionary[nn.Module, PrefixCache] = WeakKeyDictionary()
_clock = itertools.count()


class Slice(NamedTuple):
    """Keys and values `(H, t, h)` of one layer for the tokens of a node."""

    keys: Tensor
    values: Tensor


@dataclass(eq=False)
class Node:
    """Tokens that follow those of the `parent`, with their keys and values in every layer. `logits` `(V,)`: after the
    last of them, where a prompt ended there. `used`: when it was last used, on a clock of uses."""

    ids: tuple[int, ...] = ()
    layers: list[Slice] = field(default_factory=list)
    parent: Node | None = None
    children: dict[int, Node] = field(default_factory=dict)
    logits: Tensor | None = None
    used: int = 0

    @property
    def nbytes(self) -> int:
        own = sum(x.nbytes for layer in self.layers for x in layer)
        return own + (0 if self.logits is None else self.logits.nbytes)


class Prefix(NamedTuple):
    """The known prefix of a prompt: its length, its nodes with the count of tokens that are taken from each, and the
    logits after it if it is the whole prompt."""

    length: int = 0
    parts: tuple[tuple[Node, int], ...] = ()
    logits: Tensor | None = None


class PrefixCache:
    """What one module has read. It is used on the device's worker alone."""

    def __init__(self, device: torch.device):
        self.device = device
        self.root = Node()
        self.nodes: OrderedDict[Node, None] = OrderedDict()  # the least recently used first: always a leaf
        self.nbytes = 0
        self.state: tuple = ()
        self.weights: Tensor | None = None

    def clear(self) -> None:
        self.root = Node()
        self.nodes.clear()
        self.nbytes = 0

    def find(self, ids: Sequence[int]) -> Prefix:
        """The longest known prefix of `ids`; at least one token of them is left to read, or their logits are known."""
        parts, length = [], 0
        for node, count in self.walk(ids):
            parts.append((node, count))
            length += count
        if length == len(ids):
            node, count = parts[-1]
            if node.logits is not None and count == len(node.ids):
                self.touch(node)
                return Prefix(length, tuple(parts), node.logits)
            parts[-1], length = (node, count - 1), length - 1
        if length < SHORTEST:
            return Prefix()
        self.touch(parts[-1][0])
        return Prefix(length, tuple(parts))

    def walk(self, ids: Sequence[int]) -> Iterator[tuple[Node, int]]:
        """The nodes that `ids` begin with, and how many tokens of each; of the last one perhaps not all."""
        ids, at, node = tuple(ids), 0, self.root
        while at < len(ids) and (node := node.children.get(ids[at])) is not None:
            count = common(node.ids, ids[at : at + len(node.ids)])
            yield node, count
            at += count
            if count < len(node.ids):
                return

    @torch.inference_mode()
    def add(self, ids: Sequence[int], cache: KVCache, row: int, logits: Tensor | None = None) -> None:
        """Keep the keys and values of `ids`, all that a row of `cache` has read, and the logits `(V,)` after them."""
        ids, budget = tuple(ids), room(self.device)
        if len(ids) < SHORTEST or len(ids) * cache.bytes_per_token() > budget:
            return trim(self.device, budget)
        node, at = self.root, 0
        for found, count in list(self.walk(ids)):
            node, at = found, at + count
            if count < len(found.ids):
                node = self.split(found, count)
        if at < len(ids):
            columns = cache.columns_of(row, at)
            layers = [Slice(copied(x.keys[row, :, columns]), copied(x.values[row, :, columns])) for x in cache.layers]
            new = Node(ids[at:], layers, node)
            node.children[ids[at]] = node = new
            self.count(new, 1)
        if logits is not None and node.logits is None:
            self.count(node, -1)
            node.logits = logits.clone()
            self.count(node, 1)
        self.touch(node)
        trim(self.device, budget)

    def split(self, node: Node, at: int) -> Node:
        """Cut a node after `at` tokens; returns the new one, which holds them."""
        self.count(node, -1)
        parts = [[Slice(copied(k[:, part]), copied(v[:, part])) for k, v in node.layers] for part in cut(at)]
        head = Node(node.ids[:at], parts[0], node.parent, {node.ids[at]: node}, used=node.used)
        node.parent.children[node.ids[0]] = head
        node.ids, node.layers, node.parent = node.ids[at:], parts[1], head
        self.count(node, 1)
        self.count(head, 1)
        return head

    def count(self, node: Node, sign: int) -> None:
        self.nbytes += sign * node.nbytes
        if sign > 0:
            self.nodes.setdefault(node)

    def touch(self, node: Node | None) -> None:
        """Mark a node and those before it as used: a node never goes before its children."""
        while node is not None and node.parent is not None:
            node.used = next(_clock)
            self.nodes.move_to_end(node)
            node = node.parent

    def evict(self) -> None:
        """Drop the least recently used node."""
        node, _ = self.nodes.popitem(last=False)
        self.nbytes -= node.nbytes
        del node.parent.children[node.ids[0]]


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many first tokens two texts have in common."""
    if one == other:
        return len(one)
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def copied(x: Tensor) -> Tensor:
    """A copy of a part of a buffer that takes no more memory than it needs."""
    return x.clone(memory_format=torch.contiguous_format)


def cut(at: int) -> tuple[slice, slice]:
    return slice(None, at), slice(at, None)


@torch.inference_mode()
def begin(prefixes: Sequence[Prefix], columns: int, device: torch.device) -> KVCache:
    """A cache with a row for each prefix, aligned on the right, and `columns` columns after them."""
    length = max(prefix.length for prefix in prefixes)
    cache = KVCache(len(prefixes), length + columns, device)
    if not length:
        return cache
    like = max(prefixes, key=lambda prefix: prefix.length).parts[0][0].layers
    cache.layers += new_layers([(k[None], v[None]) for k, v in like], len(prefixes), length, length + columns)
    cache.length, cache.positions = length, [prefix.length for prefix in prefixes]
    cache.unmasked = min(cache.positions) == length
    for row, prefix in enumerate(prefixes):
        start = length - prefix.length
        cache.valid[row, start:length] = True
        for node, count in prefix.parts:
            for layer, (keys, values) in zip(cache.layers, node.layers, strict=True):
                layer.keys[row, :, start : start + count] = keys[:, :count]
                layer.values[row, :, start : start + count] = values[:, :count]
            start += count
    return cache


def cache_of(module: nn.Module) -> PrefixCache | None:
    """The prefix cache of a module, empty if its weights have changed; None for a model that reads a prefix otherwise
    depending on where it stands, and for one with hooks, which may do anything."""
    if not has_plain_attention(module) or is_hooked(module):
        return None
    cache = _caches.get(module)
    if cache is None:
        cache = _caches[module] = PrefixCache(next(module.parameters()).device)
    state, weights = state_of(module), fingerprint(list(module.parameters()))
    if cache.state != state or not torch.equal(cache.weights, weights):
        cache.clear()
    cache.state, cache.weights, cache.device = state, weights, next(module.parameters()).device
    return cache


def has_plain_attention(module: nn.Module) -> bool:
    """Whether keys and values depend on a token, its position and what precedes it, and on nothing else: every layer
    attends to all of the text (a window may count columns), and positions are given and turn at a fixed rate."""
    base = base_of(module)
    config = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    kinds = getattr(config, "layer_types", None)
    limits = (getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size"))
    if any(limits) if kinds is None else set(kinds) != {"full_attention"}:
        return False
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    fixed = rope.get("rope_type", rope.get("type", "default")) in STATIC_ROPE
    parameters = inspect.signature(base.forward).parameters
    return fixed and keeps_keys_and_values(module) and takes_cache(module) and "position_ids" in parameters


def state_of(module: nn.Module) -> tuple:
    """What changes when weights are written to or replaced, or adapters are switched."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    written = tuple((x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors)
    adapted = tuple(
        (tuple(layer.active_adapters), layer.disable_adapters, tuple(layer.merged_adapters), tuple(scales.items()))
        for layer in module.modules()
        if (scales := getattr(layer, "scaling", None)) and isinstance(scales, dict)
    )
    return written, adapted


# memory


def limit(device: torch.device) -> int:
    """The most bytes that all prefix caches of a device may take."""
    return devices.memory(str(device)) // SHARE


def room(device: torch.device) -> int:
    """The bytes they may take now: less than the limit while less than that is free beside them."""
    most, unused = limit(device), devices.free(str(device))
    return most if unused is None else max(0, min(most, held(device) + unused - most))


def held(device: torch.device | str) -> int:
    """The bytes that all prefix caches of a device take."""
    return sum(cache.nbytes for cache in caches_on(device))


def caches_on(device: torch.device | str) -> list[PrefixCache]:
    kind = torch.device(device)
    return [c for c in _caches.values() if c.device.type == kind.type and kind.index in (None, c.device.index)]


def trim(device: torch.device, budget: int) -> None:
    """Drop what was not used for longest, of any model, until `budget` bytes are left."""
    while held(device) > budget:
        cache = min((c for c in caches_on(device) if c.nodes), key=lambda c: next(iter(c.nodes)).used)
        cache.evict()


def release(device: torch.device | str) -> int:
    """Free everything on a device; returns how many bytes that was."""
    freed = held(device)
    for cache in caches_on(device):
        cache.clear()
    return freed


devices.releases.append(release)
