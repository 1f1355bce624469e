"""How long a report of a million examples takes, and how large it is: targets 60 s and 10 MB.

    python bench/report.py [EXAMPLES] [--corpus DIR]

Prints wall and CPU seconds, size and peak memory. The corpus is made (sql_corpus.py) unless DIR
holds one. CPU seconds are told too, because other processes on the machine move the wall's.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from sql_corpus import make

import curate


def main() -> None:
    """Make or open the corpus, write its report, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as made:
        folder = given.corpus or Path(made) / "corpus"
        corpus = curate.open(folder) if (folder / "curate.json").exists() else None
        corpus = corpus or make(folder, given.examples)
        page = Path(made) / "report.html"
        wall, cpu = time.perf_counter(), time.process_time()
        curate.report(corpus, page)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(
            f"wall {time.perf_counter() - wall:.1f} s, CPU {time.process_time() - cpu:.1f} s, "
            f"{page.stat().st_size / 1e6:.2f} MB, peak memory {peak:.2f} GiB"
        )


if __name__ == "__main__":
    main()
