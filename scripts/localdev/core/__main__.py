"""`python -m localdev.core`: the words of scripts/core."""

import sys

from localdev.core.cli import main

sys.exit(main())
