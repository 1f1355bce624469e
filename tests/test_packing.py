"""Linear layers in oneDNN's order: the same products, weights that can be had back."""

import mmap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from curate.backends.packing import Packed, pack, unpack


class Pair(torch.nn.Module):
    """Two linear layers, one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(24, 40)
        self.second = torch.nn.Linear(40, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer after the other."""
        return self.second(self.first(x))


@pytest.fixture
def net() -> Pair:
    """The same numbers for every test."""
    torch.manual_seed(0)
    return Pair().requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 24), (3, 7, 24), (0, 24), (24,)])
def test_packed_layers_give_the_plain_products(net: Pair, shape: tuple[int, ...]) -> None:
    """Whatever the input's dimensions, none at all included."""
    x = torch.randn(shape)
    plain = net(x)
    if not pack(net):
        pytest.skip("this processor or torch can't pack")
    assert isinstance(net.first, Packed) and isinstance(net.second, Packed)
    torch.testing.assert_close(net(x), plain)


def test_unpacking_gives_the_weights_back_bit_for_bit(net: Pair) -> None:
    """Packing moves weights and rounds nothing."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    unpack(pack(net))
    assert type(net.first) is torch.nn.Linear
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_packing_takes_no_second_copy(tmp_path: Path) -> None:
    """A checkpoint's file stays mapped, with what was written there; its pages are given back."""
    weights = {f"{n}.weight": torch.randn(2048, 2048) for n in range(8)}
    save_file(weights | {"kept": torch.randn(64)}, tmp_path / "w.safetensors")
    mapped = load_file(tmp_path / "w.safetensors")
    net = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(8)))
    for n, layer in enumerate(net):
        layer.weight = torch.nn.Parameter(mapped.pop(f"{n}.weight"), requires_grad=False)
        layer.weight.data.add_(1)  # as merging an adapter does
    before = _resident()
    if not pack(net):
        pytest.skip("this processor or torch can't pack")
    assert _resident() - before < 64 << 20  # of 128 MiB
    wanted = weights["0.weight"] + 1
    assert torch.equal(net[0].weight.to_dense(), wanted)
    assert mapped["kept"].isfinite().all()


def test_memory_that_others_read_is_not_given_back() -> None:
    """Two halves of one weight, and a buffer that looks into another."""
    whole = torch.randn(1024, 2048)
    net = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False) for _ in range(3)))
    for layer, half in zip(net, whole.chunk(2, dim=1), strict=False):
        layer.weight = torch.nn.Parameter(half, requires_grad=False)
    seen = net[2].weight.detach()
    net[2].register_buffer("seen", seen)
    before = [tensor.clone() for tensor in (whole, seen)]
    if not pack(net):
        pytest.skip("this processor or torch can't pack")
    assert torch.equal(whole, before[0])
    assert torch.equal(seen, before[1])
    assert torch.equal(net[1].weight.to_dense(), before[0][:, 1024:])


def _resident() -> int:
    """Bytes of memory that this process holds."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("the system tells of no process's memory in /proc")
    return int(status.read_text().split()[1]) * mmap.PAGESIZE


def test_layers_that_share_weights_or_are_not_float32_stay(net: Pair) -> None:
    """A second copy would take memory, and other types were not measured."""
    net.embedding = torch.nn.Embedding(16, 40)
    net.embedding.weight = net.second.weight
    net.first = net.first.bfloat16()
    assert pack(net) == []
