"""From a recipe to files: select, place, write; or recreate the files of a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyarrow import csv

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import manifest, outputs
from curate.export.target import Target, check
from curate.reading.addresses import at_commit, parse
from curate.reading.narrow import Narrow, ids_of
from curate.reading.narrow import read as read_narrow
from curate.reading.sources import resolve
from curate.selection.recipe import Recipe, budget
from curate.selection.select import LISTED, by_ids, listed, select
from curate.storage import parts
from curate.system import buckets
from curate.system.sql import readable_errors


@readable_errors()  # a damaged part may come up late
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
    """Write the selected examples, or with `recipe.into` the mix, and its manifest.

    `left_out` is a path for a CSV file of the excluded examples: the start of their texts, the rule
    and the reason. `dry_run` writes nothing else. `command` is recorded in the manifest.

    Returns:
        The manifest, as it was (or would be) written to `<output>.manifest.json` or the folder.

    Raises:
        CurateError: the output exists and `force` is not set, the narrow dataset has a broken row,
            nothing is eligible, or an argument is out of range. No file is left half written.
    """
    output, list_path = Path(output), Path(left_out) if left_out else None
    place = check(output, target, mixes=recipe.into is not None, force=force or dry_run)
    for path in (output, list_path):
        _keep_sources(path, recipe.into)
    if list_path:
        parts.refuse_existing(list_path, force)
    narrow = Narrow([])
    if recipe.into is not None:
        narrow = read_narrow(recipe.into, recipe.columns, recipe.layouts)
    wanted = budget(recipe, len(narrow.rows) if recipe.into else None)
    chosen = select(corpus, recipe, wanted, ids_of(narrow))
    if not chosen.rows.num_rows:
        reasons = ", ".join(f"{rule} {count}" for rule, count in chosen.left_by.items())
        raise CurateError(
            f"nothing to export. Of {chosen.ranked} ranked examples, rules excluded: {reasons}"
            + (f"; the best of the others has more than {wanted} tokens" if recipe.tokens else "")
        )
    if list_path:
        with parts.atomic(list_path) as temporary, csv.CSVWriter(temporary, LISTED) as writer:
            for table in listed(corpus, recipe, chosen.left_out):
                writer.write_table(table)
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
    """Recreate the files of a manifest, byte for byte, from the same corpus.

    Examples are looked up by their ids, so the corpus may have grown since. The narrow dataset is
    `into`, or where it was, or next to the manifest. `manifest` may also be an export's folder.

    Raises:
        CurateError: the manifest is broken, or a file that it names is missing or has changed.
    """
    earlier = manifest.load(record_path, into)
    recipe, expected = earlier.recipe, earlier.narrow
    place = check(output, earlier.target, mixes=recipe.into is not None, force=force)
    _keep_sources(output, recipe.into)
    narrow = Narrow([])
    if recipe.into is not None:
        commit = expected and expected.commit
        into = at_commit(recipe.into, commit) if commit else recipe.into
        narrow = read_narrow(into, recipe.columns, recipe.layouts)
        if expected is None or narrow.sha256 != expected.sha256:
            raise CurateError(f"{recipe.into}: has changed since {record_path} was written.")
    safe = by_ids(corpus, [row.example_id for row in earlier.safe])
    planned = outputs.plan(corpus, place, recipe.seed, narrow, safe)
    with outputs.writing(corpus, planned) as files:
        record = manifest.again(earlier, files)
        files.add_manifest(record)
    return record


def _keep_sources(output: Path | None, into: str | None) -> None:
    """Refuse, even with --force, to overwrite the narrow dataset."""
    if output is None or into is None:
        return
    address = buckets.address_of(output)
    if address and address in (source.name for source in resolve([into])):
        raise CurateError(f"{address}: this is the narrow dataset. Choose another output.")
    asked = parse(into)
    is_local = isinstance(asked, str) and "://" not in asked.removeprefix("file://")
    if not is_local or not output.exists():
        return
    for path in (Path(source.name) for source in resolve([into])):
        if path.samefile(output) or output.resolve() in path.resolve().parents:
            raise CurateError(f"{output}: this is the narrow dataset. Choose another output.")
