"""Coverage-guided fuzzing of the readers: every input ends in rows, skips, or a user's error.

    make fuzz SECONDS=300

The first byte chooses the format. What is found is written beside as `crash-*`; make a row of
`tests/hostile/test_inputs.py` of it. Parquet is left to Arrow's own fuzzers: their code is not
instrumented.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["curate"]):
    from curate.errors import CurateError
    from curate.reading import examples

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".csv.zst")
FOLDER = tempfile.TemporaryDirectory()
SEEDS = (
    b'\0{"prompt": "q", "response": "a"}\n{"messages": [{"role": "user", "content": "q"}]}\n',
    b'\1[{"instruction": "q", "input": "", "output": "a", "history": [["q", "a"]]}]',
    b'\2prompt,response\n"q ""x""\n",a\n',
    b"\3prompt\tresponse\nq\ta\n",
)


def one(data: bytes) -> None:
    """Read one input strictly and not, with a filter and without."""
    if not data:
        return
    path = Path(FOLDER.name) / f"x{KINDS[data[0] % len(KINDS)]}"
    path.write_bytes(data[1:])
    for options in ({}, {"strict": True}, {"where": "prompt <> 'x'"}):
        try:
            for good, bad in examples.read([str(path)], **options):
                good.validate(full=True)
                bad.validate(full=True)
        except CurateError as error:
            if "\n" in str(error):
                raise AssertionError("more than a line") from error


def main() -> None:
    """Run atheris with a corpus of seeds; its own options are on the command line."""
    seeds = Path(FOLDER.name) / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(SEEDS):
        (seeds / str(number)).write_bytes(seed)
    atheris.Setup([*sys.argv, str(seeds), "-max_len=4096", "-timeout=20"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
