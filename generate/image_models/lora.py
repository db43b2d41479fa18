"""Adapters (LoRA) that are laid onto a model: --lora ID[:WEIGHT], several with commas.

    loras = parse("ByteDance/SDXL-Lightning/sdxl_lightning_8step_lora.safetensors:0.8,my/folder")
    apply(pipe, check(loras), fuse=True)

ID: a hub id, with a file of it where that is not called pytorch_lora_weights.safetensors; a folder;
a file. "@COMMIT" behind it pins a hub id; for a file of one's own it is the beginning of its
sha256.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.console import first_line
from common.untrusted import open_untrusted
from generate.image_models.hub_file import hub_file

DEFAULT_FILE = "pytorch_lora_weights.safetensors"  # as diffusers' save_lora_weights writes it
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SHA256_DIGITS = 16


@dataclass(frozen=True)
class Lora:
    """source: hub id or folder; file: of it; commit: 40 hex digits, or of a file's sha256."""

    source: str
    file: str = DEFAULT_FILE
    weight: float = 1.0
    commit: str | None = None

    @property
    def local(self) -> Path | None:
        """The file, if it is one of this machine."""
        path = Path(self.source) / self.file
        return path if Path(self.source).is_dir() else None

    def pinned(self, commit: str | None) -> "Lora":
        """The same at a commit."""
        return replace(self, commit=commit)

    def text(self) -> str:
        """As --lora takes it, with weight and commit."""
        name = self.source if self.file == DEFAULT_FILE else f"{self.source}/{self.file}"
        return f"{name}{f'@{self.commit}' if self.commit else ''}:{self.weight:g}"


def parse(text: str | None) -> list[Lora]:
    """The adapters of a --lora. UserError for what is none."""
    return [_one(part.strip()) for part in text.split(",")] if text else []


def _one(text: str) -> Lora:
    name, colon, last = text.rpartition(":")
    try:
        weight = float(last) if colon else math.nan
    except ValueError:
        weight = math.nan
    if math.isnan(weight):
        name, weight = text, 1.0
    name, _, commit = name.partition("@")
    lora = Lora("", weight=weight, commit=commit or None)
    path = Path(name)
    if not math.isfinite(weight):
        raise UserError(f"--lora {text}: the weight is no number")
    if path.is_dir():
        return replace(lora, source=os.path.realpath(path))
    if path.is_file():
        return replace(lora, source=os.path.dirname(os.path.realpath(path)), file=path.name)
    source, file = "/".join(path.parts[:2]), "/".join(path.parts[2:])
    if not HUB_ID.fullmatch(source):
        raise UserError(f"--lora {text}: neither a hub id (OWNER/NAME), nor a folder or file here")
    return replace(lora, source=source, file=file or DEFAULT_FILE)


def check(loras: Iterable[Lora]) -> list[Lora]:
    """The same, files of this machine with their sha256. UserError where a file cannot be used."""
    checked = []
    for lora in loras:
        if not lora.file.endswith(".safetensors"):
            raise UserError(f"--lora {lora.text()}: expected a file of the form .safetensors")
        if path := lora.local:
            lora = _of_file(lora, path)
        checked.append(lora)
    return checked


def _of_file(lora: Lora, path: Path) -> Lora:
    try:
        with os.fdopen(open_untrusted(path), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()[:SHA256_DIGITS]
    except OSError as error:
        raise UserError(f"--lora: {path}: {error.strerror}; name the file: FOLDER/FILE") from None
    if lora.commit not in (None, found):
        raise UserError(f"--lora: {path} is {found}, not {lora.commit}: it has changed")
    return replace(lora, commit=found)


def fetch(lora: Lora) -> None:
    """Have a hub adapter in the cache. UserError if it cannot be had."""
    try:
        hub_file(lora.source, lora.file, lora.commit)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--lora {lora.text()} cannot be had ({first_line(error)}); is the file called so? "
            "OWNER/NAME/FILE.safetensors names another"
        ) from None


def apply(pipe: Any, loras: list[Lora], fuse: bool, offline: bool = False) -> None:
    """Load the adapters into a pipeline; fuse: into its weights, so that they cost no time.

    offline: all files are in the cache. UserError where the pipeline takes none of them.
    """
    if not loras:
        return
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"--lora: a {type(pipe).__name__} takes none")
    names = [f"lora_{number}" for number in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        pinned = {} if lora.local else {"revision": lora.commit}
        pipe.load_lora_weights(
            lora.source,
            weight_name=lora.file,
            adapter_name=name,
            use_safetensors=True,
            local_files_only=offline,
            **pinned,
        )
        if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
            raise UserError(f"--lora: {lora.text()} fits no part of a {type(pipe).__name__}")
    pipe.set_adapters(names, [lora.weight for lora in loras])
    if fuse:
        pipe.fuse_lora(adapter_names=names)
        pipe.unload_lora_weights()
