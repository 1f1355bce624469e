"""What becomes of each example that a model is asked for: a score, or a skip with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.chat.encode import Encoded
from curate.corpus.writer import ScoreSink
from curate.errors import CurateError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REFUSED = 20
"""So many refusals in a row are not the examples' fault, but the model's or the server's."""


@dataclass
class ModelRun:
    """What one model did in this run, or would do in a dry one.

    `tokens` counts prompt and answer. `seconds` includes `loading`; models that share an engine
    divide its time by their tokens.
    """

    name: str
    role: str
    scored: int = 0
    skipped: int = 0
    truncated: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loading: float = 0.0

    @property
    def speed(self) -> int | None:
        """Tokens a second after loading."""
        seconds = self.seconds - self.loading
        return round(self.tokens / seconds) if seconds > 0 else None


class Collector:
    """Takes what one model gives in a pass: numbers and skips to its sink, counts to its run.

    A refusal is stored once a later example is scored, or at the pass's end: until then the model
    may be at fault. `has_scores`: the model has some of an earlier run.
    """

    def __init__(self, sink: ScoreSink, run: ModelRun, has_scores: bool) -> None:
        self._sink, self.run, self._has_scores = sink, run, has_scores
        self._refused: list[tuple[str, str]] = []

    def add(
        self, example_id: str, item: Encoded, logprobs: npt.NDArray[np.float32], dtype: str
    ) -> None:
        """Take an example's log-probs [answer tokens]; those that aren't finite are a skip."""
        self._store_refused()
        total = float(logprobs.sum(dtype="float64"))
        if math.isfinite(total):
            length = item.stop - item.start
            texts = item.texts if self.run.role == "aligned" else None  # once an example is enough
            self._sink.add(example_id, length, total, item.truncated, logprobs, texts)
            self.run.scored += 1
            self.run.truncated += item.truncated
        else:
            self.skip(example_id, f"the log-prob is not finite ({total}) in {dtype}")
        self.run.tokens += item.stop

    def skip(self, example_id: str, reason: str) -> None:
        """Record that this model can't score this example, and why."""
        self._sink.skip(example_id, reason)
        self.run.skipped += 1

    def refuse(self, example_id: str, reason: str) -> None:
        """Take a backend's reason for giving no log-probs; `REFUSED` in a row are an error."""
        self._refused.append((example_id, reason))
        if len(self._refused) == REFUSED:
            raise self._hopeless()

    def end(self) -> None:
        """End a pass that was not broken off; an error where the model refused all it ever got."""
        if self._refused and not (self.run.scored or self._has_scores):
            raise self._hopeless()
        self._store_refused()

    def _store_refused(self) -> None:
        for example_id, reason in self._refused:
            self.skip(example_id, reason)
        self._refused.clear()

    def _hopeless(self) -> CurateError:
        count, (_, reason) = len(self._refused), self._refused[-1]
        return CurateError(f"{self.run.name}: none of {count} examples could be scored: {reason}")
