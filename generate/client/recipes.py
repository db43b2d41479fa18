"""What is asked of each image: the run's recipe, the mix of sizes, and what its item asks for.

    recipes = Recipes(recipe, run_seed=0, mix=Mix.from_text("1024x1024,768x1344"))
    recipes.of(12345, 3, item)            # a Recipe: size, steps, guidance, negative prompt
    recipes.seed(12345, 3, item)          # of its generator

An item's own values go before the mix, the mix before the run's size.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from generate.dataset.sizes import Mix, size_from
from generate.pipelines.pipeline import Recipe

# Arguments of a recipe, by the field of an item that overrides them.
OVERRIDDEN = {
    "negative_prompt": "negative_prompt",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
}


def seed_of(run_seed: int, index: int, aug: int, attempt: int = 0) -> int:
    """The seed of an image, 63 bits: the same on every machine.

    attempt 1: the next seed, for an image that failed its check.
    """
    words = f"{run_seed}:{index}:{aug}" + (f":{attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Recipes:
    """Of one run; see the module."""

    recipe: Recipe
    run_seed: int = 0
    mix: Mix | None = None

    @property
    def shapes(self) -> int:
        """How many sizes the run mixes; what single items ask for is not counted."""
        return len(self.mix.sizes) if self.mix else 1

    def of(self, index: int, aug: int | None, item: Mapping[str, Any]) -> Recipe:
        """The recipe of an image; aug None: of the canary prompt, which is the run's."""
        if aug is None:
            return self.recipe
        changes: dict[str, Any] = {
            argument: item[name] for name, argument in OVERRIDDEN.items() if name in item
        }
        size = size_from(item["size"]) if "size" in item else None
        if size is None and self.mix:
            size = self.mix.size(self.run_seed, index, aug)
        if size:
            changes["height"], changes["width"] = size
        return replace(self.recipe, **changes) if changes else self.recipe

    def seed(self, index: int, aug: int, item: Mapping[str, Any], attempt: int = 0) -> int:
        """The seed of an image; with a seed of the item's: that, plus the augmentation."""
        own: int | None = item.get("seed")
        if own is None:
            return seed_of(self.run_seed, index, aug, attempt)
        return seed_of(own, index, aug, attempt) if attempt else own + max(aug, 0)
