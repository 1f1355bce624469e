"""curate: data curation for perplexity-gap interleaving sets.

The same as the command line, small: `curate.score(...)` scores examples into a corpus folder,
`curate.open(path)` gives a `Corpus` with `.sql()`, `.gaps()` and `.export()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.backends import Engine
    from curate.corpus import Corpus
    from curate.corpus import open_corpus as open
    from curate.errors import CurateError
    from curate.examples import Columns
    from curate.exports.targets import Target
    from curate.scoring import Summary, score
    from curate.selection import Recipe

__all__ = [
    "Columns",
    "Corpus",
    "CurateError",
    "Engine",
    "Recipe",
    "Summary",
    "Target",
    "open",
    "score",
]

_HOMES = {
    "Columns": ("curate.examples", "Columns"),
    "Corpus": ("curate.corpus", "Corpus"),
    "CurateError": ("curate.errors", "CurateError"),
    "Engine": ("curate.backends", "Engine"),
    "Recipe": ("curate.selection", "Recipe"),
    "Target": ("curate.exports.targets", "Target"),
    "Summary": ("curate.scoring", "Summary"),
    "open": ("curate.corpus", "open_corpus"),
    "score": ("curate.scoring", "score"),
}


def __getattr__(name: str) -> Any:
    # Late, so that `curate --help` doesn't wait for pyarrow and DuckDB.
    if name not in _HOMES:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
