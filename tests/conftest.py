"""The scripts import their siblings by bare name, as `python folder/script.py` does; so do the tests."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch threads on two busy cores are several times slower than one
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent
for folder in ("combine_prompts", "generate", "postprocess_dataset", "tests/fakes"):
    sys.path.insert(0, str(ROOT / folder))
