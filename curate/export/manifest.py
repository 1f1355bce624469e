"""An export's manifest: how it was made, which rows are safe, and all that makes it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import tokens
from curate.export.mix import notes, probabilities
from curate.export.outputs import Files
from curate.export.target import MANIFEST_BYTES, Target
from curate.selection.recipe import Recipe
from curate.selection.select import Selection
from curate.storage import documents


def make(
    corpus: Corpus,
    recipe: Recipe,
    wanted: int,
    chosen: Selection,
    files: Files,
    command: str | None,
) -> dict[str, Any]:
    """The manifest of an export; `wanted` is the recipe's budget."""
    mix = files.mix
    narrow, n_narrow, n_safe = mix.narrow, len(mix.narrow.rows), len(mix.safe)
    safe = chosen.rows.select(["example_id", "rank", "gap"]).to_pylist()
    return {
        "command": command,
        "curate": version("curate-gap"),
        "pyarrow": version("pyarrow"),
        "corpus": str(corpus.path),
        "recipe": asdict(recipe),
        "target": asdict(files.place.target),
        "settings": asdict(corpus.manifest.settings) if corpus.manifest.settings else None,
        "models": {name: asdict(entry) for name, entry in sorted(corpus.manifest.models.items())},
        "sources": corpus.manifest.sources,
        "narrow": {"path": recipe.into, "rows": n_narrow, "sha256": narrow.sha256}
        if recipe.into
        else None,
        "counts": {
            **chosen.counts(recipe, wanted),
            "safe": n_safe,
            "share_of_narrow": n_safe / n_narrow if n_narrow else None,
            "share_of_mix": n_safe / (n_narrow + n_safe),
        },
        "trained": tokens.trained(files.counter, mix) if n_narrow else None,
        "cut": {
            "gaps": list(chosen.cut) if chosen.cut else None,
            "noise": chosen.noise,
            "inside_noise": chosen.inside_noise,
        },
        "notes": notes(mix) if n_narrow else [],
        "output": _output(files),
        "safe": [{"line": at} | row for at, row in zip(mix.safe_lines, safe, strict=True)],
    }


def _output(files: Files) -> dict[str, Any]:
    place, mix = files.place, files.mix
    n_narrow, n_safe = len(mix.narrow.rows), len(mix.safe)
    apart = place.target.placement == "separate"
    return {
        "path": str(place.path),
        "format": place.format,
        "rows": n_narrow + n_safe,
        "safe_in": place.files[-1],
        "probabilities": list(probabilities(n_narrow, n_safe)) if apart else None,
        "files": files.sha256,
        "left_out": place.left_out.name if place.left_out.name in files.sha256 else None,
        "run": mix.trainer.run if mix.trainer else None,
    }


class _Narrow(BaseModel):
    sha256: str


class _Output(BaseModel):
    files: dict[str, str]
    left_out: str | None


class _Safe(BaseModel):
    example_id: str


class _Used(BaseModel):
    """What is used of an earlier manifest."""

    recipe: Recipe
    target: Target
    narrow: _Narrow | None
    notes: list[str]
    output: _Output
    safe: list[_Safe]


@dataclass(frozen=True)
class Earlier:
    """An earlier manifest, and the list of what it left out; None where the list is gone."""

    path: Path
    record: Mapping[str, Any]
    used: _Used
    left_out: Path | None

    @property
    def ids(self) -> list[str]:
        """The safe examples, best first."""
        return [row.example_id for row in self.used.safe]


def load(path: Path) -> Earlier:
    """Read an export's manifest.

    Raises:
        CurateError: it can't be read, or is none.
    """
    try:
        record = documents.load(path, MANIFEST_BYTES)
        used = _Used.model_validate(record)
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        why = str(error).splitlines()
        raise CurateError(f"{path}: not an export's manifest ({' '.join(why[:3])})") from None
    name = used.output.left_out
    # Beside the manifest; a name from a file is never more than a name.
    left_out = path.parent / Path(name).name if name else None
    return Earlier(path, record, used, left_out if left_out and left_out.is_file() else None)


def again(earlier: Earlier, files: Files) -> dict[str, Any]:
    """The manifest of the same files under another name.

    Raises:
        CurateError: they are not as many, or not the same bytes.
    """
    output, made = earlier.used.output, files.place.path
    recorded = dict(output.files)
    notes = list(earlier.used.notes)
    if output.left_out and not earlier.left_out:
        recorded.pop(output.left_out, None)
        notes.append(f"the list of what was left out is not beside {earlier.path}")
    if len(files.sha256) != len(recorded):
        raise CurateError(
            f"{made}: consists of {', '.join(files.sha256)}, where {earlier.path} records "
            f"{', '.join(recorded) or 'no file'}; another version of curate wrote it, or it was "
            "edited"
        )
    for expected, (name, sha256) in zip(recorded.values(), files.sha256.items(), strict=True):
        if sha256 != expected:
            raise CurateError(
                f"{made}: {name} has not the bytes that {earlier.path} records; another ending or "
                "another version of pyarrow writes the same rows differently"
            )
    return {**earlier.record, "notes": notes, "output": _output(files)}
