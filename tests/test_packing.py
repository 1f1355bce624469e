"""Linear layers in oneDNN's order: the same products, weights that can be had back."""

import pytest
import torch

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


def test_layers_that_share_weights_or_are_not_float32_stay(net: Pair) -> None:
    """A second copy would take memory, and other types were not measured."""
    net.embedding = torch.nn.Embedding(16, 40)
    net.embedding.weight = net.second.weight
    net.first = net.first.bfloat16()
    assert pack(net) == []
