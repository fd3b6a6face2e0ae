"""``python -m fastpose``: what ``torchrun -m fastpose train ...`` starts on every rank."""

import sys

from fastpose.cli import main

if __name__ == "__main__":
    sys.exit(main())
