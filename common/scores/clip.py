"""clip: how well image and text fit; aesthetic: how well it is liked. Both from one embedding.

Clip()                                            # openai/clip-vit-large-patch14
Clip("google/siglip2-base-patch16-224")           # any CLIP or SigLIP model, hub id or folder
Aesthetic("head.pth")                             # a linear head over CLIP ViT-L/14
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from common.command_line import UserError
from common.hub import limit_hub
from common.scores.interface import CLIP, Pixels

MODEL = CLIP
BATCH = 32


class Embedder:
    """Unit vectors of images and texts by a model of transformers with two towers."""

    def __init__(self, model: str, device: str | None = None) -> None:
        """UserError if it cannot be had or is no such model."""
        limit_hub()
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.model: Any = transformers.AutoModel.from_pretrained(model).to(self.device).eval()
            self.processor: Any = transformers.AutoProcessor.from_pretrained(model)
        except (OSError, ValueError, ImportError) as error:
            why = str(error).strip().splitlines()[0]
            raise UserError(f"the model {model} of a score cannot be loaded: {why}") from None
        if not hasattr(self.model, "get_image_features"):
            raise UserError(f"the model {model} embeds no images: name a CLIP or SigLIP model")
        revision = getattr(self.model.config, "_commit_hash", None)
        self.version = f"{model} {revision or 'local'}, transformers {transformers.__version__}"
        # SigLIP was trained with padded texts; CLIP does not mind
        self.longest = int(self.model.config.text_config.max_position_embeddings)

    def of_images(self, images: Sequence[Pixels]) -> torch.Tensor:
        """Float tensor, images x dimensions, each of length 1."""
        rows = []
        for start in range(0, len(images), BATCH):
            batch = list(images[start : start + BATCH])
            inputs = self.processor(images=batch, return_tensors="pt").to(self.device)
            with torch.inference_mode():
                rows.append(_unit(self.model.get_image_features(**inputs)))
        return torch.cat(rows)

    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """As of_images; what a text encoder does not read is cut off."""
        inputs = self.processor(
            text=list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            return _unit(self.model.get_text_features(**inputs))


def _unit(features: Any) -> torch.Tensor:
    vectors = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()


class Clip:
    """Cosine of the image's and its text's embedding, -1 to 1.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021);
    as a filter: Hessel et al., "CLIPScore" (2021). Values of two models are not comparable.
    """

    name = "clip"
    vectors: torch.Tensor | None = None  # embeddings of the images of the last call
    licence = "MIT (OpenAI's CLIP), Apache-2.0 (SigLIP); that of the model that is named"

    def __init__(self, model: str = MODEL) -> None:
        self._embedder = Embedder(model)
        self.version = self._embedder.version

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        self.vectors = self._embedder.of_images(images)
        products = self.vectors * self._embedder.of_texts(texts)
        return [float(value) for value in products.sum(-1)]


class Aesthetic:
    """LAION's aesthetic predictor: a linear head over CLIP ViT-L/14, about 1 to 10.

    The head (sac+logos+ava1-l14-linearMSE.pth or sa_0_4_vit_l_14_linear.pth, MIT) is a file that
    the user names.
    """

    name = "aesthetic"
    vectors: torch.Tensor | None = None  # as Clip's
    licence = "MIT"

    def __init__(self, head: str = "") -> None:
        if not head or not Path(head).is_file():
            raise UserError(
                f"--scores aesthetic:FILE needs LAION's head, and {head or 'no file'} is there; "
                "see docs/scores.md"
            )
        self._embedder = Embedder(MODEL)
        self._layers = _linear_layers(head)
        wanted = self._layers[0][0].shape[-1]
        if wanted != (has := self._embedder.model.config.projection_dim):
            raise UserError(f"{head} is a head over {wanted} numbers, and {MODEL} gives {has}")
        self.version = f"{Path(head).name}, {self._embedder.version}"

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        values = self.vectors = self._embedder.of_images(images)
        for weight, bias in self._layers:
            values = values @ weight.T + bias
        return [float(value) for value in values.squeeze(-1)]


def _linear_layers(head: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The head's layers; LAION's MLP has nothing between them that counts at inference."""
    try:
        state = torch.load(head, map_location="cpu", weights_only=True)
        names = [name for name in state if name.endswith("weight")]
        layers = [(state[name], state[name.replace("weight", "bias")]) for name in names]
        return layers or [state["weight"]]
    except Exception as error:  # whatever lies in a file of others
        why = type(error).__name__
        raise UserError(f"{head} cannot be read as the weights of linear layers: {why}") from None
