"""curate: data curation for perplexity-gap interleaving.

The library behind the command line: `curate.answer(...)` lets a model answer a pool's prompts,
`curate.score(...)` scores examples into a corpus folder, `curate.open(path)` returns a `Corpus`
with `.sql()` and `.gaps()`, `curate.export(corpus, ...)` writes selected examples or a mix, and
`curate.report(corpus, ...)` writes a page.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.answering.answer import answer
    from curate.backends.base import Compute, Engine
    from curate.corpus.corpus import Corpus
    from curate.corpus.corpus import open_corpus as open
    from curate.errors import CurateError
    from curate.export.export import export
    from curate.export.target import Target
    from curate.report.report import report
    from curate.scoring.score import Summary, score
    from curate.selection.recipe import Recipe
else:
    # A package becomes an attribute of its parent when it is first imported, so `curate.export`
    # would become the package. These packages are imported here and their attributes deleted, so
    # `curate.export` is the function, and `from curate.export.mix import Mix` finds the package.
    from curate import export, report

    del export, report

__all__ = [
    "Compute",
    "Corpus",
    "CurateError",
    "Engine",
    "Recipe",
    "Summary",
    "Target",
    "answer",
    "export",
    "open",
    "report",
    "score",
]

_HOMES = {
    "Compute": ("curate.backends.base", "Compute"),
    "Corpus": ("curate.corpus.corpus", "Corpus"),
    "CurateError": ("curate.errors", "CurateError"),
    "Engine": ("curate.backends.base", "Engine"),
    "Recipe": ("curate.selection.recipe", "Recipe"),
    "Summary": ("curate.scoring.score", "Summary"),
    "Target": ("curate.export.target", "Target"),
    "answer": ("curate.answering.answer", "answer"),
    "export": ("curate.export.export", "export"),
    "open": ("curate.corpus.corpus", "open_corpus"),
    "report": ("curate.report.report", "report"),
    "score": ("curate.scoring.score", "score"),
}


def __getattr__(name: str) -> Any:
    # Late, so that `curate --help` doesn't wait for pyarrow and DuckDB.
    if name not in _HOMES:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return list(__all__)
