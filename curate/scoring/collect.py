"""The result of each example under a model: a score, or a skip with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.chat.encode import Encoded
from curate.corpus.writer import ScoreSink
from curate.errors import CurateError

REFUSED = 20
"""After this many failures in a row, the model or the server is at fault, not the examples."""


@dataclass
class ModelRun:
    """What one model did in this run, or would do in a dry run.

    `tokens` counts prompt and answer. `seconds` includes `loading`; models that share an engine
    share its time in proportion to their tokens.
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
    """Collects one model's results in a pass: scores and skips for its sink, counts for its run.

    A skip is stored once a later example is scored, or at the end of the pass, because until then
    the model may be at fault. `has_scores`: the model has scores from an earlier run. `folder` is
    the model's.
    """

    def __init__(self, sink: ScoreSink, run: ModelRun, has_scores: bool, folder: Path) -> None:
        self._sink, self.run, self._has_scores, self._folder = sink, run, has_scores, folder
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
            where = f"of {self._folder} in {dtype}"
            self.skip(example_id, f"the log-prob {where} is not finite ({total})")
        self.run.tokens += item.stop

    def skip(self, example_id: str, reason: str) -> None:
        """Record that this model can't score this example, and why."""
        self._sink.skip(example_id, reason)
        self.run.skipped += 1

    def refuse(self, example_id: str, reason: str) -> None:
        """Note a backend's reason for skipping an example; `REFUSED` in a row are an error."""
        self._refused.append((example_id, reason))
        if len(self._refused) == REFUSED:
            raise self._hopeless()

    def end(self) -> None:
        """End a complete pass; an error if the model has never scored any example."""
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
