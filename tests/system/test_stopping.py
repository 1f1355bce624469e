"""Stops: the first signal ends the run at a good place; the user learns that it was heard."""

from __future__ import annotations

import signal
import threading

import pytest

from curate.system import stopping


def test_a_stop_that_takes_a_while_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a second one line says that the stop was heard, and how to stop at once."""
    monkeypatch.setattr(stopping, "_NOTICE_SECONDS", 0)
    with pytest.raises(stopping.Stopped), stopping.stoppable(), stopping.held():
        signal.raise_signal(signal.SIGTERM)
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
    assert "Press Ctrl-C again to stop at once" in capfd.readouterr().err
