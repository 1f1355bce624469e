"""From a recipe to files: select, place, write, and the manifest that makes the same file again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from curate import examples, mixing, parts, selection
from curate.corpus import Corpus
from curate.errors import CurateError
from curate.formats import messages
from curate.selection import Recipe, Selection

MANIFEST_SUFFIX = ".manifest.json"

Conversation = list[dict[str, str]]


def export(corpus: Corpus, output: Path, recipe: Recipe, *, force: bool = False) -> dict[str, Any]:
    """Write a safe set, or with `recipe.into` the mix, and its manifest beside it.

    Returns:
        The manifest, as it was written to `<output>.manifest.json`.

    Raises:
        CurateError: the output exists and `force` is not set, the narrow set has a broken row,
            nothing is eligible, or an argument is out of its range. No file is left half written.
    """
    write = _check_output(output, force)
    narrow = _read_narrow(recipe.into)
    wanted = selection.budget(recipe, len(narrow) if narrow is not None else None)
    chosen = selection.select(corpus, recipe, wanted)
    if not chosen.rows.num_rows:
        raise CurateError(
            f"nothing to export: of {chosen.ranked} ranked examples the filter left out "
            f"{chosen.left_by_where} and --refusals {recipe.refusals} {chosen.left_by_refusals}"
        )
    safe = chosen.rows["messages"].to_pylist()
    rows, lines = _mix(narrow, safe)
    parts.write_with(output, lambda path: write(rows, path))
    record = _manifest(corpus, output, recipe, chosen, wanted, narrow, lines)
    _write_manifest(output, record)
    return record


def export_again(
    corpus: Corpus, output: Path, record_path: Path, *, force: bool = False
) -> dict[str, Any]:
    """Make the file of an earlier manifest again, byte for byte, from the same corpus.

    The examples are taken by their ids, so it works although the corpus has grown since.

    Raises:
        CurateError: the manifest is broken, or what it names is gone or has changed.
    """
    write = _check_output(output, force)
    record = _load_manifest(record_path)
    try:
        ids = [row["example_id"] for row in record["safe"]]
        into, expected = record["recipe"]["into"], record["output"]["sha256"]
        narrow_hash = record["narrow"]["sha256"] if record["narrow"] else None
    except (KeyError, TypeError) as error:
        raise CurateError(f"{record_path}: not an export's manifest ({error})") from None
    narrow = _read_narrow(into)
    if into is not None and _sha256(Path(into)) != narrow_hash:
        raise CurateError(f"{into}: is not the narrow set of {record_path}: it changed since")
    rows, _ = _mix(narrow, selection.by_ids(corpus, ids))
    parts.write_with(output, lambda path: write(rows, path))
    if _sha256(output) != expected:
        raise CurateError(
            f"{output}: written, but not the same bytes as {record_path} records; another ending "
            "or another version of pyarrow writes the same rows differently"
        )
    record = record | {"output": record["output"] | {"path": str(output)}}
    _write_manifest(output, record)
    return record


def _check_output(output: Path, force: bool) -> Any:
    write = messages.writer_for(output)
    if output.is_dir():
        raise CurateError(f"{output}: is a folder; name a file")
    if output.exists() and not force:
        raise CurateError(f"{output}: exists; choose another name, or --force to replace it")
    return write


def _read_narrow(into: str | None) -> list[Conversation] | None:
    if into is None:
        return None
    rows = [conversation for _, conversation in examples.conversations(into)]
    if not rows:
        raise CurateError(f"{into}: the narrow set has no rows")
    return rows


def _mix(
    narrow: Sequence[Conversation] | None, safe: Sequence[Conversation]
) -> tuple[list[Conversation], list[int]]:
    """The rows in training order, and at which of them (from 1) each safe row stands."""
    if narrow is None:
        return list(safe), list(range(1, len(safe) + 1))
    order = list(mixing.place_evenly(len(narrow), len(safe)))
    rows = [safe[index] if is_safe else narrow[index] for is_safe, index in order]
    return rows, [line for line, (is_safe, _) in enumerate(order, 1) if is_safe]


def _manifest(
    corpus: Corpus,
    output: Path,
    recipe: Recipe,
    chosen: Selection,
    wanted: int,
    narrow: Sequence[Conversation] | None,
    lines: Sequence[int],
) -> dict[str, Any]:
    taken = chosen.rows.num_rows
    n_narrow = len(narrow) if narrow is not None else 0
    safe = zip(
        lines,
        chosen.rows["example_id"].to_pylist(),
        chosen.rows["rank"].to_pylist(),
        chosen.rows["gap"].to_pylist(),
        strict=True,
    )
    return {
        "curate": version("curate"),
        "pyarrow": version("pyarrow"),
        "corpus": str(corpus.path),
        "recipe": asdict(recipe),
        "settings": asdict(corpus.manifest.settings) if corpus.manifest.settings else None,
        "models": {name: asdict(entry) for name, entry in sorted(corpus.manifest.models.items())},
        "narrow": {"path": recipe.into, "rows": n_narrow, "sha256": _sha256(Path(recipe.into))}
        if recipe.into
        else None,
        "counts": {
            "ranked": chosen.ranked,
            "left_out_by_where": chosen.left_by_where,
            "left_out_by_refusals": chosen.left_by_refusals,
            "wanted": wanted,
            "safe": taken,
            "share_of_narrow": taken / n_narrow if n_narrow else None,
            "share_of_mix": taken / (n_narrow + taken),
        },
        "cut": {
            "gaps": list(chosen.cut) if chosen.cut else None,
            "noise": chosen.noise,
            "inside_noise": chosen.inside_noise,
        },
        "output": {
            "path": str(output),
            "format": "messages",
            "rows": n_narrow + taken,
            "sha256": _sha256(output),
        },
        "safe": [
            {"line": line, "example_id": example_id, "rank": rank, "gap": gap}
            for line, example_id, rank, gap in safe
        ],
    }


def _write_manifest(output: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    parts.write_text(output.with_name(output.name + MANIFEST_SUFFIX), text)


def _load_manifest(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise CurateError(f"{path}: not an export's manifest ({error})") from None
    if not isinstance(record, dict):
        raise CurateError(f"{path}: not an export's manifest")
    return record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
