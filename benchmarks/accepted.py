"""How many captions end with an image that shows them, without and with --accept.

    python benchmarks/accepted.py [--quick]

The real client, server and files with the tiny model at its default steps, over captions of its
grammar, scored by examples/shape_score.py. Without --accept the first image of a caption would
stand; with it, up to 20 are drawn. Fails below 0.99.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.tiny_model import drawings

ROOT = Path(__file__).resolve().parent.parent
CAPTIONS = 100 if "--quick" in sys.argv else 500
TRIES = 20
AIM = 0.99


def main():
    rng = random.Random(20)
    captions = set()
    while len(captions) < CAPTIONS:
        captions.add(drawings.scene(rng)[0])
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "scenes.json"
        prompts.write_text(json.dumps(sorted(captions)))
        words = [
            prompts,
            *("--model", "tiny", "--augment_prompts=False", "--output_root", f"{folder}/out"),
            *("--scores", f"{ROOT}/examples/shape_score.py:ShapeScore"),
            *("--accept", "shape > 0.9", "--max_tries", TRIES),
        ]
        command = [sys.executable, ROOT / "generate" / "generate_images.py", *words]
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        found = (Path(folder) / "out" / "generated_images" / "scenes").glob("*/*.json")
        tries = [json.loads(path.read_bytes())["tries"] for path in found]
    first = sum(number == 1 for number in tries) / CAPTIONS
    share = len(tries) / CAPTIONS
    drawn = sum(tries) + TRIES * (CAPTIONS - len(tries))
    print(f"load {os.getloadavg()[0]:.1f}; {CAPTIONS} captions, {drawn} images drawn")
    print(f"{first:.3f} of the first images are accepted")
    print(f"{share:.3f} of the captions end with an accepted image (aim: {AIM})")
    return f"accepted: {share:.3f}, below {AIM}" if share < AIM else 0


if __name__ == "__main__":
    sys.exit(main())
