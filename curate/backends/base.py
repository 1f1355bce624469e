"""What a backend is: token ids in, log-probabilities of the answer's tokens out, or new answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model

Found = npt.NDArray[np.float32] | str
"""An example's log-probs, or the reason why it has none while others may have theirs."""

Written = list[int] | str
"""A new answer's token ids, with the one that ended it if it ended by itself, or why there is none.
"""

NAMES = ("auto", "transformers", "vllm", "server")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an answer is wanted for: its token ids, the most tokens to write, and a seed."""

    ids: list[int]
    room: int
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and which ids end an answer.

    Temperature 0 takes the likeliest; above, a token is drawn from the whole distribution.
    """

    ends: tuple[int, ...]
    temperature: float = 0.0


@dataclass(frozen=True)
class Engine:
    """vLLM's: `data_parallel` engines side by side, each on `tensor_parallel` devices.

    `args` are any other of its `EngineArgs` by name.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compute:
    """What computes log-probs, as it was asked for.

    `backend`: one of `NAMES`. `device`: 'cuda', 'cuda:1', 'mps', 'cpu'; None takes the best there
    is. `dtype`: 'float32', 'bfloat16', 'float16'; None suits the device. `batch_tokens`: tokens
    in one forward pass; None suits the device. `max_length`: tokens of the longest example to
    come; None is the model's own limit. `servers`: addresses of running servers; `in_flight`:
    requests that are under way at a time, over all of them. `writes`: it is opened to write
    answers, and `max_length` counts what is written too.
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


class Backend(Protocol):
    """One model, or several that share an engine, ready to score.

    Summing, dividing and storing are done elsewhere.
    """

    name: str
    dtype: str
    """The number type, and behind it the options that change the numbers further, if any."""
    engines: int
    """How many share a window of examples, which is so many times as large."""

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Found]]:
        """Score a window of examples, in whatever order and batches suit the backend.

        `models` says for each of them which model is to score it, by its place in the group that
        was opened; it is left out where there is one.

        Yields, as batches finish, the index into `encoded` and the log-probabilities of that
        example's answer tokens `ids[start:stop]`: float32, in nats, [stop - start]. Each index
        comes once. NaN and infinities are passed on. An example that the engine fails to score or
        refuses has a reason instead.

        Raises `CurateError` if the model cannot take the ids, the device's memory is too small,
        or an engine or a server is gone.
        """
        ...

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts under the first model, read as there is room for more of them.

        Yields, as they are finished, a prompt's number from 0 and the ids written for it. An answer
        depends on its prompt's seed alone, whatever it shares a batch with, up to rounding.

        Raises `CurateError` as `score` does.
        """
        ...

    def close(self) -> None:
        """Give the models' memory back."""
        ...


def check_ids(highest: int, vocabulary: int, model: Model) -> None:
    """Raise `CurateError` for a token id that the model has no row for."""
    if highest >= vocabulary:
        raise CurateError(
            f"token id {highest} is outside the vocabulary of {model.name} ({vocabulary} rows in "
            f"{model.path}): the tokenizer in {model.tokenizer} does not belong to it"
        )
