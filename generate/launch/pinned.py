"""Pinned versions of model and libraries in a definition, so that all images are made alike.

    fields = pinned(args, stored_definition(folder))      # for the definition

The commit of a hub model is looked up when a data set begins; every client loads that commit, also
after the branch has moved. For a local folder a hash is kept (provenance.py).
"""

import contextlib
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from common.command_line import UserError
from generate.dataset.definition import MIXED
from generate.image_models import lora
from generate.image_models.model_check import check_model
from generate.image_models.model_commit import commit_of
from generate.image_models.model_recipes import folder_of
from generate.pipelines.provenance import libraries, scheduler_of


def pinned(args: Namespace, stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a definition. stored: that of the data set, None for a new one."""
    if args.pipeline:  # a class of the user's own tells its versions itself
        if args.lora:
            raise UserError("--lora: a class of your own (--pipeline) takes none")
        return {"lora": None}
    fields = {
        "model_commit": _commit(args, stored),
        "scheduler": _scheduler(args, stored),
        "libraries": libraries(),
        "lora": _adapters(args.lora, stored),
    }
    if stored and args.allow_mixed:
        fields |= {field: stored[field] for field in MIXED if field in stored}
    return fields


def _commit(args: Namespace, stored: Mapping[str, Any] | None) -> str | None:
    begun = _begun_on_the_hub(args, stored)
    if begun is None:
        return _newest(args.model, args.revision)
    known: str | None = begun.get("model_commit")  # None: begun before it was kept
    return known


def _scheduler(args: Namespace, stored: Mapping[str, Any] | None) -> str | None:
    begun = _begun_on_the_hub(args, stored)
    if begun is None:
        return scheduler_of(args.model, args.revision)
    known: str | None = begun.get("scheduler")
    return known


def _begun_on_the_hub(
    args: Namespace, stored: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The stored definition, if it was begun with this very model of the hub."""
    asked = (args.model, args.revision)
    if stored is None or (stored.get("model"), stored.get("revision")) != asked:
        return None
    return stored if folder_of(args.model) is None else None


def _newest(model: str, revision: str | None) -> str | None:
    """By the hub, or where that cannot be reached by the cache."""
    with contextlib.suppress(UserError):  # said in its turn, before anything is submitted
        check_model(model, revision)
    return commit_of(model, revision)


def _adapters(text: str | None, stored: Mapping[str, Any] | None) -> str | None:
    """What --lora names, each with its commit or the beginning of its file's sha256."""
    before = {}
    if stored and stored.get("lora"):
        before = {(each.source, each.file): each.commit for each in lora.parse(stored["lora"])}
    found = []
    for each in lora.check(lora.parse(text)):
        commit = each.commit or before.get((each.source, each.file))
        found.append(each.pinned(commit or commit_of_file(each)))
    return ",".join(each.text() for each in found) or None


def commit_of_file(adapter: lora.Lora) -> str | None:
    """The newest commit of a hub adapter, whose file is then in the cache. UserError: none."""
    lora.fetch(adapter)
    return commit_of(adapter.source, None)
