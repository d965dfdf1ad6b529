"""`python -m clearseek`, the form that torchrun starts."""

import sys

from clearseek.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
