"""An export's manifest: the recipe, the selected rows, and all that is needed to recreate it."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import tokens
from curate.export.mix import notes, probabilities
from curate.export.outputs import Files
from curate.export.target import Target
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
    n_narrow, n_safe = len(mix.narrow.rows), len(mix.safe)
    narrow = {"path": recipe.into, "rows": n_narrow, "sha256": mix.narrow.sha256}
    narrow |= {"commit": mix.narrow.commit} if mix.narrow.commit else {}
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
        "narrow": narrow if recipe.into else None,
        "composition": chosen.composition,
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
        "notes": notes(mix),
        "output": _output(files),
        "safe": [{"line": at} | row for at, row in zip(mix.safe_lines, safe, strict=True)],
    }


def _output(files: Files) -> dict[str, Any]:
    place, mix = files.place, files.mix
    n_narrow, n_safe = len(mix.narrow.rows), len(mix.safe)
    apart = place.target.placement == "separate"
    return {
        "path": str(place),
        "format": place.format,
        "rows": n_narrow + n_safe,
        "safe_in": place.files[-1],
        "probabilities": list(probabilities(n_narrow, n_safe)) if apart else None,
        "files": files.sha256,
        "run": mix.trainer.run if mix.trainer else None,
    }


class _Narrow(BaseModel):
    sha256: str
    commit: str | None = None


class _Output(BaseModel):
    files: dict[str, str]


class _Safe(BaseModel):
    example_id: str


class Earlier(BaseModel):
    """An earlier manifest: the fields that are used, and all of it as `record`."""

    path: Path
    record: dict[str, Any]
    recipe: Recipe
    target: Target
    narrow: _Narrow | None
    notes: list[str]
    output: _Output
    safe: list[_Safe]


def load(path: Path, into: str | None = None) -> Earlier:
    """Read the manifest of an export, by its path, folder or data; `into` is the narrow dataset.

    Raises:
        CurateError: it can't be read or isn't a manifest, or `into` is given although it has no
            narrow dataset.
    """
    try:
        path = documents.manifest_of(path)
        record = documents.load(path)
        earlier = Earlier.model_validate({**record, "path": path, "record": record})
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, TypeError) as error:
        why = str(error).splitlines()
        raise CurateError(f"{path}: not an export's manifest ({' '.join(why[:3])})") from None
    recipe = earlier.recipe
    if recipe.into is None or earlier.narrow is None:
        if into is not None:
            raise CurateError(f"--into {into}: {path} has no narrow dataset. Remove --into.")
        return earlier
    into = into or _near(recipe.into, path.parent)
    layouts = _near(recipe.layouts, path.parent) if recipe.layouts else None
    record["recipe"] |= {"into": into, "layouts": layouts}
    record["narrow"]["path"] = into
    return earlier.model_copy(update={"recipe": replace(recipe, into=into, layouts=layouts)})


def _near(name: str, folder: Path) -> str:
    """A path as recorded or, if it doesn't exist, that path or its last part in the folder."""
    places = Path(name), folder / name, folder / Path(name).name
    return next((str(place) for place in places if place.exists()), name)


def again(earlier: Earlier, files: Files) -> dict[str, Any]:
    """The manifest of the same files under another name.

    Raises:
        CurateError: the files differ.
    """
    if list(files.sha256.values()) != list(earlier.output.files.values()):
        raise CurateError(
            f"{files.place}: its files differ from those that {earlier.path} records. Another "
            "ending, or another version of curate or pyarrow, writes the same rows differently."
        )
    return {**earlier.record, "output": _output(files)}
