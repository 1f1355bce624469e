"""The library's public names: `curate.export` is the function, whatever was imported before."""

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
        "from curate.export.mix import Mix; import curate",
        "import curate; curate.export; import curate.export.export",
    ],
)
def test_export_is_the_function(before: str) -> None:
    """A room's import never hides the function of its name, in a process of its own."""
    code = f"{before}; from curate.export.export import export; assert curate.export is export"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_every_public_name_is_there() -> None:
    """Each is found where `curate` says, and nothing else is."""
    assert [name for name in curate.__all__ if not hasattr(curate, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = curate.nothing
