"""A pipeline that asks image servers: vLLM-Omni, SGLang, or any that speaks OpenAI's images API.

    vllm serve Tongyi-MAI/Z-Image-Turbo --omni --port 8000                     # on node1 and node2
    export IMAGES_URLS=http://node1:8000,http://node2:8000
    python generate/generate_images.py HPDv2.json --model Tongyi-MAI/Z-Image-Turbo \\
        --pipeline examples/image_server_pipeline.py:ImageServer --batch_size 16

All images of a batch are asked for at once, spread over the servers. One that is away or busy is
asked again with growing pauses, then the next, for ten minutes; a text that is refused fails.
"""

import base64
import io
import itertools
import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy
import openai
from PIL import Image

PATIENCE_S = 600.0
PASSING = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError)
ARGUMENTS = ("num_inference_steps", "guidance_scale", "true_cfg_scale")


class ImageServer:
    make_generator = staticmethod(int)  # the seed goes to the server
    dtype = "as served"

    def __init__(self, model: str) -> None:
        urls = [url.strip("/ ") for url in os.environ.get("IMAGES_URLS", "").split(",") if url]
        if not urls:
            raise ValueError("IMAGES_URLS is not set: http://HOST:PORT, of several with commas")
        self.model = model
        self.device = f"image server {', '.join(url.split('://')[-1] for url in urls)}"
        self.versions = "; ".join({version_of(url): url for url in urls})
        rest: Any = {"api_key": os.environ.get("IMAGES_API_KEY") or "none", "timeout": 600}
        servers = [openai.OpenAI(base_url=f"{url}/v1", max_retries=4, **rest) for url in urls]
        self.servers = itertools.cycle(servers)
        self.threads = ThreadPoolExecutor(64)

    @classmethod
    def from_pretrained(cls, model: str) -> "ImageServer":
        return cls(model)

    def __call__(
        self, prompt: list[str], generator: list[int], height: int, width: int, **rest: Any
    ) -> SimpleNamespace:
        """.images: uint8 arrays (height, width, 3)."""
        known = {name: rest[name] for name in ARGUMENTS if name in rest}
        negative = rest.get("negative_prompt") or [""] * len(prompt)
        bodies = [
            known | {"seed": seed % 2**31} | ({"negative_prompt": less} if less else {})
            for seed, less in zip(generator, negative, strict=True)
        ]
        sizes = [f"{width}x{height}"] * len(prompt)
        return SimpleNamespace(images=list(self.threads.map(self._image, prompt, sizes, bodies)))

    def _image(self, text: str, size: Any, body: dict[str, Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        asked: Any = {"size": size, "n": 1, "response_format": "b64_json", "extra_body": body}
        while True:
            try:
                server = next(self.servers)
                answer = server.images.generate(model=self.model, prompt=text, **asked)
                data = base64.b64decode(answer.data[0].b64_json)
                return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            except openai.APIError as error:
                if not isinstance(error, PASSING) or time.monotonic() > end:
                    raise RuntimeError(f"{error}: {error.body}") from error


def version_of(url: str) -> str:
    """What a server says of itself, for each image's JSON."""
    try:
        with urllib.request.urlopen(f"{url}/version", timeout=10) as answer:
            return f"image server {json.load(answer)['version']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "image server of unknown version"
