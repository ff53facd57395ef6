"""The family of networks is that of their own tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "nn"))
