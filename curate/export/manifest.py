"""An export's manifest: how it was made, which rows are safe, and all that makes it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any

import orjson

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export.mix import notes, probabilities
from curate.export.outputs import Written
from curate.export.target import MANIFEST_BYTES, Target
from curate.reading.narrow import Narrow
from curate.selection.recipe import Recipe
from curate.storage import documents


@dataclass(frozen=True)
class Earlier:
    """What is taken from an earlier manifest to make its files again."""

    ids: list[str]
    into: str | None
    narrow_sha256: str | None
    target: Target
    seed: int
    sha256: dict[str, str]
    left_out: Path | None
    record: dict[str, Any]


def make(
    corpus: Corpus,
    recipe: Recipe,
    narrow: Narrow,
    written: Written,
    counts: Mapping[str, Any],
    cut: Mapping[str, Any],
    ranks: Sequence[int],
    gaps: Sequence[float],
) -> dict[str, Any]:
    """The manifest of an export; `counts` and `cut` are the selection's."""
    mix, place = written.mix, written.place
    n_narrow, n_safe = len(narrow.rows), len(mix.safe)
    ids = [example_id for example_id, _ in mix.safe]
    safe = zip(mix.safe_lines, ids, ranks, gaps, strict=True)
    return {
        "curate": version("curate"),
        "pyarrow": version("pyarrow"),
        "corpus": str(corpus.path),
        "recipe": asdict(recipe),
        "target": asdict(place.target),
        "settings": asdict(corpus.manifest.settings) if corpus.manifest.settings else None,
        "models": {name: asdict(entry) for name, entry in sorted(corpus.manifest.models.items())},
        "narrow": {"path": recipe.into, "rows": n_narrow, "sha256": narrow.sha256}
        if recipe.into
        else None,
        "counts": {
            **counts,
            "safe": n_safe,
            "share_of_narrow": n_safe / n_narrow if n_narrow else None,
            "share_of_mix": n_safe / (n_narrow + n_safe),
        },
        "trained": written.trained if n_narrow else None,
        "cut": dict(cut),
        "notes": notes(mix) if n_narrow else [],
        "output": _output(written),
        "safe": [
            {"line": line, "example_id": example_id, "rank": rank, "gap": gap}
            for line, example_id, rank, gap in safe
        ],
    }


def _output(written: Written) -> dict[str, Any]:
    place, mix = written.place, written.mix
    n_narrow, n_safe = len(mix.narrow.rows), len(mix.safe)
    apart = place.target.placement == "separate"
    return {
        "path": str(place.path),
        "format": place.format,
        "rows": n_narrow + n_safe,
        "safe_in": place.files[-1],
        "probabilities": list(probabilities(n_narrow, n_safe)) if apart else None,
        "files": dict(written.sha256),
        "left_out": _left_out(written),
        "run": mix.trainer.run if mix.trainer else None,
    }


def _left_out(written: Written) -> str | None:
    """The name of the list of what was left out, where there is one."""
    name = written.place.left_out.name
    return name if name in written.sha256 else None


def load(path: Path) -> Earlier:
    """Read an export's manifest.

    Raises:
        CurateError: it can't be read, or is none.
    """
    try:
        record = documents.load(path, MANIFEST_BYTES)
        orjson.dumps(record)  # as it will be: it takes fewer brackets in brackets than it reads
        if (why := _wrong(record)) is not None:
            raise CurateError(f"{path}: not an export's manifest ({why})")
        recipe, narrow, sha256 = record["recipe"], record["narrow"], record["output"]["files"]
        # Its last file, beside it; a name from a file is never more than a name.
        name = record["output"]["left_out"]
        left_out = path.parent / Path(name).name if name else None
        if left_out is None or not left_out.is_file():
            left_out = None
            sha256.pop(name, None)
        return Earlier(
            ids=[row["example_id"] for row in record["safe"]],
            into=recipe["into"],
            narrow_sha256=narrow["sha256"] if narrow else None,
            target=Target(**record["target"]),
            seed=recipe["seed"],
            sha256=sha256,
            left_out=left_out,
            record=record,
        )
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CurateError(f"{path}: not an export's manifest ({error})") from None


def _wrong(record: Any) -> str | None:
    """Which of the values that are used is not of its type."""
    recipe, narrow, output, target = (
        record[name] for name in ("recipe", "narrow", "output", "target")
    )
    used: list[tuple[str, object, type | UnionType]] = [
        ("recipe.into", recipe["into"], str | None),
        ("recipe.seed", recipe["seed"], int),
        ("narrow.sha256", narrow["sha256"] if narrow else None, str | None),
        *(("notes", note, str) for note in record["notes"]),
        ("output.left_out", output["left_out"], str | None),
        *(("output.files", value, str) for value in output["files"].values()),
        *((f"target.{name}", target[name], str | None) for name in ("format", "trainer")),
        ("target.placement", target["placement"], str),
        ("target.batch_size", target["batch_size"], int | None),
        *(("safe.example_id", row["example_id"], str) for row in record["safe"]),
    ]
    wrong = (name for name, value, kind in used if not isinstance(value, kind))
    return next((f"{name} is of another type" for name in wrong), None)


def again(earlier: Earlier, written: Written, path: Path) -> dict[str, Any]:
    """The manifest of the same files under another name.

    Raises:
        CurateError: they are not as many, or not the same bytes.
    """
    if len(written.sha256) != len(earlier.sha256):
        raise CurateError(
            f"{written.place.path}: consists of {', '.join(written.sha256)}, where {path} records "
            f"{', '.join(earlier.sha256) or 'no file'}; another version of curate "
            "wrote it, or it was edited"
        )
    files = zip(earlier.sha256.values(), written.sha256.items(), strict=True)
    for expected, (name, sha256) in files:
        if sha256 != expected:
            raise CurateError(
                f"{written.place.path}: {name} has not the bytes that {path} records; another "
                "ending or another version of pyarrow writes the same rows differently"
            )
    made = earlier.record | {"output": _output(written)}
    if earlier.record["output"]["left_out"] and not made["output"]["left_out"]:
        made["notes"] = [*made["notes"], f"the list of what was left out is not beside {path}"]
    return made
