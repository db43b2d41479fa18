"""README.md, docs/ and the other pages: short, with commands, paths, links and names that exist."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from common import __version__

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path for place in ("", "docs/", "examples/*/") for path in ROOT.glob(f"{place}*.md"))
SCRIPTS = re.compile(
    r"python3? (?:-\w )*(\S*(?:combine_prompts|generate|postprocess_dataset|datasets/prompts"
    r"|benchmarks|examples|tests)/\S+\.py)([^&|;`'\"#)]*)"
)
ROOMS = "common|combine_prompts|generate|postprocess_dataset|tests|benchmarks|examples|docs"
MADE_BY_USERS = {"generate/llm_backends.yaml", "tests/mutations/NAME.patch"}
ENTRY_POINTS = (
    "combine_prompts/process_*.py",
    "combine_prompts/combine.py",
    "generate/image_server.py",
    "generate/generate_images.py",
    "generate/llm_prompting.py",
    "postprocess_dataset/*_*.py",
    "postprocess_dataset/release.py",
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(page: Path) -> list[str]:
    """Lines of code blocks, each command on one line, and `spans`."""
    text = re.sub(r" \\\n\s*", " ", page.read_text())
    blocks = re.findall(r"^    .*$", text, re.M)
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", text)
    return [*blocks, *(line for block in fenced for line in block.splitlines()), *spans]


def called() -> list[tuple[str, str, tuple[str, ...]]]:
    """(page, script, its options) for every command that calls a script of this project."""
    found: dict[tuple[str, str], set[str]] = {}
    for page in PAGES:
        for line in code_of(page):
            # quoted text is no option, unless it is a command itself (sbatch --wrap "python …")
            line = re.sub(r"(?<==)?([\"'])(?:(?!\1|python ).)*\1", "TEXT", line)
            for script, words in SCRIPTS.findall(line):
                path = re.sub(r"^(?:\$UNIDISC_DIR|\$PWD|…)/", "", script)
                options = re.findall(r"(?<![\w-])--[a-z][\w-]*", words)
                found.setdefault((name_of(page), path), set()).update(options)
    return sorted((page, path, tuple(sorted(options))) for (page, path), options in found.items())


@cache
def known_to(script: Path) -> str:
    """What --help says; for scripts that are no entry points (some load torch), the source."""
    if not any(script in ROOT.glob(pattern) for pattern in ENTRY_POINTS):
        return script.read_text()
    shown = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_the_pages_name_every_entry_point():
    scripts = {path for pattern in ENTRY_POINTS for path in ROOT.glob(pattern)}
    scripts = {path for path in scripts if "\nif __name__ == " in path.read_text()}
    assert len(scripts) >= 11
    assert scripts <= {(ROOT / path).resolve() for _, path, _ in called()}


@pytest.mark.parametrize("page, script, options", called())
def test_the_script_and_its_options_exist(page, script, options):
    path = (ROOT / script).resolve()
    assert path.is_file()
    unknown = [o for o in options if not re.search(rf"(?<![\w-]){o}(?![\w-])", known_to(path))]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_make_targets_exist(page):
    targets = {word for line in code_of(page) for word in re.findall(r"(?:^|\s)make (\w+)", line)}
    makefile = (ROOT / "Makefile").read_text()
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.M)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_named_files_exist(page):
    """Paths of this project in `spans` and commands, test functions, and mutations."""
    text = page.read_text()
    words = [word for line in code_of(page) for word in line.split()]
    paths = {word for word in words if re.fullmatch(rf"(?:{ROOMS})/[\w./*-]+", word)}
    missing = [path for path in paths - MADE_BY_USERS if not any(ROOT.glob(path.rstrip("/")))]
    tests = "\n".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    for name in re.findall(r"`(test_\w+\*?)`", text):
        pattern = f"def {name[:-1]}" if name.endswith("*") else rf"def {name}\("
        missing += [] if re.search(pattern, tests) else [name]
    for name in re.findall(r"`(test_\w+\.py)`", text):
        missing += [] if any(ROOT.glob(f"tests/**/{name}")) else [name]
    for first, others in re.findall(r"`(guarantee_\d+)`((?:, `_\w+`)*)", text):
        for name in (first, *(first + other for other in re.findall(r"_\w+", others))):
            missing += [] if (ROOT / "tests/mutations" / f"{name}.patch").is_file() else [name]
    assert missing == []


def test_the_walks_name_functions_that_exist():
    """A walk's `name()` stands in the module that follows ("of `x.py`") or was named before."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Walk 1")[2]
    missing = []
    for step in re.split(r"^\d+\. ", text.partition("## The modules")[0], flags=re.M):
        module = ""
        spans = re.finditer(r"`([\w/.]+?)(\(\))?`(?=(?: of\s+`([\w/]+\.py)`)?)", step)
        for span, is_function, following in (found.groups() for found in spans):
            if span.endswith(".py"):
                module = span
            elif is_function:
                source = (ROOT / (following or module)).read_text()
                name = span.rpartition(".")[2]
                parts = [rf"class {span.partition('.')[0]}\b"] if "." in span else []
                parts.append(rf"def {name}\(")
                missing += [] if all(re.search(part, source) for part in parts) else [span]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_and_pictures_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = []
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_pages_are_short(page):
    lines = len(page.read_text().splitlines())
    assert lines <= (150 if page.name == "README.md" else 250)


def test_the_citation_names_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_published_command_lines_stand_to_the_letter():
    """Those of the published data set recipe, with UNIDISC_DIR = the checkout."""
    published = (
        "sbatch --job-name='image_server' --mem=16G --cpus-per-task=4 --nodelist=main-node "
        "--time=4320 --partition=general "
        '--wrap "python $UNIDISC_DIR/unidisc/datasets/prompts/image_server.py" '
        "--output=$UNIDISC_DIR/outputs/generate_images/image_server.out "
        "--error=$UNIDISC_DIR/outputs/generate_images/image_server.out",
        "python $UNIDISC_DIR/unidisc/datasets/prompts/image_server.py",
        "python $UNIDISC_DIR/unidisc/datasets/prompts/generate_images.py HPDv2.json "
        "--expected_samples_per_index=200 --num_workers=128 --num_chunks=1000 "
        "--max_chunk_size=512 --use_slurm --compile=True &",
        "tail -f -n1000 $UNIDISC_DIR/outputs/generate_images/image_server.out",
        "cd $UNIDISC_DIR/outputs/generate_images && /bin/ls -t | head -10 | xargs tail -n 100",
        'find $UNIDISC_DIR/outputs/generate_images/generated_images -type f -name "*.json" | wc -l',
        "python $UNIDISC_DIR/unidisc/datasets/preprocessing/unidisc_dataset/postprocess_dataset"
        "/convert_json_to_parquet.py /path/to/data /path/to/output.parquet",
        "python $UNIDISC_DIR/unidisc/datasets/preprocessing/unidisc_dataset/postprocess_dataset"
        "/convert_parquet_to_wds.py --parquet_file /path/to/parquet/file "
        "--base_dir /path/to/image/folder --output_dir /path/to/output/webdataset "
        "--num_workers=64",
    )
    lines = {line.strip() for line in (ROOT / "docs" / "slurm.md").read_text().splitlines()}
    assert [command for command in published if command not in lines] == []
