"""A GPU that is not there, NVIDIA's or Apple's ("mps"), for walking the paths that only a GPU takes: its tensors are
computed on the CPU.

Every tensor's memory is known to lie on the host or on the "GPU": what is made with `device="cuda"` or moved there, and
what comes of such tensors, says `cuda:0` when it is asked for its device. As on a real one an operation that mixes both
is an error, and so is `numpy()`. torch's own calls to a GPU (events, streams, graphs, memory) are stood in for;
attention over texts of varying length is what torch's kernel documents. So the code runs as it would there, branch by
branch, with numbers that can be compared; how fast, and whether real kernels agree, only a real one tells.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TRANSFERS = ("_to_copy", "copy_", "_copy_from")
INDEXED = ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")  # a GPU takes indices from the host
DEVICE, TO, NUMPY = torch._C.TensorBase.device, torch._C.TensorBase.to, torch._C.TensorBase.numpy
MM = torch.mm


def is_cuda(device) -> bool:
    """Whether a device is the emulated one."""
    return device is not None and not isinstance(device, int) and torch.device(device).type == MEMORY.kind


class Memory:
    """Which storages lie on the GPU."""

    def __init__(self):
        self.on_gpu = weakref.WeakKeyDictionary()
        self.kind = "cuda"
        self.inside = False  # an operation that makes what it needs beside its inputs

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage() in self.on_gpu

    def put(self, tensor: Tensor, on_gpu: bool) -> Tensor:
        if tensor.is_meta:
            return tensor
        if on_gpu and self.kind == "mps" and tensor.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        if on_gpu:
            self.on_gpu[tensor.untyped_storage()] = True
        else:
            self.on_gpu.pop(tensor.untyped_storage(), None)
        return tensor


MEMORY = Memory()  # the only one: what a cache of the code keeps on the GPU is found there by the next test


class Kernels(TorchDispatchMode):
    """What an operation makes lies where its inputs do; to mix them is an error."""

    def __init__(self, memory: Memory):
        super().__init__()
        self.memory, self.ran = memory, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name.partition("::")[2]
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        placed = [x for x in (given[:1] if name in INDEXED else given) if x.dim() or name in TRANSFERS]
        on_gpu = [self.memory.holds(x) for x in placed]
        if any(on_gpu) and not all(on_gpu) and name not in TRANSFERS:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} was given both")
        found = function(*args, **kwargs)
        self.ran += any(on_gpu)
        if any(self.memory.holds(x) for x in given) and name not in TRANSFERS:
            known = {x.untyped_storage() for x in given}
            for x in tree_leaves(found):
                if isinstance(x, Tensor) and x.untyped_storage() not in known:
                    self.memory.put(x, True)
        elif name == "_to_copy":
            self.memory.put(found, self.memory.holds(given[0]))
        elif self.memory.inside and not given and isinstance(found, Tensor):
            self.memory.put(found, True)
        return found


FACTORIES = (
    "tensor",
    "as_tensor",
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "rand",
    "randn",
    "randint",
    "randperm",
    "eye",
    "linspace",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "scalar_tensor",
)
METHODS = ("new_tensor", "new_zeros", "new_ones", "new_full", "new_empty")


class Calls:
    """Calls of torch that name the GPU, or leave it."""

    def __init__(self, memory: Memory):
        self.memory = memory

    def making(self, function):
        """A function that makes tensors, on the GPU too."""

        def make(*args, device=None, pin_memory=False, **kwargs):
            like = args and isinstance(args[0], Tensor)
            if device is None:
                return function(*args, **kwargs)
            if torch.device(device).type == "meta":
                return function(*args, device=device, **kwargs)
            found = function(*args, device="cpu", **kwargs)
            if like and found.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr():
                return self.moved(args[0], device)  # as_tensor
            return self.memory.put(found, is_cuda(device))

        return make

    def to(self, tensor: Tensor, *args, copy: bool = False, **kwargs) -> Tensor:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None or layout is not None or copy:
            layout = {} if layout is None else {"memory_format": layout}
            tensor = TO(tensor, dtype=dtype or tensor.dtype, copy=copy, **layout)
        return tensor if device is None else self.moved(tensor, device)

    def moved(self, tensor: Tensor, device) -> Tensor:
        if torch.device(device).type == "meta":
            return TO(tensor, "meta")
        if tensor.is_meta or self.memory.holds(tensor) == is_cuda(device):
            return tensor
        return self.memory.put(tensor.clone(), is_cuda(device))

    def read(self, tensor: Tensor, *args, **kwargs):
        if self.memory.holds(tensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        return NUMPY(tensor, *args, **kwargs)

    def pinned(self, tensor: Tensor) -> Tensor:
        assert not self.memory.holds(tensor), "cannot pin memory of a GPU"
        assert self.memory.kind == "cuda", "pinned memory is of no use to an Apple GPU"
        return tensor.clone()

    def product(self, a: Tensor, b: Tensor, out_dtype=None, out=None) -> Tensor:
        wide = (a, b) if out_dtype is None else (a.to(out_dtype), b.to(out_dtype))
        return MM(*wide) if out is None else MM(*wide, out=out)

    def composite(self, function):
        """A function that makes what it needs beside its inputs, masks and the like, by calls that name no device."""

        def run(*args, **kwargs):
            self.memory.inside = any(self.memory.holds(x) for x in tree_leaves(args) if isinstance(x, Tensor))
            try:
                return function(*args, **kwargs)
            finally:
                self.memory.inside = False

        return run

    def install(self, patch) -> None:
        torch.utils._device._device_constructors()  # what `with torch.device("meta")` knows of is torch's own
        for name in FACTORIES:
            patch.setattr(torch, name, self.making(getattr(torch, name)))
        for name in METHODS:
            patch.setattr(Tensor, name, self.making(getattr(Tensor, name)), raising=False)
        own = {
            "to": self.to,
            "numpy": self.read,
            "pin_memory": self.pinned,
            "cpu": lambda x: self.moved(x, "cpu"),
            "cuda": lambda x, *rest, **more: self.moved(x, "cuda"),
        }
        for name, method in own.items():
            patch.setattr(Tensor, name, lambda x, *args, _m=method, **kwargs: _m(x, *args, **kwargs), raising=False)
        patch.setattr(torch, "mm", self.product)
        for where, name in ((F, "scaled_dot_product_attention"), (torch.nn.utils.rnn, "pad_sequence")):
            patch.setattr(where, name, self.composite(getattr(where, name)))
        memory = self.memory
        patch.setattr(
            Tensor,
            "device",
            property(
                lambda x: torch.device(memory.kind, 0) if not x.is_meta and memory.holds(x) else DEVICE.__get__(x)
            ),
            raising=False,
        )
        patch.setattr(Tensor, "is_cuda", property(lambda x: memory.kind == "cuda" and memory.holds(x)), raising=False)


def varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):
    """Causal attention `(N, H, h)` of texts end to end, as torch.nn.attention.varlen documents it."""
    assert window_size == (-1, 0) and cu_seq_q.dtype == torch.int32 and max_q >= int(cu_seq_q.diff().max())
    lengths = cu_seq_q.diff().tolist()
    texts = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)), strict=True)
    found = [F.scaled_dot_product_attention(*text, is_causal=True, enable_gqa=enable_gqa) for text in texts]
    return torch.cat(found, dim=1).transpose(0, 1)


class Event:
    def record(self, stream=None) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded


class Stream:
    def __init__(self, device=None):
        self.device = device

    def wait_stream(self, other) -> None:
        assert isinstance(other, Stream)


class Graph:
    """A CUDA graph: operations noted while it is recorded, run again when it is replayed (see
    `inference/recorder.py`).
    """

    replays = 0

    def replay(self) -> None:
        self.noted.replay()
        Graph.replays += 1


class GPU:
    """The emulated GPU: `with GPU(patch) as gpu:` where `patch` is pytest's monkeypatch; `on(call)` for other
    threads.
    """

    def __init__(
        self,
        patch,
        recorder,
        capability=(9, 0),
        total: int = 80 * 10**9,
        free: int = 70 * 10**9,
        name="NVIDIA H100 80GB HBM3",
        kind="cuda",
    ):
        self.memory = MEMORY
        self.memory.kind = kind
        self.kernels = Kernels(self.memory)

        @contextlib.contextmanager
        def graph(into, pool=None, stream=None, capture_error_mode="global"):
            assert isinstance(stream, Stream) and pool is not None and capture_error_mode == "thread_local"
            with recorder.Recorder() as into.noted:
                yield

        def autocast(kind, dtype=None, enabled=True, cache_enabled=None):
            return real_autocast(
                "cpu" if kind in ("cuda", "mps") else kind, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled
            )

        real_autocast, real_enabled = torch.autocast, torch.is_autocast_enabled
        calls = dict(
            is_available=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            empty_cache=lambda: None,
            synchronize=lambda device=None: None,
            get_device_name=lambda device=None: name,
            mem_get_info=lambda device=None: (free, total),
            memory_reserved=lambda device=None: 0,
            memory_allocated=lambda device=None: 0,
            max_memory_allocated=lambda device=None: 0,
            get_device_capability=lambda device=None: capability,
            is_bf16_supported=lambda including_emulation=True: capability >= (8, 0),
            get_device_properties=lambda device=None: SimpleNamespace(
                total_memory=total, major=capability[0], minor=capability[1], name=name, multi_processor_count=132
            ),
            Event=Event,
            Stream=Stream,
            CUDAGraph=Graph,
            graph=graph,
            graph_pool_handle=lambda: (0, 1),
            current_stream=lambda device=None: Stream(),
            stream=lambda stream: contextlib.nullcontext(),
            device=lambda device: contextlib.nullcontext(),
            manual_seed=lambda seed: None,
            is_current_stream_capturing=lambda: False,
            get_rng_state=lambda device=None: torch.zeros(1),
            set_rng_state=lambda state, device=None: None,
        )
        own = dict(
            recommended_max_memory=lambda: total,
            driver_allocated_memory=lambda: total - free,
            empty_cache=lambda: None,
            synchronize=lambda: None,
            manual_seed=lambda seed: None,
            get_rng_state=lambda: torch.zeros(1),
            set_rng_state=lambda state: None,
            Event=Event,
        )
        for key, value in calls.items() if kind == "cuda" else ():
            patch.setattr(torch.cuda, key, value)
        for key, value in own.items() if kind == "mps" else ():
            patch.setattr(torch.mps, key, value, raising=False)
        if kind == "mps":
            patch.setattr(torch.backends.mps, "is_available", lambda: True)
            patch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: capability >= (major, minor))
        patch.setattr(torch.version, "hip", None)
        patch.setattr(torch, "autocast", autocast)
        patch.setattr(torch, "is_autocast_enabled", lambda kind="cpu": real_enabled("cpu"))
        patch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
        Calls(self.memory).install(patch)
        Graph.replays = 0

    def __enter__(self) -> GPU:
        from jupyter_gpt.runs.worker import on_worker

        self.entered = {}
        self.enter()
        on_worker("torch", self.enter)
        return self

    def __exit__(self, *error) -> None:
        from jupyter_gpt.runs.worker import on_worker

        on_worker("torch", self.leave)
        self.leave()
        self.memory.kind = "cuda"

    def enter(self) -> None:
        """On this thread."""
        stack = self.entered[threading.get_ident()] = contextlib.ExitStack()
        stack.enter_context(self.kernels)

    def leave(self) -> None:
        self.entered.pop(threading.get_ident()).close()
