"""From a recipe to files: select, place, write; and the same files again from a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyarrow import csv

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import manifest, outputs
from curate.export.target import Target, check
from curate.reading.addresses import at_commit
from curate.reading.narrow import ids_of, read_if_any
from curate.reading.sources import resolve
from curate.selection.recipe import Recipe, budget
from curate.selection.select import LISTED, Selection, by_ids, listed, select
from curate.storage import parts
from curate.system.sql import readable_errors


@readable_errors()  # a damaged part may be met late
def export(
    corpus: Corpus,
    output: str | Path,
    recipe: Recipe,
    target: Target = Target(),  # noqa: B008 - frozen
    *,
    left_out: str | Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    command: str | None = None,
) -> dict[str, Any]:
    """Write a safe set, or with `recipe.into` the mix, its trainer's files and its manifest.

    `left_out` names a CSV file for the rows that were met and not taken: the start of their texts,
    the rule and why. `dry_run` writes that alone. `command` is what the user typed, for the
    manifest.

    Returns:
        The manifest, as it was written to `<output>.manifest.json` or into the folder, or would be.

    Raises:
        CurateError: the output exists and `force` is not set, the narrow set has a broken row,
            nothing is eligible, or an argument is out of its range. No file is left half written.
    """
    output, list_path = Path(output), Path(left_out) if left_out else None
    place = check(output, target, mixes=recipe.into is not None, force=force or dry_run)
    for path in (output, list_path):
        _keep_sources(path, recipe.into)
    if list_path:
        parts.refuse_special(list_path)
        if list_path.exists() and not force:
            raise CurateError(f"{list_path}: exists; choose another name, or --force to replace it")
    narrow = read_if_any(recipe.into, recipe.columns, recipe.layouts)
    wanted = budget(recipe, len(narrow.rows) if recipe.into else None)
    chosen = select(corpus, recipe, wanted, ids_of(narrow))
    if not chosen.rows.num_rows:
        reasons = ", ".join(f"{rule} {count}" for rule, count in chosen.left_by.items())
        raise CurateError(
            f"nothing to export: of {chosen.ranked} ranked examples these rules left out: {reasons}"
            + (f"; the best of the others has more than {wanted} tokens" if recipe.tokens else "")
        )
    if list_path:
        _write_list(corpus, recipe, chosen, list_path)
    planned = outputs.plan(corpus, place, recipe.seed, narrow, chosen.rows)
    if dry_run:
        return manifest.make(corpus, recipe, wanted, chosen, planned, command)
    with outputs.writing(corpus, planned) as files:
        record = manifest.make(corpus, recipe, wanted, chosen, files, command)
        files.add_manifest(record)
    return record


@readable_errors()
def export_again(
    corpus: Corpus, output: Path, record_path: Path, *, into: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Make the files of an earlier manifest again, byte for byte, from the same corpus.

    The examples are taken by their ids, so it works although the corpus has grown since. The narrow
    set is `into`, or where it was, or beside the manifest. An export's folder stands for its
    manifest.

    Raises:
        CurateError: the manifest is broken, or what it names is gone or has changed.
    """
    earlier = manifest.load(record_path, into)
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
    planned = outputs.plan(corpus, place, recipe.seed, narrow, safe)
    with outputs.writing(corpus, planned) as files:
        record = manifest.again(earlier, files)
        files.add_manifest(record)
    return record


def _write_list(corpus: Corpus, recipe: Recipe, chosen: Selection, path: Path) -> None:
    """Write what was met and not taken as CSV, whole or not at all."""
    with parts.atomic(path) as temporary, csv.CSVWriter(temporary, LISTED) as writer:
        for table in listed(corpus, recipe, chosen.left_out):
            writer.write_table(table)


def _keep_sources(output: Path | None, into: str | None) -> None:
    """Refuse, also with --force, to write over the narrow set that the mix is made of."""
    if output is None or into is None or "://" in into or not output.exists():
        return
    for path in (Path(source.name) for source in resolve([into])):
        if path.samefile(output) or output.resolve() in path.resolve().parents:
            raise CurateError(f"{output}: is the narrow set itself; choose another name")
