"""``python -m osmotic``."""

import sys

from osmotic.cli.main import main

sys.exit(main())
