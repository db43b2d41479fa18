"""The processors run as a user runs them, for the tests."""

import json

from tests.fakes.forked_script import forked


def run(script, *options, status=0):
    ended = forked(f"combine_prompts/{script}.py", *options)
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
