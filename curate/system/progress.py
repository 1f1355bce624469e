"""How a long run reports its progress; the command line chooses how it looks."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by the rooms that work. The methods do nothing unless they are overridden."""

    def note(self, text: str) -> None:
        """Say one thing once."""
        return

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Begin a step of `total` examples, or MB (None: not known)."""
        return

    def advance(self, examples: int, tokens: int = 0) -> None:
        """So many more examples or MB, and tokens of prompt and answer, are done."""
        return

    def stop(self) -> None:
        """End the step."""
        return


class Silent(Progress):
    """Says nothing (`--quiet`, and the library's default)."""
