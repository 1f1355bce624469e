"""Put results into the project: `python -m bench.efficacy.publish OUTPUT [--model smollm2]`.

results.csv, rows.parquet, seen.csv and data.json (numbers, no texts) go beside this module, the
plots to docs/efficacy/, the tables between the marks of docs/efficacy-details.md. Those of the real
chat model go to smollm2/ beside this module and to docs/efficacy-real.md.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.efficacy.results import FILES

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
_MARKS = re.compile(r"(<!-- tables -->\n).*?(<!-- /tables -->)", re.S)


PLACES = {
    "demo": (HERE, DOCS / "efficacy-details.md"),
    "smollm2": (HERE / "smollm2", DOCS / "efficacy-real.md"),
}


def main(
    output: Annotated[Path, typer.Argument(help="The experiment's folder.")],
    model: Annotated[Literal["demo", "smollm2"], typer.Option(help="Whose they are.")] = "demo",
) -> None:
    """Copy numbers and plots, and fill the page's tables."""
    folder, page = PLACES[model]
    folder.mkdir(exist_ok=True)
    for name in (*FILES, "data.json"):
        shutil.copyfile(output / name, folder / name)
    (DOCS / "efficacy").mkdir(exist_ok=True)
    for plot in (output / "plots").glob("*"):
        shutil.copyfile(plot, DOCS / "efficacy" / plot.name)
    tables = (output / "tables.md").read_text(encoding="utf-8")
    filled = _MARKS.sub(lambda found: found[1] + tables + found[2], page.read_text("utf-8"))
    page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
