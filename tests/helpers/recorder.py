"""A stand-in for a CUDA graph, on the CPU: what ran is noted, operation by operation, with the very tensors it read and
wrote, and run again on them. Whatever a step takes from anywhere else (a Python number that changes, a tensor made
anew) is then what it was at the recording, as on a GPU; what no recording on a GPU may do raises at once."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORBIDDEN = (
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "lift_fresh",
    "unique",
    "rand",
)


def storage(x):
    return x.untyped_storage().data_ptr()


class Recorder(TorchDispatchMode):
    """The operations inside `with`, to be run again by `replay()`."""

    def __init__(self):
        super().__init__()
        self.done, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name.partition("::")[2]
        assert not any(name.startswith(word) for word in FORBIDDEN), f"{name} waits for the device"
        out = function(*args, **kwargs)
        self.done.append((function, args, kwargs, out if isinstance(out, tuple | list) else (out,)))
        return out

    def replay(self):
        self.replays += 1
        for function, args, kwargs, outs in self.done:
            again = function(*args, **kwargs)
            for old, new in zip(outs, again if isinstance(again, tuple | list) else (again,), strict=True):
                if isinstance(old, torch.Tensor) and storage(old) != storage(new):
                    old.copy_(new)


def recording(steps, size):
    """In the place of `GraphedSteps.capture`."""
    with Recorder() as graph:
        logits = steps.step(*size)
    return graph, logits
