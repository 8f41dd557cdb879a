"""What importing the package adds to importing JAX and torch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile

from report import Row, Table, less_than

REPEATS = 8
BASE = "import jax, torch"
ADDED = {
    "import jaxtorch_bridge": "import jaxtorch_bridge",
    "from jaxtorch_bridge import jax_callable": "from jaxtorch_bridge import jax_callable",
}
_PROGRAM = """
import json, time
start = time.perf_counter()
import jax, torch
middle = time.perf_counter()
{added}
end = time.perf_counter()
print(json.dumps([end - start, end - middle]))
"""


def measure() -> list[Table]:
    """Minimum over fresh processes, the variants in turn."""
    programs = {BASE: "", **ADDED}
    whole = dict.fromkeys(programs, float("inf"))
    part = dict.fromkeys(programs, float("inf"))
    names = list(programs)
    shuffle = random.Random(0).shuffle
    with tempfile.TemporaryDirectory() as elsewhere:
        for _ in range(REPEATS):
            shuffle(names)
            for name in names:
                seconds, alone = _run(_PROGRAM.format(added=programs[name]), elsewhere)
                whole[name] = min(whole[name], seconds)
                part[name] = min(part[name], alone)
    rows = [Row(BASE, whole[BASE])]
    for name in ADDED:
        difference = whole[name] - whole[BASE]
        beside = {"added, s": part[name], "difference of minima, s": difference}
        targets = [less_than(part[name], 0.3, "s added")]
        rows.append(Row(f"{BASE}; {name}", whole[name], beside, targets))
    return [
        Table(
            f"Imports: {REPEATS} fresh processes each",
            "s (min)",
            rows,
            [
                "'added' is timed within one process, after jax and torch are in. The difference",
                "of two minima of seconds says little about tenths of one on a noisy machine.",
            ],
        )
    ]


def _run(program: str, elsewhere: str) -> tuple[float, float]:
    # Away from the checkout, so that the installed package is what is imported.
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=elsewhere,
    )
    seconds, alone = json.loads(done.stdout)
    return seconds, alone
