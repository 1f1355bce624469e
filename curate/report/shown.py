"""Which export a report shows: one that was made, by its manifest, or the best tenth."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    `cut` is the gap of the last row and of the first one after it; where they differ by less than
    `noise` nats, rounding could have swapped them. `manifest` is None for the default.
    """

    recipe: Recipe
    ids: list[str]
    left_out: dict[str, int]
    ranked: int
    cut: tuple[float, float] | None
    noise: float
    manifest: Path | None = None

    @property
    def inside_noise(self) -> bool:
        """Whether the cut falls between gaps that the dtype can't tell apart."""
        return self.cut is not None and abs(self.cut[0] - self.cut[1]) < self.noise


def best_tenth(corpus: Corpus, ranked: int) -> Shown:
    """The default recipe over a tenth of the `ranked` examples."""
    wanted = max(1, ranked // 10)
    recipe = Recipe(top=wanted)
    chosen = select(corpus, recipe, wanted)
    ids = chosen.rows["example_id"].to_pylist()
    return Shown(recipe, ids, chosen.left_by, chosen.ranked, chosen.cut, chosen.noise)


def exported(path: Path) -> Shown:
    """The export of a manifest.

    Raises:
        CurateError: it can't be read, or is none.
    """
    try:
        record: dict[str, Any] = documents.load(path, _BYTES)
        known = {field.name for field in fields(Recipe)}
        recipe = {name: value for name, value in record["recipe"].items() if name in known}
        recipe |= {name: tuple(recipe[name]) for name in ("hold_out", "decontaminate")}
        counts, cut = record["counts"], record["cut"]
        return Shown(
            Recipe(**recipe),
            [row["example_id"] for row in record["safe"]],
            dict(counts["left_out"]),
            int(counts["ranked"]),
            tuple(cut["gaps"]) if cut["gaps"] else None,
            float(cut["noise"]),
            path,
        )
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CurateError(f"{path}: not an export's manifest ({error})") from None
