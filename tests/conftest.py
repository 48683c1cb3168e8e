import os
import sys
from pathlib import Path

# Before torch loads OpenMP: spinning threads of one process starve those of another (see aimcore/run.py).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

sys.path.insert(0, str(Path(__file__).parent))
