"""Rows that could not be read, and examples that a model could not score."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.views import read_parquet
from curate.storage import parts
from curate.storage.schema import SKIPPED
from curate.system.sql import readable_errors, spill_folder

_KEY = "hash(source, row, example_id, model, reason)"
_PLACE = "hash(source, row)"
_WHOLE_FILE = "hash(source, null::bigint)"  # a file that could not be read has no row


class Skips:
    """The parts of `skipped`: each reason once, and none for rows that have been fixed since.

    Only hashes are in memory, about 24 bytes per row. If `_drop` is killed between rewriting a part
    and removing the old one, both stay, and the view `skipped` counts their rows once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = duckdb.connect(config={"temp_directory": spill_folder()})
        self._connection.execute("create table seen (key ubigint, place ubigint)")
        self._connection.execute("create table visited (place ubigint, used boolean)")
        self._seed()

    def add(self, table: pa.Table) -> int:
        """Record rows that can't be used, each reason once; return how many are new."""
        self._connection.register("incoming", table)
        fresh = self._connection.sql(
            f"select distinct incoming.* from incoming anti join seen on {_KEY} = key "
            "order by source, row, example_id"
        ).to_arrow_table()
        if fresh.num_rows:
            parts.write_part(self._folder, fresh.cast(SKIPPED))
            self._connection.register("fresh", fresh)
            self._connection.execute(f"insert into seen select {_KEY}, {_PLACE} from fresh")
        self._connection.execute(f"insert into visited select {_PLACE}, false from incoming")
        return int(fresh.num_rows)

    def note_read(self, examples: pa.Table) -> None:
        """Remember which rows of these examples were skipped in an earlier run."""
        self._connection.register("incoming", examples)
        self._connection.execute(
            f"insert into visited select place, true from (select {_PLACE} as place from incoming "
            f"union select {_WHOLE_FILE} from incoming) semi join seen using (place)"
        )

    def drop_fixed(self) -> None:
        """After reading, forget the rows that could be used this time."""
        usable = "select place from visited group by place having bool_and(used)"
        if self._connection.sql(f"{usable} limit 1").fetchall():
            self._drop(f"model is null and {_PLACE} in ({usable})")
        self._connection.execute("delete from visited")

    def forget(self, model: str) -> None:
        """Forget the examples that a model could not score."""
        self._drop("model is not distinct from $model", model=model)

    def _drop(self, condition: str, **values: str) -> None:
        """Remove rows from their parts; an emptied part keeps its number."""
        for part in parts.list_parts(self._folder):
            rows = pq.read_table(part)
            self._connection.register("rows", rows)
            query = f"select * from rows where not ({condition})"
            kept = self._connection.sql(query, params=values).to_arrow_table()
            if kept.num_rows < rows.num_rows:
                parts.rewrite_part(part, kept.cast(SKIPPED))
        self._connection.execute("delete from seen")
        self._seed()

    def _seed(self) -> None:
        if paths := parts.list_parts(self._folder):
            with readable_errors():
                self._connection.execute(
                    f"insert into seen select {_KEY}, {_PLACE} from {read_parquet(paths)}"
                )
