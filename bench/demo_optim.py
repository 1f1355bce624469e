"""The demo models' optimizers: Muon for matrices, AdamW for the rest, and one training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Optimizers = list[torch.optim.Optimizer]


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for matrices (Jordan et al. 2024).

    Source: https://kellerjordan.github.io/posts/muon. Updates are scaled to AdamW's size
    (0.2 * sqrt(longest side), Liu et al., arXiv 2502.16982), so one learning rate serves both.
    """

    def __init__(self, params: Sequence[torch.Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.1, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all matrices, those of one shape together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                nesterov = p.grad.lerp(mean, group["momentum"])
                shapes.setdefault(p.shape, []).append((p, nesterov))
            for shape, found in shapes.items():
                updates = orthogonal(torch.stack([g for _, g in found])) * 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(found, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Return matrices [n, a, b] with singular values near 1, by five Newton-Schulz steps."""
    if x.size(1) > x.size(2):
        return orthogonal(x.mT).mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x


def optimizers_of(model: Any, lr: float) -> Optimizers:
    """Return Muon for the layers' matrices and AdamW for embeddings, norms and biases."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in named if p.dim() == 1 or "embed" in n]
    adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [Muon(matrices, lr), adamw]


def descend(model: Any, optimizers: Optimizers, loss: torch.Tensor, lr: float) -> None:
    """Take one step with gradients clipped to norm 1."""
    torch.autograd.backward([loss])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
