"""A pipeline that asks image servers: vLLM-Omni, SGLang, or any that speaks OpenAI's images API.

    vllm serve Tongyi-MAI/Z-Image-Turbo --omni --port 8000                     # on node1 and node2
    export IMAGES_URLS=http://node1:8000,http://node2:8000
    python generate/generate_images.py HPDv2.json --model Tongyi-MAI/Z-Image-Turbo \\
        --pipeline examples/image_server_pipeline.py:ImageServer --batch_size 16

All images of a batch are asked for at once, spread over the servers. Where one is away or busy, the
next is asked, with pauses, for ten minutes; a text that is refused fails.
"""

import base64
import contextlib
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, repeat
from types import SimpleNamespace
from typing import Any

import requests
from PIL import Image

TAKEN = ("num_inference_steps", "guidance_scale", "true_cfg_scale")  # besides size, seed, negative
URLS = [url.strip("/ ") for url in os.environ.get("IMAGES_URLS", "").split(",") if url]

KEY = {"Authorization": f"Bearer {os.environ.get('IMAGES_API_KEY', 'none')}"}


class ImageServer:
    make_generator = staticmethod(int)  # the seed goes to the server
    dtype = "as served"
    device = f"image server {', '.join(URLS)}".replace("http://", "")

    from_pretrained = classmethod(lambda cls, model: cls(model))

    def __init__(self, model: str) -> None:
        if not URLS:
            raise ValueError("IMAGES_URLS is not set: http://HOST:PORT, of several with commas")
        self.model, self.urls = model, cycle(f"{url}/v1/images/generations" for url in URLS)
        self.versions = ", ".join(sorted(set(map(version_of, URLS))))

    def __call__(self, prompt: list[str], height: int, width: int, **rest: Any) -> Any:
        same = {"model": self.model, "n": 1, "response_format": "b64_json"}
        same |= {"size": f"{width}x{height}"} | {name: rest[name] for name in TAKEN if name in rest}
        negative = rest.get("negative_prompt") or repeat(None)
        with ThreadPoolExecutor(len(prompt)) as threads:
            images = threads.map(self.image, prompt, rest["generator"], negative, repeat(same))
            return SimpleNamespace(images=list(images))

    def image(self, text: str, seed: int, negative: str | None, same: dict[str, Any]) -> Any:
        asked = same | {"prompt": text, "seed": seed % 2**31, "negative_prompt": negative}
        for pause in (1, 2, 4, *[8] * 75):
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                answer = requests.post(next(self.urls), json=asked, headers=KEY, timeout=600)
                if answer.ok:
                    png = base64.b64decode(answer.json()["data"][0]["b64_json"])
                    return Image.open(io.BytesIO(png)).convert("RGB")
                if answer.status_code < 429:  # from there on it is busy or in trouble
                    raise RuntimeError(f"{answer.status_code}: {answer.text}")
            time.sleep(pause)
        raise RuntimeError("the image servers are away or busy for ten minutes")


def version_of(url: str) -> str:
    with contextlib.suppress(requests.RequestException, LookupError, TypeError, RecursionError):
        return f"image server {requests.get(f'{url}/version', timeout=10).json()['version']}"
    return "image server of unknown version"
