"""``python -m cyborgs``."""

import sys

from cyborgs.cli import main

if __name__ == "__main__":
    sys.exit(main())
