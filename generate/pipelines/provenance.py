"""What an image was generated with, for its JSON; and the comparison with the definition.

facts = facts_of(pipe, settings, left_out)     # {"scheduler": "FlowMatchEuler…", …}
check(definition, pipeline, allow_mixed=False)
"""

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from common.command_line import UserError
from generate.image_models import lora
from generate.image_models.model_commit import commit_of
from generate.image_models.model_recipes import family_of, hub_config, model_index
from generate.pipelines.pipeline import GeneratorSettings, Pipeline

COMPARED = (
    "dtype",
    "without_t5",
    "model_commit",
    "scheduler",
    "libraries",
    "quantize",
    "quantize_args",
    "attention",
)
NONE_SAYS = ("quantize", "attention")  # a definition's null means: none of it, not: not known
NATIVE = "native"  # the attention that torch chooses


def facts_of(pipe: Any, settings: GeneratorSettings, left_out: Iterable[str]) -> dict[str, Any]:
    """Fields of a JSON: what may differ between two workers with the same command.

    Whoever loads the pipeline adds what it chose for it: attention, offloading, VAE slicing.
    left_out: components of the model that were not loaded.
    """
    return {
        "model_commit": commit_of(settings.model, settings.revision),
        "left_out": sorted(left_out),
        "scheduler": type(getattr(pipe, "scheduler", None)).__name__,
        "lora": [each.text() for each in lora.parse(settings.lora)],
        "quantize": settings.quantize,
        "quantize_args": as_text(settings.quantize_args),
        "compiled": settings.compile,
    }


def as_text(arguments: Mapping[str, Any]) -> str:
    """Arguments of a quantization as a JSON and a definition hold them."""
    return json.dumps(dict(arguments), sort_keys=True)


def scheduler_of(model: str, revision: str | None) -> str | None:
    """The class of a model's scheduler, by its model_index.json; None: not known without the hub.

    Of a model that is part of another one (a transformer, an adapter): that of the whole.
    """
    family = family_of(model)
    whole, of_whole = (family.base, None) if family.base else (model, revision)
    index = model_index(model) or hub_config(whole, "model_index.json", of_whole)
    named = index.get("scheduler")
    return str(named[1]) if isinstance(named, list) and len(named) == 2 and named[1] else None


def libraries() -> str:
    """ "diffusers 0.42, torch 2.13, transformers 5.23": others may schedule or round otherwise."""
    versions = {name: metadata.version(name) for name in ("diffusers", "torch", "transformers")}
    return ", ".join(f"{name} {'.'.join(v.split('.')[:2])}" for name, v in versions.items())


def check(definition: Mapping[str, Any], pipeline: Pipeline, allow_mixed: bool) -> None:
    """UserError where this worker would generate otherwise than the data set's definition says.

    A field that the definition does not have is not compared; on a CPU the precision is not, which
    is float32 there. Nor is compiling, which changes the rounding alone: where it fails a worker
    goes on without it, and its JSONs say so.
    """
    here = {**pipeline.facts, "without_t5": bool(pipeline.facts.get("left_out"))}
    # by the environment of diffusers; torch's own where a card cannot do what was asked for
    if here.get("attention_backend") not in (None, NATIVE, definition.get("attention")):
        here["attention"] = here["attention_backend"]
    if "model_commit" in here:
        here["libraries"] = libraries()
    if pipeline.gpu_name is not None:
        here["dtype"] = pipeline.dtype
    for field in COMPARED:
        if field not in here or allow_mixed:
            continue
        said = definition.get(field)
        known = said is not None or field in NONE_SAYS
        if known and field in definition and here[field] != said:
            raise UserError(
                f"this worker ({pipeline.gpu_name or 'CPU'}) would generate with {field} "
                f"{here[field]!r}, and the data set's definition says {said!r}: name it in the "
                "command of a new data set (--dtype, --no-t5, --revision, …), keep such cards out "
                "(--constraint), or mix them knowingly (--allow_mixed)"
            )
