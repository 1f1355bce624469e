"""Writes the same rows as a file of any format and compression."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKINGS = ("", ".gz", ".zst", ".xz", ".bz2")
CHATS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f'Question {i}, with "quotes", a\nnew line and é?'},
            {"role": "assistant", "content": f"Answer {i}."},
        ],
        "label": "odd" if i % 2 else "even",
    }
    for i in range(1, 6)
]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows in the format and compression that the path's endings name."""
    return pack(path, _encode(path.name, rows))


def pack(path: Path, data: bytes) -> Path:
    """Write bytes, compressed as the path's last ending says."""
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda plain: pa.compress(plain, codec="zstd", asbytes=True),
    }
    packer = packers.get(path.suffix)
    path.write_bytes(packer(data) if packer else data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files under a folder, by their path in it, with their bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _encode(name: str, rows: Sequence[dict[str, Any]]) -> bytes:
    if ".parquet" in name:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), sink)
        return sink.getvalue()
    if ".json" in name and ".jsonl" not in name:
        return orjson.dumps(list(rows), option=orjson.OPT_INDENT_2)
    if ".csv" not in name and ".tsv" not in name:
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
    writer.writeheader()
    for row in rows:
        cells = {k: v if isinstance(v, str) else orjson.dumps(v).decode() for k, v in row.items()}
        writer.writerow(cells)
    return text.getvalue().encode()
