"""``python -m tinyedge`` is ``tinyedge``."""

import sys

from tinyedge.cli import main

sys.exit(main())
