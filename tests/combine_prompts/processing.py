"""The processors run as a user runs them, for the tests."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def run(script, *options, status=0):
    ended = subprocess.run(
        [sys.executable, ROOT / "combine_prompts" / f"{script}.py", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def process(source, input, output, *options, status=0):
    ended = run(
        f"process_{source}",
        "--input",
        *(input if isinstance(input, list) else [input]),
        "--output",
        output,
        *options,
        status=status,
    )
    return ended, texts_of(output) if output.exists() else None


def texts_of(output):
    """The prompts of a file whose items are strings or objects."""
    items = json.loads(output.read_text())
    return [item if isinstance(item, str) else item["prompt"] for item in items]


def counts(ended):
    """The printed table as a dict."""
    return {
        line.strip().rsplit(None, 1)[0].strip(): int(line.rsplit(None, 1)[1].replace(",", ""))
        for line in ended.stdout.splitlines()
        if line.startswith("  ")
    }
