"""What a corpus could not take: rows that could not be read, examples a model could not score."""

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
    """The parts of `skipped`: each reason once, and none for a row that was fixed since.

    Only hashes are held, some 24 bytes a row. `_drop`, killed between writing a part anew and
    removing the old one, leaves both: the view `skipped` counts their rows once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = duckdb.connect(config={"temp_directory": spill_folder()})
        self._connection.execute("create table seen (key ubigint, place ubigint)")
        self._connection.execute("create table met (place ubigint, used boolean)")  # in this run
        self._seed()

    def add(self, table: pa.Table) -> int:
        """Record what can't be used, each reason once; gives back how many are new."""
        self._connection.register("incoming", table)
        fresh = self._connection.sql(
            f"select distinct incoming.* from incoming anti join seen on {_KEY} = key "
            "order by source, row, example_id"
        ).to_arrow_table()
        if fresh.num_rows:
            parts.write_part(self._folder, fresh.cast(SKIPPED))
            self._connection.register("fresh", fresh)
            self._connection.execute(f"insert into seen select {_KEY}, {_PLACE} from fresh")
        self._connection.execute(f"insert into met select {_PLACE}, false from incoming")
        return int(fresh.num_rows)

    def note_read(self, examples: pa.Table) -> None:
        """Remember which of the rows that these examples come from were skipped before."""
        self._connection.register("incoming", examples)
        self._connection.execute(
            f"insert into met select place, true from (select {_PLACE} as place from incoming "
            f"union select {_WHOLE_FILE} from incoming) semi join seen using (place)"
        )

    def drop_mended(self) -> None:
        """After a reading: forget the rows that it could use and did not skip again."""
        mended = "select place from met group by place having bool_and(used)"
        if self._connection.sql(f"{mended} limit 1").fetchall():
            self._drop(f"model is null and {_PLACE} in ({mended})")
        self._connection.execute("delete from met")

    def forget(self, model: str) -> None:
        """Forget what a model could not score."""
        self._drop("model is not distinct from $model", model=model)

    def _drop(self, condition: str, **values: str) -> None:
        """Remove rows from the parts that hold them; a part that is emptied keeps its number."""
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
