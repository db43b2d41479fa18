"""A pipeline that asks an image server: vLLM-Omni, SGLang, or any that speaks OpenAI's images API.

    vllm serve Tongyi-MAI/Z-Image-Turbo --omni --port 8000                     # on node1 and node2
    export IMAGES_URLS=http://node1:8000,http://node2:8000
    python generate/generate_images.py HPDv2.json --model Tongyi-MAI/Z-Image-Turbo \\
        --pipeline examples/image_server_pipeline.py:ImageServer --batch_size 16

Each image of a batch is a POST /v1/images/generations of its own, all of a batch at once, spread
over the servers, which batch as they like. IMAGES_API_KEY is sent where it is set. A server that is
away, or has too many requests, is asked again for ten minutes; a text that it refuses (400, 422)
fails as that prompt's. What pixels depend on besides text, seed, size, steps and guidance is the
server's affair: `--redo` repeats an image only as far as the server does.
"""

import base64
import io
import itertools
import json
import os
import random
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy
from PIL import Image

ANSWER_S = 600.0  # an image of many steps, behind others
PATIENCE_S = 600.0  # for a server that is away
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LATER = {429, 500, 502, 503, 504}  # statuses that may pass
REFUSED = {400, 413, 422}  # of this very text
SEEDS = 2**31  # some servers take no larger seed
ARGUMENTS = ("num_inference_steps", "guidance_scale", "true_cfg_scale")


class ImageServer:
    """Called like a diffusers pipeline."""

    make_generator = staticmethod(int)  # the seed goes to the server
    dtype = "as served"

    def __init__(self, model: str, urls: list[str]) -> None:
        self.model = model
        self.urls = urls
        self.next_url = itertools.cycle(urls)
        self.device = "image server " + ", ".join(url.split("://")[-1] for url in urls)
        self.versions = "; ".join(dict.fromkeys(_version(url) for url in urls))
        self.threads = ThreadPoolExecutor(64, "ask")

    @classmethod
    def from_pretrained(cls, model: str) -> "ImageServer":
        urls = [url.rstrip("/") for url in os.environ.get("IMAGES_URLS", "").split(",") if url]
        if not urls:
            raise ValueError("IMAGES_URLS is not set: http://HOST:PORT, of several with commas")
        return cls(model, urls)

    def __call__(
        self, prompt: list[str], generator: list[int], height: int, width: int, **rest: Any
    ) -> SimpleNamespace:
        """.images: uint8 arrays (height, width, 3)."""
        known = {name: rest[name] for name in ARGUMENTS if name in rest}
        negative = rest.get("negative_prompt") or [None] * len(prompt)
        asked = [
            {"model": self.model, "prompt": text, "seed": seed % SEEDS, "n": 1}
            | {"size": f"{width}x{height}", "response_format": "b64_json", **known}
            | ({"negative_prompt": less} if less else {})
            for text, seed, less in zip(prompt, generator, negative, strict=True)
        ]
        return SimpleNamespace(images=list(self.threads.map(self._image, asked)))

    def _image(self, asked: dict[str, Any]) -> Any:
        answer = json.loads(self._post(json.dumps(asked).encode()))
        data = base64.b64decode(answer["data"][0]["b64_json"])
        return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def _post(self, body: bytes) -> bytes:
        """The answer. ValueError for a text that is refused; OSError when the patience is over."""
        end = time.monotonic() + PATIENCE_S
        pause = FIRST_PAUSE_S
        while True:
            url = next(self.next_url) + "/v1/images/generations"
            headers = {"Content-Type": "application/json"}
            if key := os.environ.get("IMAGES_API_KEY"):
                headers["Authorization"] = f"Bearer {key}"
            try:
                request = urllib.request.Request(url, body, headers)
                with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
                    return bytes(response.read())
            except urllib.error.HTTPError as error:
                said = error.read(500).decode(errors="replace")
                if error.code in REFUSED:
                    raise ValueError(f"{url} refuses the text: {said}") from None
                if error.code not in LATER or time.monotonic() > end:
                    raise OSError(f"{url} answered {error.code}: {said}") from None
            except OSError as error:
                if time.monotonic() > end:
                    raise OSError(f"{url} does not answer: {error}") from None
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _version(url: str) -> str:
    """What the server says of itself, for each image's JSON."""
    try:
        with urllib.request.urlopen(f"{url}/version", timeout=10) as response:
            answer = json.loads(response.read(1000))
            return f"image server {answer.get('version', 'of unknown version')}"
    except (OSError, ValueError):
        return "image server of unknown version"
