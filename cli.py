"""Runs the command line from a checkout: `python cli.py --help`. The app is `curate/cli/app.py`.

An installed copy has the command `curate`; a top-level module called `cli` would get in the way
of other people's.
"""

from curate.cli.app import main

if __name__ == "__main__":
    main()
