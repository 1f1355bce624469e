"""How a long run shows its progress: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

from curate.cli.tables import clean
from curate.cli.tables import count as counted
from curate.system.progress import Progress
from curate.system.stopping import Stopped, asked

EVERY_SECONDS = 10.0


@contextmanager
def kept(stored: Callable[[], str]) -> Iterator[None]:
    """Wrap a resumable run: after a stop, say what is stored and how to resume."""
    try:
        yield
    except BaseException:
        if (number := asked()) is None:
            raise
        raise Stopped(number, f"Stopped: {stored()}") from None


class Warnings(Progress):
    """Only warnings (`--quiet`)."""

    def warn(self, text: str) -> None:
        """Print the text on its own line."""
        print(clean(text), file=sys.stderr, flush=True)


class Lines(Progress):
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, text: str) -> None:
        """Print the text on its own line."""
        print(clean(text), file=self._stream, flush=True)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Remember the step."""
        self._label, self._total, self._unit = label, total, unit
        self._examples = self._tokens = 0
        self._workers = ""
        self._began = self._said = time.monotonic()

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Print a line when the last one is old enough."""
        self._examples += examples
        self._tokens += tokens
        if time.monotonic() - self._said >= EVERY_SECONDS:
            self.stop()

    def workers(self, count: int) -> None:
        """Print how many there are with the next line."""
        self._workers = f" on {counted(count, 'worker')}"

    def stop(self) -> None:
        """Print how far the step is."""
        self._said = time.monotonic()
        seconds = max(self._said - self._began, 1e-9)
        whole = "" if self._total is None else f" of {self._total:,}"
        line = f"{self._label}: {self._examples:,}{whole} {self._unit}"
        if self._tokens:
            line += f", {_rate(self._tokens / seconds)}{self._workers}"
        if self._total and 0 < self._examples < self._total:
            left = seconds * (self._total - self._examples) / self._examples
            line += f", {timedelta(seconds=round(left))} left"
        self.note(line)


class Bar(Progress):
    """A rich progress bar: label, examples, tokens/s, time left."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bars = progress.Progress(
            progress.SpinnerColumn(finished_text="✓"),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}", markup=False),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._bars.console.print(clean(text), markup=False, highlight=False)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Show a bar for the step."""
        self._bars.start()
        self._tokens, self._began, self._workers = 0, time.monotonic(), ""
        self._task = self._bars.add_task(label, total=total, rate="")

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Move the bar."""
        self._tokens += tokens
        rate = self._tokens / max(time.monotonic() - self._began, 1e-9)
        text = f"{_rate(rate)}{self._workers}" if self._tokens else ""
        self._bars.update(self._task, advance=examples, rate=text)

    def workers(self, count: int) -> None:
        """Show how many there are behind their speed."""
        self._workers = f" on {counted(count, 'worker')}"

    def stop(self) -> None:
        """Leave the bar in place; a step of unknown length counts as complete."""
        task = self._bars.tasks[self._task]
        self._bars.update(self._task, total=task.total or task.completed)
        self._bars.stop()


def _rate(rate: float) -> str:
    return f"{rate:,.{0 if rate >= 10 else 1}f} tokens/s"
