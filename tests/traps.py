"""Inputs that nobody should be given, made anew for every test.

`INPUTS` holds, for each file name, what makes its bytes and what becomes of it: (examples, rows
skipped), or a part of the error for the file as a whole.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = b'{"prompt": "q", "response": "a"}\n'
CSV = b"prompt,response\nq,a\n"
Verdict = tuple[int, int] | str
INPUTS: dict[str, tuple[Callable[[], bytes], Verdict]] = {}


def _add(name: str, data: bytes | Callable[[], bytes], verdict: Verdict) -> None:
    assert name not in INPUTS
    INPUTS[name] = ((lambda: data) if isinstance(data, bytes) else data, verdict)


def _line(name: str, line: bytes, *, closed: bool = True) -> None:
    """One broken line between two good ones: it is skipped, in JSON Lines and in an array."""
    _add(f"line {name}.jsonl", GOOD + line + b"\n" + GOOD, (2, 1))
    if closed:
        _add(f"element {name}.json", b"[" + GOOD + b"," + line + b"," + GOOD + b"]", (2, 1))


def _fine(name: str, row: bytes) -> None:
    """One odd line between two good ones that is a row all the same."""
    _add(f"odd {name}.jsonl", GOOD + row + b"\n" + GOOD, (3, 0))


def _row(content: bytes) -> bytes:
    return b'{"prompt": "q", "response": ' + content + b"}"


def _messages(content: bytes) -> bytes:
    return b'{"messages": ' + content + b"}"


USER = b'{"role": "user", "content": "q"}'
ANSWER = b'{"role": "assistant", "content": "a"}'

# Bytes
_line("latin-1", _row(b'"K\xf6ln"'))
_line("surrogate as UTF-8", _row(b'"\xed\xa0\x80"'))
_line("raw NUL", _row(b'"a\x00b"'))
_line("escaped NUL", _row(rb'"a\u0000b"'))
_line("low surrogate", _row(rb'"\udc00"'))
_line("high surrogate", _row(rb'"\ud83d"'))
_fine("escaped pair", _row(rb'"\ud83d\ude00"'))
_fine("noncharacters", _row('"\ufffe\uffff\U0010ffff"'.encode()))
_fine("BOM in the text", _row('"\ufeffa"'.encode()))
_add("bom.jsonl", b"\xef\xbb\xbf" + GOOD, (1, 0))
_add("bom.csv", b"\xef\xbb\xbf" + CSV, (1, 0))
_add("two boms.jsonl", b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD + GOOD, (1, 1))
_add("utf-16.jsonl", GOOD.decode().encode("utf-16"), "UTF-16")
_add("utf-16 big.csv", CSV.decode().encode("utf-16-be"), "UTF-16")
_add("zeros.parquet", b"\0" * 5000, "can't be read")
_add("noise.jsonl", (bytes(range(200, 256)) + b"\n") * 5, (0, 5))

# Line ends
_add("mixed ends.jsonl", GOOD + GOOD[:-1] + b"\r\n\r\n\n" + GOOD[:-1], (3, 0))
_add("old mac.jsonl", GOOD.replace(b"\n", b"\r") * 2, (0, 1))
_add("mixed ends.csv", CSV + b"q,b\r\nq,c\rq,d", (4, 0))

# JSON
_line("nothing but open", b"{", closed=False)
_line("cut off", GOOD[:20], closed=False)
_line("a number", b"42")
_line("null", b"null")
_line("NaN", _row(b"NaN"))
_line("two values", _row(b'"a"') + b" " + _row(b'"b"'))
_line("deep arrays", _row(b"[" * 100_000 + b"]" * 100_000))
_line("deep objects", _row(b'{"a":' * 50_000 + b"1" + b"}" * 50_000))
_line("deep enough to parse", _row(b'"a", "x": ' + b"[" * 1000 + b"]" * 1000))
_line("a number of 100,000 digits", _row(b"9" * 100_000))
_fine("a huge integer elsewhere", _row(b'"a", "n": ' + b"9" * 300))
_fine("duplicate keys", b'{"prompt": "x", "prompt": "q", "response": "x", "response": "a"}')
_fine("a key like SQL", _row(b'"a", "\\"; drop table examples; --": 1'))
_fine("10,000 other columns", _row(b'"a"' + b"".join(b', "k%d": 1' % i for i in range(10_000))))

# What rows hold
_line("an array for the answer", _row(b"[[1, 2]]"))
_line("an object for the answer", _row(b'{"text": "a"}'))
_line("white space", _row('" \\n\\t\u3000"'.encode()))
_line("messages a number", _messages(b"3"))
_line("messages an object", _messages(b'{"role": "user"}'))
_line("messages of nothing", _messages(b"[]"))
_line("messages in broken text", _messages(rb'"[{\"role\": \"user\""'))
_line("a role that is a list", _messages(b'[{"role": ["user"], "content": "q"}, ' + ANSWER + b"]"))
_line(
    "a role that nests deeply",
    _messages(b'[{"role": ' + b"[" * 900 + b"]" * 900 + b', "content": "q"}, ' + ANSWER + b"]"),
)
_line("a history of threes", b'{"instruction": "q", "output": "a", "history": [[1, 2, 3]]}')
_fine("100,000 turns", _messages(b"[" + (USER + b",") * 99_999 + ANSWER + b"]"))
_fine("a megabyte of text", _row(b'"' + b"x " * 2**19 + b'"'))
_add("no known column.jsonl", b'{"a": 1}\n' * 3, "unknown format")
_add(
    "10,000 unknown columns.jsonl",
    b"{" + b",".join(b'"column %d": 1' % i for i in range(10_000)) + b"}\n",
    "(10000 in all)",
)

# Arrays
_add("open array.json", b"[" + GOOD, "not closed after 0 rows")
_add("open text.json", b"[" + GOOD + b', {"prompt": "q', "not closed after 1 rows")
_add("closed twice.json", b"[" + GOOD + b"]]", "something follows")
_add("commas.json", b"[,,,]", (0, 4))
_add("open brackets.json", b"[" * 200_000, "not closed")
_add("an object.json", b'{\n "rows": []\n}', "one JSON object")

# CSV
_add("lines in cells.csv", b'prompt,response\n"q\n\n""x""\r\n","a,b\n"\n', (1, 0))
_add("open quote.csv", CSV + b'q,"a\nq,b\nq,c\n', (1, 1))
_add("too few cells.csv", CSV + b"q\nq,b\n", (2, 1))
_add("NUL.csv", CSV + b"q,a\0b\nq,b\n", (2, 1))
_add("latin-1.csv", CSV + b"q,K\xf6ln\nq,b\n", (2, 1))
_add("latin-1 header.csv", b"prompt,r\xe9ponse\nq,a\n", "header")
_add("a header twice.csv", b"prompt,prompt\nq,a\n", "names a column twice")
_add("open header.csv", b'prompt,"response\nq,a\n', "header")
_add("header alone.csv", b"prompt,response\n", "no row")
_add("formulas.csv", CSV + b'q,=cmd|"/C calc"!A0\nq,@SUM(1)\n', (3, 0))
_add("a cell of 10 MB.csv", lambda: CSV + b"q," + b"x" * 10_000_000 + b"\n", (2, 0))
_add("100,000 cells.csv", lambda: CSV + b"," * 100_000 + b"\n" + CSV[16:], (2, 1))
_add("tabs.tsv", CSV.replace(b",", b"\t"), (1, 0))

# Nothing
for _kind in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"):
    _add(f"empty{_kind}", b"", "no row")
_add("empty array.json", b" [ ] ", "no row")

# Packed
_PACKED = gzip.compress(GOOD * 1000)
_ZST: bytes = pa.compress(GOOD * 1000, codec="zstd", asbytes=True)
_add("empty.jsonl.gz", b"", "no row")
_add("cut.jsonl.gz", _PACKED[:-9], "can't be read")
_add("cut.jsonl.zst", _ZST[:-3], "can't be read")
_add("flipped.jsonl.gz", _PACKED[:40] + b"\xff" + _PACKED[41:], "can't be read")
_add("noise after.jsonl.gz", _PACKED + b"noise", "can't be read")
_add("not packed.jsonl.gz", GOOD, "can't be read")
_add("packed twice.jsonl.gz", gzip.compress(_PACKED), (0, 1))


# Parquet
def _parquet(columns: dict[str, Any], **options: Any) -> Callable[[], bytes]:
    def made() -> bytes:
        sink = io.BytesIO()
        filled = {name: make() if callable(make) else make for name, make in columns.items()}
        pq.write_table(pa.table(filled), sink, **options)
        return sink.getvalue()

    return made


def _beside(name: str, values: Callable[[], pa.Array], verdict: Verdict) -> None:
    """Prompts and answers of two rows with one more column of an unexpected type."""
    texts = {"prompt": ["q", "q"], "response": ["a", "b"]}
    _add(f"beside {name}.parquet", _parquet(texts | {"x": values}), verdict)


_FAR = [0, 2**62]
_beside("dates far away", lambda: pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32()), (1, 1))
_beside("decimals", lambda: pa.array([None, 10**60], pa.decimal256(76)), (2, 0))
_beside("bytes", lambda: pa.array([b"\xff", b"\0"]), (2, 0))
_beside("maps", lambda: pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())), (2, 0))
_beside("lists in lists", lambda: pa.array([[[[]]], [[[1]]]]), (2, 0))
_add("numbers for texts.parquet", _parquet({"prompt": [1, 2], "response": [[1.0], []]}), (0, 2))
_add("bytes for texts.parquet", _parquet({"prompt": [b"q"], "response": [b"a"]}), (0, 1))
_add(
    "no UTF-8.parquet",
    _parquet(
        {
            "prompt": lambda: pa.array([b"q", b"\xff"], pa.binary()).view(pa.string()),
            "response": ["a", "b"],
        }
    ),
    (1, 1),
)
_add("no rows.parquet", _parquet({"prompt": lambda: pa.array([], pa.string())}), "no row")
_add("no columns.parquet", _parquet({}), "no row")
_GOOD_PARQUET = _parquet({"prompt": ["q"] * 500, "response": ["a"] * 500})
_add("cut.parquet", lambda: _GOOD_PARQUET()[:-1], "can't be read")
_add(
    "a footer too long.parquet",
    lambda: _GOOD_PARQUET()[:-8] + b"\xff\xff\xff\x7fPAR1",
    "can't be read",
)
_add("packed.parquet.gz", lambda: gzip.compress(_GOOD_PARQUET()), (500, 0))
_add("packed and cut.parquet.gz", lambda: gzip.compress(_GOOD_PARQUET())[:-9], "can't be read")
