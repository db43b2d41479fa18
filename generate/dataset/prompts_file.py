"""The prompts file: a JSON list of strings or {"prompt", "source", "variations"}, or a .txt with one prompt a line.

    python -c "import prompts_file; print(len(prompts_file.read_prompts('HPDv2.json')))"        looked for as given, then in prompts/

An item's place in the list is its prompt_index for ever; the list's sha256 stands in the dataset's definition.
"""

import hashlib
import json
import sys
from pathlib import Path

from common.files import CHECKOUT

LONGEST = (
    20_000  # bytes of a prompt in UTF-8: the image carries it twice in a JPEG comment of 65,533
)


def find_prompts(path):
    """The path as given, else below prompts/ (here, then in the checkout). SystemExit if there is none."""
    for candidate in (Path(path), Path("prompts") / path, CHECKOUT / "prompts" / path):
        if candidate.is_file():
            return candidate
    raise wrong(
        f"{path}: no such file, neither here nor in prompts/; combine_prompts/combine.py makes one"
    )


def read_prompts(path):
    """[{"prompt": str, "source": [str, …], "variations": [str, …] or absent}]. SystemExit, naming the item by position (from 0)."""
    path = find_prompts(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        # not splitlines(): it also cuts at form feeds and U+2028, which pasted prompts have inside
        items = (
            [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
            if path.suffix == ".txt"
            else json.loads(text)
        )
    except OSError as error:
        raise wrong(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise wrong(f"{path}: not UTF-8 (byte {error.start}); convert it with iconv") from None
    except (ValueError, RecursionError) as error:
        raise wrong(f"{path}: not JSON: {error}") from None
    if not isinstance(items, list):
        raise wrong(
            f"{path}: holds no list, but {type(items).__name__}; expected a JSON list of prompts"
        )
    if not items:
        raise wrong(f"{path}: holds no prompt")
    prompts = []
    for position, item in enumerate(items):
        try:
            prompts.append(read_item(item))
        except ValueError as error:
            raise wrong(f"{path}: item {position} {error}") from None
    return prompts


def wrong(what):
    """SystemExit that begins with the name of the script that runs: generate_images or llm_prompting."""
    return SystemExit(f"{Path(sys.argv[0]).stem}: {what}")


def read_item(item):
    """One item as {"prompt", "source"[, "variations"]}. ValueError says what is wrong with it."""
    item = {"prompt": item} if isinstance(item, str) else item
    if not isinstance(item, dict) or not isinstance(item.get("prompt"), str):
        raise ValueError(
            f'is {json.dumps(item)[:80]}: neither a string nor an object with a "prompt"'
        )
    source = item.get("source") or []
    source = [source] if isinstance(source, str) else source
    variations = item.get("variations")
    if not isinstance(source, list) or not all(isinstance(name, str) for name in source):
        raise ValueError('has a "source" that is no list of strings')
    if variations is not None and not (
        isinstance(variations, list) and all(isinstance(text, str) for text in variations)
    ):
        raise ValueError('has "variations" that are no list of strings')
    texts = [mend(text) for text in [item["prompt"], *(variations or [])]]
    if not all(text.strip() for text in texts):
        raise ValueError("is blank" if not texts[0].strip() else "has a blank variation")
    if max(len(text.encode()) for text in texts) > LONGEST:
        raise ValueError(f"is longer than {LONGEST:,} bytes")
    record = {"prompt": texts[0], "source": source}
    return record if variations is None else record | {"variations": texts[1:]}


def mend(text):
    """A text that UTF-8 can hold: surrogates that make a pair are joined, lone ones become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def list_sha256(items):
    """sha256 (hex) of a list from read_prompts, over its canonical JSON; of a prefix: list_sha256(items[:n])."""
    digest = hashlib.sha256()
    for item in items:  # item by item: a million prompts need no second copy in memory
        digest.update(
            json.dumps(item, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
            + b"\n"
        )
    return digest.hexdigest()
