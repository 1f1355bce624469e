"""The library's public names: `curate.export` and `curate.report` are functions, always."""

from __future__ import annotations

import subprocess
import sys

import pytest

import curate


@pytest.mark.parametrize(
    "before",
    [
        "import curate",
        "import curate.export",
        "import curate.export.export",
        "import curate.report.report",
        "from curate.export.mix import Mix; import curate",
        "import curate; curate.export, curate.report; import curate.export.export",
    ],
)
def test_a_room_never_hides_its_function(before: str) -> None:
    """Whatever was imported before, in a process of its own."""
    same = "; ".join(
        f"from curate.{name}.{name} import {name}; assert curate.{name} is {name}"
        for name in ("export", "report")
    )
    code = f"{before}; import curate; {same}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_every_public_name_is_there() -> None:
    """Each is found where `curate` says, and nothing else is."""
    assert [name for name in curate.__all__ if not hasattr(curate, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = curate.nothing
