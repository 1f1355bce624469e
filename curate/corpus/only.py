"""A user's `--only`: the examples of a corpus for which an SQL condition holds."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from curate.corpus import refusals
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.reading.where import check_condition, first_line
from curate.system.sql import readable_errors, short_type, shown_columns


@readable_errors()  # a damaged part may come up late
def chosen(corpus: Corpus, only: str, over: Sequence[str]) -> pa.Table:
    """The `example_id`s for which a condition over `examples` and `ranks` holds.

    The gaps are those of the misaligned models `over`, and null for examples that one of these
    lacks; without any of them there are no gaps.

    Raises:
        CurateError: it isn't a condition, or names a column that isn't there.
    """
    cursor = corpus.connection.cursor()
    refusals.define(cursor, only)
    check_condition(cursor, only, "--only")
    rows = "select hex_id(key) as example_id, * from example_rows"
    values = {}
    if over:
        values["hold_out"] = [name for name in corpus.manifest.misaligned if name not in over]
        rows += (
            " left join (select * exclude (example_id, is_refusal, n_bytes) "
            "from ranks(hold_out := $hold_out)) using (key)"
        )
    try:
        asked = cursor.sql(f"select example_id, ({only}\n) as holds from ({rows})", params=values)
    except (duckdb.BinderException, duckdb.ConversionException) as error:
        known = shown_columns(cursor.sql(f"{rows} limit 0", params=values))
        hint = "" if over else " No misaligned model has scored yet: there are no gaps."
        raise CurateError(
            f"--only {only!r}: {first_line(error)}{hint} The columns are: {known}."
        ) from None
    if (kind := short_type(asked.types[1])) != "boolean":
        raise CurateError(f"--only {only!r}: isn't a condition: its value is of type {kind}")
    return asked.filter("holds").project("example_id").distinct().to_arrow_table()
