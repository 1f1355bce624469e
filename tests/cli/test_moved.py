"""Options of earlier versions."""

from __future__ import annotations

import pytest

from curate.cli.options import MOVED
from tests.conftest import Cli


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in MOVED for name in MOVED[command]]
)
def test_an_old_option_names_the_new_one(cli: Cli, command: str, name: str) -> None:
    """One line, whatever else is given."""
    ran = cli(command, f"{name}=1")
    assert (ran.code, ran.err) == (2, f"Error: {name} was removed: {MOVED[command][name]}\n")
