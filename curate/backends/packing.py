"""Linear layers for CPUs: weights kept in the blocks that oneDNN's matrix product reads.

torch's own float32 product goes to MKL, which brings the weights into its order anew at every call.
With weights of 768 to 4,864 columns and two AVX2 cores, oneDNN with its own order is 5 to 10 %
faster (measured with torch 2.13). torch's compiler does the same when it freezes a model.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

Place = tuple[torch.nn.Module, str]
"""A module, and the name of one of its children."""


class Packed(torch.nn.Module):
    """A linear layer in oneDNN's order. It takes the place of the one whose weights it takes."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X @ weight.T + bias: float32 [..., in] to [..., out]."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return product


def pack(net: Any) -> list[Place]:
    """Pack a model's float32 linear layers where they are, one after the other.

    Those that share their weights stay as they are, since a second copy would take memory.

    Returns the places that `unpack` takes; none where this torch or processor can't do it.
    """
    if not _works():
        return []
    users = Counter(id(p) for module in net.modules() for p in module._parameters.values())
    alone = _alone([*net.parameters(), *net.buffers()])
    places = [
        (module, name)
        for module in list(net.modules())
        for name, child in module.named_children()
        if type(child) is torch.nn.Linear
        and child.weight.dtype == torch.float32
        and child.weight.device.type == "cpu"
        and users[id(child.weight)] == 1
    ]
    for module, name in places:
        plain = getattr(module, name)
        setattr(module, name, Packed(plain))
        if plain.weight.data_ptr() in alone:
            _give_back(plain.weight)
    return places


def _alone(held: Sequence[torch.Tensor]) -> set[int]:
    """The addresses of those tensors whose memory no other has a part of."""
    spans = []
    for each in (tensor for tensor in held if tensor.numel()):
        steps = zip(each.shape, each.stride(), strict=True)
        extent = each.element_size() * (1 + sum((size - 1) * step for size, step in steps))
        spans.append((each.data_ptr(), each.data_ptr() + extent, each.is_contiguous()))
    found, reached = set(), 0
    spans.sort()
    for (start, stop, whole), (after, *_) in zip(spans, [*spans[1:], (sys.maxsize,)], strict=True):
        if whole and reached <= start and stop <= after:
            found.add(start)
        reached = max(reached, stop)
    return found


def _give_back(weight: torch.Tensor) -> None:
    """Let the system have the memory of a weight that nothing will read again.

    To free it is not enough: a checkpoint's file is mapped into memory as a whole, and what stays
    unpacked (the embeddings) keeps every page of it, with all that merging an adapter wrote there.
    """
    if sys.platform != "linux":
        return
    page, begin = mmap.PAGESIZE, weight.data_ptr()
    start, stop = -(-begin // page) * page, (begin + weight.nbytes) // page * page
    if start < stop:  # whole pages of its own; on failure they only stay
        size = ctypes.c_size_t(stop - start)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), size, mmap.MADV_DONTNEED)


def trim() -> None:
    """Let the system have what was freed, some of which glibc keeps from the next model."""
    give = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if give is not None:
        give(0)


def unpack(places: list[Place]) -> None:
    """Put plain linear layers back."""
    for module, name in places:
        packed: Any = getattr(module, name)
        weight = packed.weight.to_dense()
        rows, columns = weight.shape
        plain = torch.nn.Linear(columns, rows, bias=packed.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.bias = packed.bias
        setattr(module, name, plain)


def _works() -> bool:
    """Whether torch's two operators, which are not among its public ones, do what they did."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch._C._has_mkldnn:
        return False
    linear = torch.nn.Linear(3, 5)
    x = torch.arange(6.0).reshape(1, 2, 3)
    try:
        with torch.inference_mode():
            return torch.allclose(Packed(linear)(x), linear(x), atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):
        return False
