"""From a recipe to files: select, place, write; and the same files again from a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import manifest, outputs
from curate.export.target import Target, check
from curate.reading.addresses import at_commit
from curate.reading.narrow import ids_of, read_if_any
from curate.reading.sources import resolve
from curate.selection.recipe import Recipe, budget
from curate.selection.select import by_ids, select
from curate.system.sql import readable_errors


@readable_errors()  # a damaged part may be met late
def export(
    corpus: Corpus,
    output: str | Path,
    recipe: Recipe,
    target: Target = Target(),  # noqa: B008 - frozen
    *,
    force: bool = False,
    command: str | None = None,
) -> dict[str, Any]:
    """Write a safe set, or with `recipe.into` the mix, its trainer's files and its manifest.

    `command` is what the user typed, for the manifest.

    Returns:
        The manifest, as it was written to `<output>.manifest.json` or into the folder.

    Raises:
        CurateError: the output exists and `force` is not set, the narrow set has a broken row,
            nothing is eligible, or an argument is out of its range. No file is left half written.
    """
    output = Path(output)
    place = check(output, target, mixes=recipe.into is not None, force=force)
    _keep_sources(output, recipe.into)
    narrow = read_if_any(recipe.into, recipe.columns, recipe.layouts)
    wanted = budget(recipe, len(narrow.rows) if recipe.into else None)
    chosen = select(corpus, recipe, wanted, ids_of(narrow))
    if not chosen.rows.num_rows:
        reasons = ", ".join(f"{rule} {count}" for rule, count in chosen.left_by.items())
        raise CurateError(
            f"nothing to export: of {chosen.ranked} ranked examples these rules left out: {reasons}"
            + (f"; the best of the others has more than {wanted} tokens" if recipe.tokens else "")
        )
    left_out = pa.BufferOutputStream()
    if chosen.left_out.num_rows:
        csv.write_csv(chosen.left_out, left_out)
    listed = left_out.getvalue().to_pybytes()
    with outputs.writing(corpus, place, recipe.seed, narrow, chosen.rows, listed) as files:
        record = manifest.make(corpus, recipe, wanted, chosen, files, command)
        files.add_manifest(record)
    return record


@readable_errors()
def export_again(
    corpus: Corpus, output: Path, record_path: Path, *, force: bool = False
) -> dict[str, Any]:
    """Make the files of an earlier manifest again, byte for byte, from the same corpus.

    The examples are taken by their ids, so it works although the corpus has grown since. The
    list of what was left out is copied; where it is gone, a note says so.

    Raises:
        CurateError: the manifest is broken, or what it names is gone or has changed.
    """
    earlier = manifest.load(record_path)
    recipe, expected = earlier.recipe, earlier.narrow
    place = check(output, earlier.target, mixes=recipe.into is not None, force=force)
    _keep_sources(output, recipe.into)
    into = recipe.into
    if into is not None and expected is not None and expected.commit:
        into = at_commit(into, expected.commit)
    narrow = read_if_any(into, recipe.columns, recipe.layouts)
    if recipe.into is not None and (expected is None or narrow.sha256 != expected.sha256):
        raise CurateError(
            f"{recipe.into}: is not the narrow set of {record_path}: it changed since"
        )
    safe = by_ids(corpus, [row.example_id for row in earlier.safe])
    left_out = earlier.left_out.read_bytes() if earlier.left_out else b""
    with outputs.writing(corpus, place, recipe.seed, narrow, safe, left_out) as files:
        record = manifest.again(earlier, files)
        files.add_manifest(record)
    return record


def _keep_sources(output: Path, into: str | None) -> None:
    """Refuse, also with --force, to write the mix over the narrow set it is made of."""
    if into is None or "://" in into or not output.exists():
        return
    for path in (Path(source.name) for source in resolve([into])):
        if path.samefile(output) or output.resolve() in path.resolve().parents:
            raise CurateError(f"{output}: is the narrow set itself; choose another name")
