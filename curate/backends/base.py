"""The protocol of backends: token ids in, log-probabilities of answers, or new answers, out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model

Found = npt.NDArray[np.float32] | str
"""An example's log-probabilities, or the reason why this example has none."""

Written = list[int] | str
"""A new answer's token ids, including the one that ended it, if any; or why there is no answer."""

NAMES = ("auto", "transformers", "vllm", "server")

PROMPTS = 2_048
"""Prompts that a worker of a cluster is handed together."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request for an answer: the prompt's token ids, the most tokens to write, and a seed."""

    ids: list[int]
    room: int
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and which ids end an answer.

    Temperature 0 takes the likeliest token; above 0, one is drawn from the full distribution.
    """

    ends: tuple[int, ...]
    temperature: float = 0.0


@dataclass(frozen=True)
class Engine:
    """Options of vLLM: `data_parallel` engines side by side, each on `tensor_parallel` devices.

    `args` are other `EngineArgs` by name.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compute:
    """The requested backend and its options.

    `backend`: 'transformers', 'vllm', 'server', or 'auto': the server if one is given, vLLM if it
    is installed and there is a GPU, else transformers. `device`: 'cuda', 'cuda:1', 'mps', 'cpu';
    None is the fastest. `dtype`: 'float32', 'bfloat16', 'float16'; None depends on the device.
    `batch_tokens`: tokens in one forward pass; None depends on the device. `engine`: options of
    vLLM. `servers`: addresses of running vLLM servers, each with every model under its NAME;
    `in_flight`: concurrent requests over all of them. `ray`: the address of a Ray cluster, or
    `auto` (docs/cluster.md); `workers`: the most workers there, each with a backend of its own;
    None is as many as fit.

    A run sets the rest itself (`settled`): `max_length`, the tokens of the longest example (None is
    the model's own limit), and `writes`, whether answers are written, which `max_length` includes.
    """

    backend: str = "auto"
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    max_length: int | None = None
    engine: Engine = Engine()
    servers: tuple[str, ...] = ()
    in_flight: int = 64
    writes: bool = False
    ray: str | None = None
    workers: int | None = None


def settled(asked: Compute | None, max_length: int | None, *, writes: bool = False) -> Compute:
    """What was asked for, or the default, with what the run sets.

    Raises `CurateError` if `asked` sets that itself.
    """
    asked = asked or Compute()
    if asked.max_length is not None or asked.writes:
        raise CurateError("Compute: max_length and writes are set by the run; give it max_length")
    return replace(asked, max_length=max_length, writes=writes)


@dataclass(frozen=True)
class Window:
    """Examples that are scored together, and for each the place of the model in its group."""

    example_ids: list[str]
    models: list[int]
    encoded: list[Encoded]


class Backend(Protocol):
    """One model, or several that share an engine, ready to score."""

    name: str
    dtype: str
    """The number type, followed by other options that change the numbers."""
    engines: int
    """The number of engines that share a window of examples, which grows by this factor."""

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Found]]:
        """Score a window of examples, in any order and any batches.

        `models` gives, for each example, the index of its model in the group; it can be omitted if
        there is only one.

        Yields, as batches finish, the index into `encoded` and the log-probabilities of that
        example's answer tokens `ids[start:stop]`: float32, in nats, [stop - start]. Each index
        occurs once. NaN and infinities are passed on. If an example can't be scored, the reason is
        yielded instead.

        Raises `CurateError` if an id is outside the model's vocabulary, memory is too small, or an
        engine or server is gone.
        """
        ...

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts with the first model, reading more as there is room.

        Yields, as they finish, a prompt's number from 0 and the ids of its answer. An answer
        depends only on its prompt's seed, not on the rest of the batch, up to rounding.

        Raises `CurateError` as `score` does.
        """
        ...

    def close(self) -> None:
        """Free the models' memory."""
        ...


@runtime_checkable
class Parallel(Backend, Protocol):
    """A backend of several workers, which score windows side by side."""

    def stream(
        self, windows: Iterable[Window], workers: Callable[[int], None]
    ) -> Iterator[tuple[Window, int, Found]]:
        """Score windows, as `stream` below does; `workers` receives their number."""
        ...

    def generate(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling,
        workers: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts, as `Backend.generate` does; `workers` as in `stream`."""
        ...


def stream(
    backend: Backend, windows: Iterable[Window], workers: Callable[[int], None]
) -> Iterator[tuple[Window, int, Found]]:
    """Score windows, one after the other unless the backend is `Parallel`.

    Yields what `Backend.score` does, each with its window, whose items may have lost their ids.
    """
    if isinstance(backend, Parallel):
        yield from backend.stream(windows, workers)
        return
    for window in windows:
        for index, found in backend.score(window.encoded, window.models):
            yield window, index, found


def generate(
    backend: Backend, prompts: Iterable[Prompt], sampling: Sampling, workers: Callable[[int], None]
) -> Iterator[tuple[int, Written]]:
    """Answer prompts; `workers` receives the number of a `Parallel` backend's workers."""
    if isinstance(backend, Parallel):
        return backend.generate(prompts, sampling, workers)
    return backend.generate(prompts, sampling)


def check_ids(highest: int, vocabulary: int, model: Model) -> None:
    """Raise `CurateError` for a token id that the model has no row for."""
    if highest >= vocabulary:
        raise CurateError(
            f"{model.name}: token id {highest} is outside its vocabulary ({vocabulary} rows in "
            f"{model.path}). The tokenizer in {model.tokenizer} belongs to another model."
        )
