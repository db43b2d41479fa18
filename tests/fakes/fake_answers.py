"""What a fake LLM writes: variations drawn from a small grammar, or what a fault makes of them.

answer(body, fault=None, draw=random.Random(1))

body: of a request, with "messages" and perhaps a JSON schema. Answers hold as many variations as
the schema or the instruction asks for, always with the prompt in them.
"""

import json
import random
import re

FAULTS_OF_TRANSPORT = [
    "hang",
    "drip",
    "cut",
    "401",
    "402",
    "404",
    "429",
    "quota",
    "500",
    "503",
    "html",
    "truncated",
    "deep",
    "no_done",
    "error_line",
    "load",
]
FAULTS_OF_CONTENT = [
    "invalid_json",
    "fewer",
    "duplicates",
    "copies",
    "refusal",
    "wrong_type",
    "preamble",
    "numbered",
    "empty",
    "too_long",
    "content_filter",
    "prose",
    "at_length",
]
WHEN = [
    "at dawn",
    "at dusk",
    "at midnight",
    "at noon",
    "in heavy rain",
    "in thick fog",
    "in the first snow",
    "under an aurora",
    "after a storm",
    "in spring",
]
WHERE = [
    "in old Kyoto",
    "in Marrakesh",
    "on a Norwegian fjord",
    "in Lagos",
    "on Mars",
    "inside a lighthouse",
    "in a Mayan temple",
    "on a night train",
    "in a greenhouse",
    "at a village fair",
    "below the sea",
    "on a rooftop in Mumbai",
    "in a library",
    "in the Andes",
    "in a paper town",
]
HOW = [
    "as a woodcut",
    "as an oil painting",
    "as a 1970s photograph",
    "as a comic panel",
    "in watercolour",
    "as a stained-glass window",
    "as embroidery",
    "as a charcoal sketch",
    "as a clay figure",
    "as a tin toy",
    "as a fresco",
    "as pixel art",
    "as a botanical plate",
    "as a mosaic",
]
ANGLE = [
    "seen from above",
    "seen through a keyhole",
    "from a worm's eye",
    "in wide angle",
    "in extreme close-up",
    "mirrored in a puddle",
    "in silhouette",
    "from behind",
    "through a rainy window",
    "in double exposure",
    "with long shadows",
    "lit by one candle",
]
SORRY = "I'm sorry, but I can't help with that request."


def answer(body: dict, fault: str | None, draw: random.Random) -> str:
    """The model's text."""
    asked = body["messages"][-1]["content"]
    schema = json.dumps(body.get("format") or body.get("response_format") or {})
    n = _number_asked_for(schema, asked + body["messages"][0]["content"])
    prompt = (re.findall(r'"((?:[^"\\]|\\.)+)"', asked) or [asked[-80:]])[-1]
    texts = [
        f"{prompt} {draw.choice(WHERE)} {draw.choice(WHEN)}, {draw.choice(HOW)}, "
        f"{draw.choice(ANGLE)}"
        for _ in range(n)
    ]
    if fault == "numbered":
        numbered = [f"{i + 1}. {text}" for i, text in enumerate(texts)]
        return "\n".join(["Sure! Here are the variations:", *numbered])
    wholes = {
        "wrong_type": json.dumps({"variations": [{"text": 7}, None, 3.5]}),
        "prose": SORRY,
        "invalid_json": '{"variations": [' + "oops, no quotes, " * 5,
        "empty": "",
    }
    if fault == "at_length":  # ended at max_tokens, in the middle of the last text
        return json.dumps({"variations": texts})[: -len(texts[-1]) // 2 - 3]
    lists = {
        "fewer": texts[: max(1, n // 3)],
        "duplicates": texts[:1] * n,
        "copies": [prompt, prompt.upper(), prompt + "."] * n,
        "refusal": [SORRY],
        "too_long": ["word " * 20_000, *texts[1:]],
        "preamble": ["Here are the variations you asked for:", *texts],
    }
    return wholes.get(fault, json.dumps({"variations": lists.get(fault, texts)}))


def _number_asked_for(schema: str, text: str) -> int:
    found = re.search(r'"maxItems": (\d+)', schema) or re.search(r"exactly (\d+)", text)
    return int(found[1]) if found else 10
