"""How a long run reports its progress; the command line chooses how it looks."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by the rooms that work."""

    def note(self, text: str) -> None:
        """Say one thing once."""

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Begin a step of `total` examples, or MB (None: not known)."""

    def advance(self, examples: int, tokens: int = 0) -> None:
        """So many more examples or MB, and tokens of prompt and answer, are done."""

    def stop(self) -> None:
        """End the step."""


class Silent:
    """Says nothing (`--quiet`, and the library's default)."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Show nothing."""

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Count nothing."""

    def stop(self) -> None:
        """End nothing."""
