"""How every evaluation row changed in every run, as one file: all tables can be made from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.efficacy.measures import Changes
from bench.efficacy.plan import ARMS, REAL, Run
from bench.efficacy.running import write_rows


def write(path: Path, found: Iterable[Changes]) -> None:
    """Write every evaluation row's change in every run, as Parquet: numbers, no texts."""
    tables = [
        pa.table(
            {
                "domain": [changes.run.domain] * len(values),
                "arm": [changes.run.arm.name] * len(values),
                "seed": pa.array([changes.run.seed] * len(values), pa.int32()),
                "set": [name] * len(values),
                "row": pa.array(range(len(values)), pa.int32()),
                "change": pa.array(values, pa.float32()),
            }
        )
        for changes in found
        for name, values in sorted(changes.by_set.items())
    ]
    write_rows(path, pa.concat_tables(tables))


def read(path: Path) -> list[Changes]:
    """Read what `write` wrote."""
    arms = {arm.name: arm for arm in (*ARMS, *REAL)}
    query = """
        select domain, arm, seed, "set", list(change::double order by row)
        from read_parquet($path) group by all order by all
    """
    by_run: dict[tuple[str, str, int], dict[str, npt.NDArray[np.float64]]] = {}
    for domain, arm, seed, name, values in duckdb.execute(query, {"path": str(path)}).fetchall():
        by_run.setdefault((domain, arm, seed), {})[name] = np.array(values)
    return [
        Changes(Run(domain, arms[arm], seed), sets) for (domain, arm, seed), sets in by_run.items()
    ]
