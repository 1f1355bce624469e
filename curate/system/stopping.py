"""Stops by Ctrl-C or SIGTERM: finished work is stored, and one line says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from threading import Event, Thread
from types import FrameType
from typing import Any, TypeVar

Answer = TypeVar("Answer")

AGAIN_SECONDS = 2.0
"""A second signal after this many seconds ends the process; `timeout` sends each one twice."""
_NOTICE = b"\nStopping when the current work is done. Press Ctrl-C again to stop at once.\n"
_TICK = 0.2  # seconds between checks for a stop while waiting


class Stopped(BaseException):
    """A stop: the signal's number, and the line that says what was kept.

    Not an `Exception`, so that no handler on the way catches it.
    """

    def __init__(self, number: int, text: str = "Stopped.") -> None:
        super().__init__(text)
        self.number = number


class _Signals:
    """Turns the first signal into `Stopped` in the main thread."""

    number: int | None = None
    held = False
    _at = 0.0

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number, self._at = number, time.monotonic()
            os.write(2, _NOTICE)  # a stream's or a thread's lock may be held now
            if not self.held:
                raise Stopped(number)
        if time.monotonic() - self._at > AGAIN_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_signals = _Signals()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in this block on SIGINT or SIGTERM, unless they are ignored (nohup).

    A library may replace the exception with its own (DuckDB says "interrupted"), so every error
    after a signal counts as the stop.
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
        _signals = _Signals()  # the stop was for this block
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Delay a stop until the end of this block, which should take a second at most."""
    signals = _signals
    signals.held = True
    try:
        yield
    finally:
        signals.held = False
    check_cancelled()


def asked() -> int | None:
    """The signal that requested a stop, if any."""
    return _signals.number


def check_cancelled() -> None:
    """Raise `Stopped` if a signal came, because Python drops exceptions inside destructors."""
    if (number := asked()) is not None:
        raise Stopped(number)


def sleep(seconds: float) -> None:
    """Wait, unless a stop comes."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check_cancelled()
        time.sleep(min(left, _TICK))


def apart(
    asks: Iterable[Callable[[], Answer]], at_once: int = 1, name: str | None = None
) -> Iterator[Answer]:
    """Run calls in daemon threads, which end with the process; a stop doesn't wait for them.

    Yields the answers in order; after the first error, no further call begins.
    """
    jobs = [(ask, Future[Answer]()) for ask in asks]
    left, ended = iter(jobs), Event()

    def work() -> None:
        for ask, future in left:
            if ended.is_set():
                return
            try:
                future.set_result(ask())
            except BaseException as error:
                future.set_exception(error)

    for _ in range(min(at_once, len(jobs))):
        Thread(target=work, name=name, daemon=True).start()
    try:
        for _, future in jobs:
            while not wait([future], _TICK).done:
                check_cancelled()
            yield future.result()
    finally:
        ended.set()
