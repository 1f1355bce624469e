"""`curate push` and `curate pull`: a corpus to a bucket and back, each one call into `curate`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.options import JsonOption, QuietOption, progress
from curate.cli.progress import kept
from curate.cli.tables import clean, print_json

if TYPE_CHECKING:
    from curate.corpus.transfer import Moved

_ADDRESS = (
    "s3://BUCKET/PATH, gs://BUCKET/PATH or abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
)


def push(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="The corpus folder.")],
    url: Annotated[str, typer.Argument(metavar="URL", help=f"Where to: {_ADDRESS}.")],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a corpus to a bucket, or what the bucket lacks of it.

    What somebody else pushed there meanwhile is never replaced.

    Example: curate push my-corpus s3://bucket/my-corpus
    """
    from curate.corpus.transfer import push as run

    with kept(lambda: "what was sent is kept. To resume, run the same command again"):
        moved = run(corpus, url, progress(quiet or as_json))
    if as_json:
        print_json(asdict(moved))
    else:
        print(clean(f"{moved.address}: {_said(moved)} sent"))


def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where `curate push` copied it to.")],
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A new folder, or what was pulled before.")
    ],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a corpus from a bucket, or what the folder lacks of it.

    Example: curate pull s3://bucket/my-corpus my-corpus
    """
    from curate.corpus.transfer import pull as run

    with kept(lambda: "what was fetched is kept. To resume, run the same command again"):
        moved = run(url, corpus, progress(quiet or as_json))
    if as_json:
        print_json(asdict(moved))
        return
    print(clean(f"{moved.corpus}: {_said(moved)} fetched"))
    print(f"Look at it:  curate status -c {shlex.quote(moved.corpus)}")


def _said(moved: Moved) -> str:
    return f"{moved.parts:,} parts, {moved.moved:,} of them ({moved.bytes / 1e6:,.1f} MB)"
