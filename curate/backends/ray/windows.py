"""How windows and results are sent: as flat arrays, a ninth of the size of lists of ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.backends.base import Found
from curate.chat.encode import Encoded

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Packed:
    """The pairs of a window; what several models score is in it only once.

    `ids` [tokens] are those of all texts, which end at `ends` [texts]. `texts`, `starts` and
    `models` [pairs] are the index of a pair's text, where its answer begins, and the index of its
    model.
    """

    ids: Ints
    ends: Ints
    texts: Ints
    starts: Ints
    models: Ints


def pack(encoded: Sequence[Encoded], models: Sequence[int]) -> Packed:
    """The pairs of a window as arrays."""
    numbers: dict[int, int] = {}
    texts, ids = [], []
    for item in encoded:
        if id(item) not in numbers:
            numbers[id(item)] = len(numbers)
            ids.append(np.asarray(item.ids[: item.stop], np.int32))
        texts.append(numbers[id(item)])
    return Packed(
        np.concatenate(ids) if ids else _ints([]),
        _ints(np.cumsum([len(one) for one in ids])),
        _ints(texts),
        _ints([item.start for item in encoded]),
        _ints(models or [0] * len(encoded)),
    )


def unpack(window: Packed, wanted: Sequence[int]) -> tuple[list[Encoded], list[int]]:
    """The pairs at these places of a window, as a backend takes them."""
    texts = [part.tolist() for part in np.split(window.ids, window.ends[:-1])]
    made: dict[int, Encoded] = {}
    for index in wanted:
        text = int(window.texts[index])
        if text not in made:
            ids = texts[text]
            made[text] = Encoded(ids, int(window.starts[index]), len(ids), False)
    return [made[int(window.texts[i])] for i in wanted], window.models[list(wanted)].tolist()


def _ints(values: Sequence[int] | npt.NDArray[np.int64]) -> Ints:
    return np.asarray(values, np.int32)


@dataclass(frozen=True)
class Scores:
    """Some results of a window: `logprobs` [tokens] of the pairs `indices`; reasons for the others.

    `lengths` [indices] are the numbers of answer tokens.
    """

    indices: Ints
    lengths: Ints
    logprobs: npt.NDArray[np.float32]
    reasons: list[tuple[int, str]]

    @classmethod
    def of(cls, found: Sequence[tuple[int, Found]]) -> Scores:
        """Results as arrays."""
        arrays = [(index, one) for index, one in found if not isinstance(one, str)]
        return cls(
            _ints([index for index, _ in arrays]),
            _ints([len(one) for _, one in arrays]),
            np.concatenate([np.zeros(0, np.float32), *(one for _, one in arrays)]),
            [(index, one) for index, one in found if isinstance(one, str)],
        )

    def __iter__(self) -> Iterator[tuple[int, Found]]:
        """The results, each with its index in the window."""
        parts = np.split(self.logprobs, np.cumsum(self.lengths)[:-1])
        yield from zip(self.indices.tolist(), parts, strict=False)
        yield from self.reasons
