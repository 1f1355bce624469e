"""How a long run reports its progress; the command line displays it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives a run's progress. The methods do nothing unless overridden."""

    def note(self, text: str) -> None:
        """Show a message."""
        return

    def warn(self, text: str) -> None:
        """Show a message that a quiet run shows too, because the numbers may be unexpected."""
        self.note(text)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Begin a step of `total` examples, or MB (None: not known)."""
        return

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Report examples or MB, and tokens of prompt and answer, that are done."""
        return

    def workers(self, count: int) -> None:
        """Report how many workers of a cluster share the step from now on."""
        return

    def stop(self) -> None:
        """End the step."""
        return


class Silent(Progress):
    """Shows nothing (the library's default)."""
