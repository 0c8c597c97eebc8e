"""`python -m pgrad` is the command line."""

import sys

from pgrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
