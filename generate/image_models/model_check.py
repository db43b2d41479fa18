"""Check that a model can be had before anything is loaded or submitted. Imports no torch.

check_model("stabilityai/stable-diffusion-3-medium-diffusers")
"""

import importlib.util

from common.command_line import UserError
from common.console import first_line
from common.hub import not_a_hub
from generate.image_models.hub_file import hub_file
from generate.image_models.model_recipes import family_of, folder_of, read_config

WHOLE = "model_index.json"  # of a folder that holds a whole pipeline
PACKAGES = {  # that a backend of --quantize imports, and what installs it
    "bitsandbytes_4bit": ("bitsandbytes", "bitsandbytes"),
    "bitsandbytes_8bit": ("bitsandbytes", "bitsandbytes"),
    "torchao": ("torchao", "torchao"),
    "quanto": ("optimum", "optimum-quanto"),
    "gguf": ("gguf", "gguf"),
}


def check_quantization(backend: str | None) -> None:
    """UserError if the package of a backend is not installed here."""
    module, package = PACKAGES.get(backend or "", (None, None))
    if module and not importlib.util.find_spec(module):
        raise UserError(
            f"quantizing with {backend} needs a package that is not installed: "
            f"pip install {package}"
        )


def check_model(model: str, revision: str | None = None) -> None:
    """UserError if a model cannot be had: missing, gated, no token, no room, no JSON."""
    folder = folder_of(model)
    family = family_of(model)
    alone = family.lora_file or "transformer/config.json"
    name = alone if family.base else WHOLE
    if folder is None:
        _check_hub(model, name, revision)
    elif not any((folder / one).is_file() for one in (name, WHOLE)):
        raise UserError(
            f"{folder} holds no {name}; "
            "expected a folder that diffusers' save_pretrained has written"
        )


def _check_hub(model: str, name: str, revision: str | None) -> None:
    from huggingface_hub import errors  # 0.3 s that a local folder does not need

    try:
        path = hub_file(model, name, revision)
    except errors.GatedRepoError:
        raise UserError(
            f"the model {model} is gated: accept its terms at https://huggingface.co/{model}, "
            "then `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"there is no model {model} on the hub (or it is private: `hf auth login`)"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise UserError(f"the model {model} cannot be had: {error}") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise UserError(f"the model {model} cannot be had: {first_line(error)}") from None
    except Exception as error:
        raise UserError(f"the model {model} cannot be had: {not_a_hub(error)}") from None
    if path.suffix == ".json":
        read_config(path)
