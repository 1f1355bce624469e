"""A stop asked for from outside (Ctrl-C, SIGTERM): what is done is stored, and one line says so."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN_SECONDS = 2.0
"""A second signal after this time ends the process at once; `timeout` sends each one twice."""


class Stopped(BaseException):
    """A stop was asked for: the signal's number, and the line that says what was kept.

    Not an `Exception`, so that nothing on the way takes it for its own.
    """

    def __init__(self, number: int, text: str = "Stopped.") -> None:
        super().__init__(text)
        self.number = number


class _Signals:
    """Turns the first signal into `Stopped`, where the main thread stands."""

    number: int | None = None
    held = False
    _at = 0.0

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number, self._at = number, time.monotonic()
            if not self.held:
                raise Stopped(number)
        if time.monotonic() - self._at > AGAIN_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_signals = _Signals()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM end what runs inside with `Stopped`; under nohup they stay ignored.

    A library may hide that exception behind one of its own (DuckDB says "interrupted"), so every
    error after a signal counts as the stop.
    """
    global _signals
    _signals = _Signals()
    old: dict[int, Any] = {
        number: signal.signal(number, _signals)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    except (Stopped, SystemExit):
        raise
    except BaseException:
        if _signals.number is None:
            raise
        raise Stopped(_signals.number) from None
    finally:
        _signals = _Signals()  # a stop is for what ran inside
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Let what runs inside come to its end before a stop takes effect: work of a second or so."""
    signals = _signals
    signals.held = True
    try:
        yield
    finally:
        signals.held = False
    check_cancelled()


def asked() -> int | None:
    """The signal that asked for a stop, if one came."""
    return _signals.number


def check_cancelled() -> None:
    """Raise `Stopped` once a signal came: Python drops what it raised inside a destructor."""
    if (number := asked()) is not None:
        raise Stopped(number)
