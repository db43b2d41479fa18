"""The README's command lines name scripts and options that exist, and its pictures and links are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ENTRY_POINTS = (
    "combine_prompts/process_*.py",
    "combine_prompts/combine.py",
    "generate/image_server.py",
    "generate/generate_images.py",
    "generate/llm_prompting.py",
    "postprocess_dataset/convert_*.py",
)
COMMANDS = [
    line.strip()
    for line in re.sub(r" \\\n\s*", " ", README).split("\n")
    if re.search(r"\bpython (\S*/)?(\w+)/\w+\.py", line)
]


def used():
    """{script: options} of all command lines of the README."""
    found = {}
    for line in COMMANDS:
        for script, words in re.findall(
            r"python \S*?((?:combine_prompts|generate|postprocess_dataset)/\w+\.py)([^&|`'\"]*)",
            line,
        ):
            found.setdefault(script, set()).update(
                re.findall(r"(?<![\w-])--[a-z_-]+", words.split("#")[0])
            )
    return sorted(found.items())


def test_the_readme_names_every_entry_point():
    scripts = {
        str(path.relative_to(ROOT)) for pattern in ENTRY_POINTS for path in ROOT.glob(pattern)
    }
    assert scripts <= {script for script, _ in used()}


@pytest.mark.parametrize("script, options", used())
def test_the_options_exist(script, options):
    shown = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True
    ).stdout
    assert shown, script
    assert {
        option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", shown)
    } == set()


def test_the_pictures_and_links_are_there():
    missing = [
        target for target in re.findall(r"\]\(([^)#:]+)\)", README) if not (ROOT / target).exists()
    ]
    assert missing == []
