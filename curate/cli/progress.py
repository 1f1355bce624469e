"""How a long run looks while it goes: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

from curate.cli.tables import clean

if TYPE_CHECKING:
    from rich.progress import TaskID

EVERY_SECONDS = 10.0


class Lines:
    """Plain lines every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._label = self._unit = ""
        self._total: int | None = None
        self._examples = self._tokens = 0
        self._began = self._said = 0.0

    def note(self, text: str) -> None:
        """Print the text as a line of its own."""
        print(clean(text), file=self._stream, flush=True)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Remember the step."""
        self._label, self._total, self._unit = label, total, unit
        self._examples = self._tokens = 0
        self._began = self._said = time.monotonic()

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Print a line when the last one is old enough."""
        self._examples += examples
        self._tokens += tokens
        if time.monotonic() - self._said >= EVERY_SECONDS:
            self._tell()

    def stop(self) -> None:
        """Print how the step ended."""
        self._tell()

    def _tell(self) -> None:
        self._said = time.monotonic()
        seconds = max(self._said - self._began, 1e-9)
        line = f"{self._label}: {self._examples:,}"
        if self._total is not None:
            line += f" of {self._total:,}"
        line += f" {self._unit}"
        if self._tokens:
            line += f", {self._tokens / seconds:,.0f} tokens/s"
        if self._total and 0 < self._examples < self._total:
            left = seconds * (self._total - self._examples) / self._examples
            line += f", {timedelta(seconds=round(left))} left"
        self.note(line)


class Bar:
    """A rich progress bar: label, examples, tokens/s, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._tokens, self._began = 0, 0.0

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._bars.console.print(clean(text), markup=False, highlight=False)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Show a bar for the step."""
        self._bars.start()
        self._tokens, self._began = 0, time.monotonic()
        self._task = self._bars.add_task(label, total=total, rate="")

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Move the bar."""
        self._tokens += tokens
        rate = self._tokens / max(time.monotonic() - self._began, 1e-9)
        if self._task is not None:
            text = f"{rate:,.0f} tokens/s" if self._tokens else ""
            self._bars.update(self._task, advance=examples, rate=text)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._task is not None:
            task = self._bars.tasks[self._task]
            if task.total is None:
                self._bars.update(self._task, total=task.completed)
        self._bars.stop()
