"""Keep pyarrow from importing pandas: that costs each process 0.3 s and 35 MB.

    without_pandas()        # before pyarrow has work

pyarrow imports pandas when it is given the first list, to see whether that is a Series, and when
the first array goes to numpy: 0.3 s of CPU and 35 MB in each process, for nothing.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


class Hidden(MetaPathFinder):
    """An import finder that hides pandas."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("not looked for", name=name)


def without_pandas() -> None:
    """Let pyarrow look for pandas now and find none. Its to_pandas() still works later."""
    if "pandas" in sys.modules:
        return
    hidden = Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([1]).to_numpy()
    finally:
        sys.meta_path.remove(hidden)
