"""combine.py run as a user runs it, for the tests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fakes.forked_script import ROOT, forked

COMBINE = ROOT / "combine_prompts" / "combine.py"
NOTHING_DROPPED = (
    "--language any --min_words 1 --min_chars 1 --profanity keep --sexual keep --hate keep"
)


def combine(
    folder: Path,
    files: dict[str, Any],
    *options: Any,
    status: int = 0,
    filtered: bool = False,
    anew: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """Write `files` {name: items} and combine all but those called exclude*.

    Returns (ended, combined, removed, report). Without the filters unless asked for. anew: by an
    interpreter of its own, with another hash seed.
    """
    for name, items in files.items():
        (folder / name).write_bytes(
            items if isinstance(items, bytes) else json.dumps(items, ensure_ascii=False).encode()
        )
    inputs = [folder / name for name in files if not name.startswith("exclude")]
    excluded = [folder / name for name in files if name.startswith("exclude")]
    output = folder / "out" / "combined.json"
    all_options = [
        *(["--exclude", *excluded] if excluded else []),
        *([] if filtered else NOTHING_DROPPED.split()),
        *options,
    ]
    words = [str(word) for word in (*inputs, "--output", output, *all_options)]
    if anew:
        command = [sys.executable, str(COMBINE), *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    else:
        ended = forked("combine_prompts/combine.py", *words)
    assert ended.returncode == status and "Traceback" not in ended.stderr, (
        ended.stdout + ended.stderr
    )
    if not output.exists():
        return ended, None, None, None
    combined, removed, report = (
        json.loads((output.parent / f"combined{end}.json").read_text())
        for end in ("", ".removed", ".report")
    )
    return ended, combined, removed, report
