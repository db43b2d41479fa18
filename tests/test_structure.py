"""Rules of structure that a reader relies on, checked in the source."""

import ast
import re
import subprocess
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("combine_prompts", "generate", "postprocess_dataset")
PRODUCT = ("common", *STEPS)
MOST_LINES = 350
MOST_LAYERS = 6
MOST_PARAMETERS = 6


@cache
def modules() -> dict[str, Path]:
    """{full name: path} of the product's modules."""
    paths = [path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_names(path: Path) -> set[str]:
    """Full names that a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def imports() -> dict[str, set[str]]:
    """{module: the product's modules it imports}."""
    known = modules()
    return {name: (imported_names(path) & known.keys()) - {name} for name, path in known.items()}


def package_of(module: str) -> str:
    """The folder a module lies in; an entry script counts as one of its own."""
    return module if is_script(modules()[module]) else module.rpartition(".")[0]


@cache
def is_script(path: Path) -> bool:
    """Whether the module's last statement is `if __name__ == "__main__":`."""
    body = tree_of(path).body
    last = ast.unparse(body[-1].test) if body and isinstance(body[-1], ast.If) else ""
    return last == "__name__ == '__main__'"


def layers_of(graph: dict[str, set[str]]) -> dict[str, int]:
    """{node: 1 + the highest layer below it}. CycleError, naming the circle, if there is one."""
    height: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        height[node] = 1 + max((height[other] for other in graph.get(node, ())), default=0)
    return height


def packages() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module, others in imports().items():
        graph.setdefault(package_of(module), set()).update(package_of(other) for other in others)
    return {package: others - {package} for package, others in graph.items()}


def test_no_circle_of_files() -> None:
    layers_of(imports())


def test_packages_form_at_most_six_layers() -> None:
    height = layers_of(packages())
    assert max(height.values()) <= MOST_LAYERS, sorted(height.items(), key=lambda item: item[1])


def test_a_circle_is_found() -> None:
    with pytest.raises(CycleError):
        layers_of({"a": {"b"}, "b": {"a"}})


def test_no_step_imports_another() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if module.split(".")[0] != other.split(".")[0] and other.split(".")[0] != "common"
    ]
    assert wrong == []


def test_nobody_imports_a_script() -> None:
    known = modules()
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if is_script(known[other])
    ]
    assert wrong == []


# What the job server itself has written into its database, and what orjson parses, is left out.
ITS_OWN = ("generate.server.ledger", "generate.server.storage", "generate.llms.account_tables")
PARSERS = {
    "common.json_text": ("json.loads",),
    "common.files": ("yaml.load",),
    "common.yaml_loader": ("yaml.load",),
    "generate.launch.run_file": ("yaml.load",),
}
RAISE_MORE = re.compile(
    r"(?<!or)(json\.loads?|json\.JSONDecoder|\.json(?=\(\))|yaml\.\w*load\w*)\("
)


def test_what_others_wrote_is_parsed_in_one_place() -> None:
    """json.loads and yaml raise RecursionError, which nobody expects of a parser."""
    wrong = {
        module: left
        for module, path in modules().items()
        if not module.startswith(ITS_OWN)
        and (left := set(RAISE_MORE.findall(path.read_text())) - {*PARSERS.get(module, ())})
    }
    assert wrong == {}


def test_links_are_followed_by_realpath() -> None:
    """Path.resolve() raises RuntimeError for a link that leads to itself (Python 3.11, 3.12)."""
    own = re.compile(r"__file__\)\.resolve\(|\[0\]\)\.resolve\(|found\[0\]\.resolve\(")
    wrong = [
        module for module, path in modules().items() if ".resolve(" in own.sub("", path.read_text())
    ]
    assert wrong == []


def test_numbers_of_a_command_line_have_bounds() -> None:
    bare = re.compile(r"[( ]type=(?:int|float)\b")
    wrong = [module for module, path in modules().items() if bare.search(path.read_text())]
    assert wrong == []


def sources() -> list[Path]:
    """The files that people read and change: git's, but for data, prose and generated ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    paths = [ROOT / name for name in names] or sorted(ROOT.rglob("*"))
    kinds = (".py", ".js", ".css", ".html")
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def test_the_root_holds_no_reports() -> None:
    """A script that is run in the checkout leaves its report there: no part of the project."""
    listed = subprocess.run(
        ["git", "ls-files", ":(glob)*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git checkout: nobody knows what belongs to the project")
    names = listed.stdout.splitlines()
    assert "README.md" in names
    assert [name for name in names if name.endswith((".json", ".parquet", ".jpg", ".html"))] == []


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources()}
    assert lengths
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES}
    assert long == {}


def public_functions(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(name, node) of a module's public functions and of its public classes' public methods."""
    found = []
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [
                (f"{node.name}.{method.name}", method)
                for method in node.body
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
    return [(name, node) for name, node in found if is_public(node.name)]


def is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__init__"


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = node.args
    named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in named if name not in ("self", "cls")]


def test_no_public_function_takes_too_many_parameters() -> None:
    long = {
        f"{module}.{name}": len(parameters(node))
        for module, path in modules().items()
        for name, node in public_functions(path)
        if len(parameters(node)) > MOST_PARAMETERS
    }
    assert long == {}


def test_every_public_function_is_annotated() -> None:
    bare = [
        f"{module}.{name}"
        for module, path in modules().items()
        for name, node in public_functions(path)
        if node.returns is None
        or any(a.annotation is None for a in node.args.args if a.arg not in ("self", "cls"))
    ]
    assert bare == []
