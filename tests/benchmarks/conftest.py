"""pyarrow installs a package that is called benchmarks too: ours comes first, as it does for `python -m`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
