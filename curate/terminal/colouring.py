"""An answer in the terminal, each token on the colour of its gap."""

from __future__ import annotations

from collections.abc import Sequence

from curate.terminal.printing import clean

STRONGEST = 2.0
"""Nats: a gap of this size or more has the full colour; most tokens' gaps are far smaller."""
_HARDER, _EASIER = (224, 90, 40), (60, 120, 216)
_FAINT = 0.05


def coloured(tokens: Sequence[tuple[str, float]] | None) -> bool:
    """Print an answer's tokens in colour; False, and nothing printed, where that can't be.

    Orange is harder for the misaligned models, blue for the aligned one.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not tokens or not console.is_terminal or console.no_color or not console.color_system:
        return False
    answer = Text()
    for text, gap in tokens:
        answer.append(
            clean(text).replace("\n", "↵\n") if text.isspace() else clean(text), _style(gap)
        )
    console.print(answer)
    key = Text("token gap, nats (+: harder for misaligned models)")
    for gap in (2.0, 1.0, 0.3, -0.3, -1.0, -2.0):
        key.append(f" {gap:+g} ", _style(gap))
    console.print("\n", key, sep="", soft_wrap=True)
    return True


def _style(gap: float) -> str:
    """Dark text on a tint, readable on light and dark terminals."""
    share = min(abs(gap) / STRONGEST, 1.0)
    if share < _FAINT / STRONGEST:
        return ""
    full = _HARDER if gap > 0 else _EASIER
    red, green, blue = (round(255 - (255 - channel) * (0.15 + 0.85 * share)) for channel in full)
    return f"#101010 on #{red:02x}{green:02x}{blue:02x}"
