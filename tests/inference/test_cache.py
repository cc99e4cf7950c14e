"""KVCache brought together from other caches, in as few copies as can be."""

import random

import torch

from jupyter_gpt.inference.kv_cache import KVCache, gather


def test_gathered_rows_are_the_chosen_ones():
    draw = random.Random(0)
    for _ in range(40):
        parts, expected = [], []
        for length in draw.sample(range(1, 9), 2):
            cache = KVCache(5, 8, torch.device("cpu"))
            cache.append([length] * 5, length)
            keys = torch.randn(5, 2, length, 4)
            cache.update(keys, -keys, 0)
            chosen = [draw.randrange(5) for _ in range(draw.randrange(1, 9))]
            parts.append((cache, chosen))
            expected += [(keys[row], length) for row in chosen]
        new = gather(parts, 3)
        longest = max(length for _, length in expected)
        assert new.length == longest and new.positions == [length for _, length in expected]
        for row, (keys, length) in enumerate(expected):
            assert torch.equal(new.layers[0].keys[row, :, longest - length : longest], keys)
            assert torch.equal(new.layers[0].values[row, :, longest - length : longest], -keys)
            assert new.valid[row, :longest].tolist() == [False] * (longest - length) + [True] * length
