"""A pipeline that asks image servers: vLLM-Omni, SGLang, or any that speaks OpenAI's images API.

    vllm serve Tongyi-MAI/Z-Image-Turbo --omni --port 8000                     # on node1 and node2
    export IMAGES_URLS=http://node1:8000,http://node2:8000
    python generate/generate_images.py HPDv2.json --model Tongyi-MAI/Z-Image-Turbo \\
        --pipeline examples/image_server_pipeline.py:ImageServer --batch_size 16

All images of a batch are asked for at once, spread over the servers. Where one is away or busy, the
next is asked, with pauses, for ten minutes; a text that is refused fails.
"""

import base64
import io
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy
import requests
from PIL import Image

TAKEN = ("num_inference_steps", "guidance_scale", "true_cfg_scale")  # besides size, seed, negative
TOO_MANY = 429  # and above it the server's own errors: asked again


class ImageServer:
    make_generator = staticmethod(int)  # the seed goes to the server
    dtype = "as served"

    def __init__(self, model: str) -> None:
        urls = [url.strip("/ ") for url in os.environ.get("IMAGES_URLS", "").split(",") if url]
        if not urls:
            raise ValueError("IMAGES_URLS is not set: http://HOST:PORT, of several with commas")
        self.versions = ", ".join(sorted({version_of(url) for url in urls}))
        self.device = f"image server {', '.join(url.split('://')[-1] for url in urls)}"
        self.asked = {"model": model, "n": 1, "response_format": "b64_json"}
        self.key = {"Authorization": f"Bearer {os.environ.get('IMAGES_API_KEY', 'none')}"}
        self.urls = itertools.cycle(f"{url}/v1/images/generations" for url in urls)

    from_pretrained = classmethod(lambda cls, model: cls(model))

    def __call__(
        self, prompt: list[str], generator: list[int], height: int, width: int, **rest: Any
    ) -> SimpleNamespace:
        """.images: uint8 arrays (height, width, 3)."""
        asked = self.asked | {name: rest[name] for name in TAKEN if name in rest}
        asked["size"] = f"{width}x{height}"
        negative = rest.get("negative_prompt") or [None] * len(prompt)
        each = [
            asked | {"prompt": text, "seed": seed % 2**31, "negative_prompt": less}
            for text, seed, less in zip(prompt, generator, negative, strict=True)
        ]
        with ThreadPoolExecutor(len(each)) as threads:
            return SimpleNamespace(images=list(threads.map(self.image, each)))

    def image(self, asked: dict[str, Any]) -> Any:
        for pause in (1, 2, 4, *[8] * 75):
            try:
                answer = requests.post(next(self.urls), json=asked, headers=self.key, timeout=600)
                if answer.ok:
                    png = base64.b64decode(answer.json()["data"][0]["b64_json"])
                    return numpy.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
                if answer.status_code < TOO_MANY:
                    raise RuntimeError(f"{answer.status_code}: {answer.text}")
            except (requests.ConnectionError, requests.Timeout):
                pass
            time.sleep(pause)
        raise RuntimeError("the image servers are away or busy for ten minutes")


def version_of(url: str) -> str:
    """What a server says of itself, for each image's JSON."""
    try:
        return f"image server {requests.get(f'{url}/version', timeout=10).json()['version']}"
    except (requests.RequestException, KeyError, TypeError):
        return "image server of unknown version"
