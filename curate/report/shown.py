"""Which export a report shows: one that was made, by its manifest, or the best tenth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from curate.corpus import queries
from curate.errors import CurateError
from curate.selection.recipe import Recipe
from curate.selection.select import select
from curate.storage import documents

if TYPE_CHECKING:
    from curate.corpus.corpus import Corpus

_BYTES = 2 << 30


@dataclass(frozen=True)
class Shown:
    """An export: its recipe, its rows best first, and how the others were excluded.

    `cut` is the gap of the last row and of the first one after it; where it is `inside_noise`, they
    differ by less than `noise` nats, and rounding could have swapped them. `manifest` is None for
    the default.
    """

    recipe: Recipe
    ids: list[str]
    left_out: dict[str, int]
    ranked: int
    cut: tuple[float, float] | None
    noise: float
    inside_noise: bool
    manifest: Path | None = None


def best_tenth(corpus: Corpus, ranked: int) -> Shown:
    """The default recipe over a tenth of the `ranked` examples."""
    top = queries.depth(ranked)
    recipe = Recipe(top=top)
    chosen = select(corpus, recipe, top)
    ids = chosen.rows["example_id"].to_pylist()
    cut = chosen.cut, chosen.noise, chosen.inside_noise
    return Shown(recipe, ids, chosen.left_by, chosen.ranked, *cut)


def exported(path: Path) -> Shown:
    """The export of a manifest, or of its folder.

    Raises:
        CurateError: it can't be read, or is none.
    """
    try:
        path = path / "manifest.json" if path.is_dir() else path
        record: dict[str, Any] = documents.load(path, _BYTES)
        counts, cut = record["counts"], record["cut"]
        return Shown(
            TypeAdapter(Recipe).validate_python(record["recipe"]),
            [row["example_id"] for row in record["safe"]],
            dict(counts["left_out"]),
            int(counts["ranked"]),
            tuple(cut["gaps"]) if cut["gaps"] else None,
            float(cut["noise"]),
            bool(cut["inside_noise"]),
            path,
        )
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise CurateError(f"{path}: not an export's manifest ({why})") from None
