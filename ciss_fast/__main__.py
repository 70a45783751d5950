"""``python -m ciss_fast``: the same as ``ciss-fast``."""

import sys

from ciss_fast.cli import main

sys.exit(main())
