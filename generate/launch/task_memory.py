"""Check --mem against the model's weights, which pass through a task's memory as it loads.

line = note("24g", weights_gib=31.4)      # "… --mem=36g", or None
"""

import math
import re

UNITS = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}  # GiB
BESIDE_GIB = 4  # Python with torch and diffusers, images on their way


def gib_of(mem: str) -> float | None:
    """GiB of a --mem of SLURM: megabytes, or with K, M, G, T; None: no limit, or unknown."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", mem.strip().upper())
    if not found or float(found[1]) == 0:  # 0: all of the node's memory
        return None
    return float(found[1]) * UNITS[found[2] or "M"]


def note(mem: str, weights_gib: float | None) -> str | None:
    """A line if the weights exceed the task's memory, which may kill it while loading; or None."""
    limit = gib_of(mem or "")
    if limit is None or weights_gib is None or weights_gib <= limit:
        return None
    return (
        f"note: {weights_gib:.1f} GiB of weights pass through a task's memory as it loads: "
        f"--mem={mem} may be too little, --mem={math.ceil(weights_gib + BESIDE_GIB)}g is enough"
    )
