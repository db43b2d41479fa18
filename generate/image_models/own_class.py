"""Default steps, guidance and size of a --pipeline FILE.py:CLASS, without importing it.

    family_of_class("mine.py:Mine", "Tongyi-MAI/Z-Image-Turbo")

Steps, guidance and size are the defaults of its __call__, else those of a model that the table
knows, else None: nothing is passed, and null is recorded. The file may import torch, which a
submission does without; so its text is read.
"""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

from generate.image_models.model_family import Family
from generate.image_models.model_recipes import UNKNOWN, row_by_name


def family_of_class(pipeline: str, model: str) -> Family:
    """The row of a class; one that cannot be read has no defaults, and load_custom() says why."""
    path, _, name = pipeline.rpartition(":")
    try:
        classes = {
            node.name: node
            for node in ast.walk(ast.parse(Path(path).read_bytes()))
            if isinstance(node, ast.ClassDef)
        }
    except (OSError, SyntaxError, ValueError, RecursionError):
        classes = {}
    default = _defaults(name, classes)
    row = row_by_name(model) or replace(UNKNOWN, steps=None, guidance=None)
    size = default.get("height")
    steps, guidance = default.get("num_inference_steps"), default.get("guidance_scale")
    return replace(
        row,
        name="a class of your own",
        pipeline=name,
        size=size if type(size) is int and size > 0 else row.size,
        steps=steps if type(steps) is int and steps > 0 else row.steps,
        guidance=float(guidance) if isinstance(guidance, int | float) else row.guidance,
    )


def _defaults(name: str, classes: dict[str, ast.ClassDef]) -> dict[str, Any]:
    """{argument: default} of __call__, of the class or of a base in the same file."""
    seen: set[str] = set()
    while name in classes and name not in seen:
        seen.add(name)
        for node in classes[name].body:
            if isinstance(node, ast.FunctionDef) and node.name == "__call__":
                return _literals(node.args)
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
        name = next((base for base in bases if base in classes), "")
    return {}


def _literals(arguments: ast.arguments) -> dict[str, Any]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = arguments.defaults
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        *zip(positional[len(positional) - len(defaults) :], defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    found = {}
    for argument, default in pairs:
        if isinstance(default, ast.Constant):
            found[argument.arg] = default.value
    return found
