"""Backends: token ids in, log-probabilities of the answer's tokens out; one file a backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from curate.chat import Rendered
from curate.errors import CurateError
from curate.models import Model


class Backend(Protocol):
    """One model, ready to score. Summing, dividing and storing are done elsewhere."""

    name: str
    dtype: str

    def score(self, rendered: Sequence[Rendered]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Score a window of examples, in whatever order and batches suit the backend.

        Yields, as batches finish, the index into `rendered` and the log-probabilities of that
        example's answer tokens `ids[start:stop]`: float32, in nats, [stop - start]. Each index
        comes once. NaN and infinities are passed on as they are.

        Raises `CurateError` if the model cannot take the ids or the device's memory is too small.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...


def open_backend(
    model: Model,
    backend: str = "auto",
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_tokens: int | None = None,
) -> Backend:
    """Load `model` into a backend.

    `backend`: 'auto' or 'transformers'. `device`: 'cuda', 'cuda:1', 'mps', 'cpu'; None or 'auto'
    takes the best there is. `dtype`: 'float32', 'bfloat16', 'float16'; None or 'auto' suits the
    device. `batch_tokens`: padded tokens in one forward pass; None suits the device.

    Raises `CurateError` for an unknown choice, and for weights that cannot be loaded.
    """
    _refuse_unknown(backend)
    from curate.backends.transformers import TransformersBackend

    return TransformersBackend(model, device=device, dtype=dtype, batch_tokens=batch_tokens)


def check_models(
    models: Sequence[Model],
    backend: str = "auto",
    *,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Find out, before anything is made, whether these models and options can be used.

    Only names and shapes are read, so it takes seconds at any size.

    Raises `CurateError` as `open_backend` does.
    """
    _refuse_unknown(backend)
    from curate.backends import weights

    weights.choose_dtype(dtype, weights.choose_device(device))
    for model in models:
        weights.check(model)


def _refuse_unknown(backend: str) -> None:
    if backend not in ("auto", "transformers"):
        raise CurateError(f"unknown backend {backend!r}: choose auto or transformers")
