"""From a recipe to files: select, place, write; and the same files again from a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate import narrow as narrow_sets
from curate import outputs, records, selection, targets
from curate.corpus import Corpus
from curate.errors import CurateError
from curate.narrow import Narrow
from curate.outputs import Written
from curate.selection import Recipe
from curate.targets import Target


def export(
    corpus: Corpus,
    output: Path,
    recipe: Recipe,
    target: Target = Target(),  # noqa: B008 - frozen
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write a safe set, or with `recipe.into` the mix, its trainer's files and its manifest.

    Returns:
        The manifest, as it was written to `<output>.manifest.json` or into the folder.

    Raises:
        CurateError: the output exists and `force` is not set, the narrow set has a broken row,
            nothing is eligible, or an argument is out of its range. No file is left half written.
    """
    place = targets.check(output, target, mixes=recipe.into is not None, force=force)
    narrow = _read_narrow(recipe.into)
    wanted = selection.budget(recipe, len(narrow.rows) if recipe.into else None)
    chosen = selection.select(corpus, recipe, wanted)
    if not chosen.rows.num_rows:
        raise CurateError(
            f"nothing to export: of {chosen.ranked} ranked examples the filter left out "
            f"{chosen.left_by_where} and --refusals {recipe.refusals} {chosen.left_by_refusals}"
        )
    rows = chosen.rows
    safe = list(zip(rows["example_id"].to_pylist(), rows["messages"].to_pylist(), strict=True))

    def record(written: Written) -> dict[str, Any]:
        counts = {
            "ranked": chosen.ranked,
            "left_out_by_where": chosen.left_by_where,
            "left_out_by_refusals": chosen.left_by_refusals,
            "wanted": wanted,
        }
        cut = {
            "gaps": list(chosen.cut) if chosen.cut else None,
            "noise": chosen.noise,
            "inside_noise": chosen.inside_noise,
        }
        ranks, gaps = rows["rank"].to_pylist(), rows["gap"].to_pylist()
        return records.make(corpus, recipe, narrow, written, counts, cut, ranks, gaps)

    return outputs.write(corpus, place, recipe.seed, narrow, safe, record)


def export_again(
    corpus: Corpus, output: Path, record_path: Path, *, force: bool = False
) -> dict[str, Any]:
    """Make the files of an earlier manifest again, byte for byte, from the same corpus.

    The examples are taken by their ids, so it works although the corpus has grown since.

    Raises:
        CurateError: the manifest is broken, or what it names is gone or has changed.
    """
    earlier = records.load(record_path)
    place = targets.check(output, earlier.target, mixes=earlier.into is not None, force=force)
    narrow = _read_narrow(earlier.into)
    if earlier.into is not None and narrow.sha256 != earlier.narrow_sha256:
        raise CurateError(
            f"{earlier.into}: is not the narrow set of {record_path}: it changed since"
        )
    messages = selection.by_ids(corpus, earlier.ids)
    safe: Sequence[tuple[str, Any]] = list(zip(earlier.ids, messages, strict=True))
    return outputs.write(
        corpus,
        place,
        earlier.seed,
        narrow,
        safe,
        lambda written: records.again(earlier, written, record_path),
    )


def _read_narrow(into: str | None) -> Narrow:
    return Narrow([]) if into is None else narrow_sets.read(into)
