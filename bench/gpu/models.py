"""Random weights of a known shape for bench/gpu/run.sh: `python models.py SHAPE FOLDER`.

With four adapters, two of rank 1 and two of rank 32.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from scoring_shapes import family

RANKS = (1, 1, 32, 32)

if __name__ == "__main__":
    print(family(sys.argv[1], Path(sys.argv[2]), "bfloat16", RANKS))
