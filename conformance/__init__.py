"""Torch's own database of operators, called from JAX in every way and compared with torch.

``make conformance`` goes over all of it and writes docs/conformance.md; ``tests/conformance`` goes
over a fixed part.
"""

import sys
from pathlib import Path

# For comparing.py, by which the tests compare results as well.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
