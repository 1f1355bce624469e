"""What a run that is stopped has kept, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import CurateError
from curate.stopping import Stopped, asked


@contextmanager
def kept(corpus: Path) -> Iterator[None]:
    """Around a run that fills a corpus: a stop says what is stored and how to go on."""
    try:
        yield
    except BaseException:
        if (number := asked()) is None:
            raise
        raise Stopped(number, f"Stopped: {_holdings(corpus)}") from None


def _holdings(corpus: Path) -> str:
    from curate.corpus import open_corpus, readable_errors

    counts = "select (select count(*) from examples), (select count(*) from scores)"
    try:
        with readable_errors():
            examples, scores = open_corpus(corpus).sql(counts).fetchall()[0]
    except CurateError:
        return "nothing is stored yet; run the same command again to begin anew"
    return (
        f"{corpus} keeps {examples:,} examples and {scores:,} scores; "
        "run the same command again to go on"
    )
