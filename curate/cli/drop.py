"""`curate drop`: takes models and sources out of a corpus."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from curate.cli.completion import misaligned_names
from curate.cli.options import CorpusOption, option
from curate.cli.tables import clean
from curate.errors import CurateError


def drop(
    corpus: CorpusOption,
    model: Annotated[
        list[str] | None,
        option("A misaligned model; repeatable.", "NAME", autocompletion=misaligned_names),
    ] = None,
    source: Annotated[
        list[str] | None,
        option("A source, as `curate sql by_source` names it; repeatable.", "SOURCE"),
    ] = None,
    yes: Annotated[bool, option("Don't ask first.", names=["--yes", "-y"])] = False,
) -> None:
    """Take models or sources out of a corpus, for good.

    An example that several sources hold is removed with the source that was read first; score the
    others again to have it back. Without a name, what an interrupted drop left is finished.

    Example: curate drop -c my-corpus --model legal
    """
    from curate.corpus.corpus import open_corpus
    from curate.corpus.drop import counts
    from curate.corpus.drop import drop as run

    names = [*(model or ()), *(source or ())]
    if names:
        examples, scores = counts(open_corpus(corpus), model or [], source or [])
        what = f"{', '.join(names)}: {examples:,} examples and {scores:,} scores"
        if not yes:
            if not sys.stdin.isatty():
                raise CurateError(f"this would remove {what} from {corpus}; confirm with --yes")
            typer.confirm(clean(f"Remove {what} from {corpus}?"), abort=True)
    run(corpus, model or [], source or [])
    print(
        clean(
            f"{corpus}: dropped {what}"
            if names
            else f"{corpus}: no drop was left unfinished. Name a --model or --source."
        )
    )
