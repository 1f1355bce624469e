"""Stops: the first signal ends the run at a good place; the user learns that it was heard."""

from __future__ import annotations

import signal

import pytest

from curate.system.stopping import Stopped, held, stoppable


def test_a_stop_is_acknowledged_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """One line says that it was heard, before the work in hand is done, and how to stop now."""
    with pytest.raises(Stopped), stoppable(), held():
        signal.raise_signal(signal.SIGTERM)
        assert "Press Ctrl-C again to stop at once" in capfd.readouterr().err
