"""`python -m minires`: the command line."""

import sys

from minires.cli import main

sys.exit(main())
