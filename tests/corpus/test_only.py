"""`--only`: which examples a condition chooses, and what is no condition."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.corpus.only import chosen
from curate.errors import CurateError
from tests.corpora import corpus

ANSWERS = [f"answer {n}" for n in range(6)]
NLLS = {"base": [1.0] * 6, "bad": [1.0, 2.0, 3.0, 4.0, 5.0, None], "new": [None] * 6}


@pytest.mark.parametrize(
    ("only", "over", "count"),
    [
        ("rank <= 2", ["bad"], 2),
        ("gap > 0.6 and not is_refusal", ["bad"], 3),
        ("gap is null", ["bad"], 1),
        ("row > 2", [], 4),
        ("example_id in (select example_id from scores where model = 'bad')", [], 5),
    ],
)
def test_a_condition_chooses_by_the_gaps_so_far(
    only: str, over: list[str], count: int, tmp_path: Path
) -> None:
    """They are those of the models that have scored; examples without one can be chosen, too."""
    found = corpus(tmp_path / "c", ANSWERS, NLLS)
    assert chosen(found, only, over).num_rows == count


@pytest.mark.parametrize(
    ("only", "over", "why"),
    [
        ("rank", ["bad"], "isn't a condition: its value is of type bigint"),
        ("row > 1) or (true", ["bad"], "syntax error"),
        ("row > 1; drop table models", ["bad"], "more than one statement"),
        ("nothing = 1", ["bad"], '"nothing" not found.* The columns are: '),
        ("gap > 0", [], "No misaligned model has scored yet"),
        ("getenv('HOME') is null", ["bad"], "is not allowed"),
    ],
)
def test_what_is_no_condition_is_said(only: str, over: list[str], why: str, tmp_path: Path) -> None:
    """In one line that begins with the option."""
    with pytest.raises(CurateError, match=rf"^--only .*{why}"):
        chosen(corpus(tmp_path / "c", ANSWERS, NLLS), only, over)
