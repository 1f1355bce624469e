"""Which of several servers a request goes to: the one that waits least, and a bad one last."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

TIMEOUT = 600.0
"""Seconds that a busy server may take to answer."""

_TRIAL_TIMEOUT = 60.0  # for one that was bad, and is tried again while others do the work
_BUSY_ASIDE = 5.0  # seconds for which others come first: after an answer such as 429 or 503
_LOST_ASIDE = 60.0  # after a connection that failed
_SILENT_ASIDE = 600.0  # after a time-out: each trial may hold up the end of a window


class Busy(Exception):  # noqa: N818 - a reason to ask again
    """A server can't answer now."""


class Turns:
    """Servers, and what all requests that are under way have learnt of them.

    Each request goes to the server on which the fewest wait, so that a silent one never holds more
    than its share of them. One that failed comes last for a while, and then gets a single request,
    until it answers one.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self._waiting: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._aside: dict[str, float] = {}  # those that failed last: until when they come last
        self._lock = Lock()

    @contextmanager
    def turn(self, tried: Counter[str]) -> Iterator[tuple[str, float]]:
        """The server to ask and the seconds to give it; how that ends is remembered.

        `tried`: how often each was asked for the same thing; it is counted up here.
        """
        import httpx

        url, seconds = self._take(tried)
        aside = 0.0
        try:
            yield url, seconds
        except Busy:
            aside = _BUSY_ASIDE
            raise
        except httpx.ReadTimeout:
            aside = _SILENT_ASIDE
            raise
        except httpx.RequestError:
            aside = _LOST_ASIDE
            raise
        finally:
            with self._lock:
                self._waiting[url] -= 1
                self._aside.pop(url, None)
                if aside:
                    self._aside[url] = time.monotonic() + aside

    def _take(self, tried: Counter[str]) -> tuple[str, float]:
        now = time.monotonic()

        def rank(url: str) -> tuple[float, int, int, int]:
            until = self._aside.get(url, 0.0)
            if until <= now:  # a trial is over before there is another
                until = now if until and self._waiting[url] else 0.0
            return until, tried[url], self._waiting[url], self._asked[url]

        with self._lock:
            url = min(self.urls, key=rank)
            self._waiting[url] += 1
            self._asked[url] += 1
            on_trial = url in self._aside and len(self._aside) < len(self.urls)
        tried[url] += 1
        return url, min(_TRIAL_TIMEOUT, TIMEOUT) if on_trial else TIMEOUT
