"""Strip what steers an image generator and describes nothing.

Midjourney's flags and weights, WebUI's weights, networks and settings, chat commands, image URLs.
Emphasis without a number, `((dark forest))`, stays: it is readable, and its depth may be meant. The
reference for the brackets is the grammar of AUTOMATIC1111's WebUI.
"""

import re

from common.texts import word_set

NUMBER = r"-?(?:\d+(?:\.\d+)?|\.\d+)"
FLAGS = word_set(
    """ar aspect v version q quality s stylize stylise seed sameseed chaos c iw niji tile test testp
    creative uplight hd w h stop style repeat r weird width height video fast relax turbo sref cref
    cw sw sv profile p draft raw beta upanime wallpaper vibe mp fp"""
)
FLAG = "(?:" + "|".join(sorted(FLAGS, key=lambda flag: (-len(flag), flag))) + ")"
VALUE_WORD = "(?:raw|cute|expressive|scenic|original|random|4[abc])"
VALUE = rf"(?:[ =]*{NUMBER}(?:[:x/]{NUMBER})?(?![\w:])|[ =]+{VALUE_WORD}\b)"

RULES = [  # (name in the table, does it occur at all?, pattern, replacement)
    ("image URL", "http", re.compile(r"<?\bhttps?://[^\s<>]+>?", re.I), " "),
    (
        "settings",
        "Steps:",
        re.compile(
            r"[\s,]*\bSteps: *\d+, *(?:Sampler|Size|Seed|CFG scale|Schedule type)\b.*", re.S
        ),
        " ",
    ),
    (
        "negative prompt",
        "egative prompt",
        re.compile(r"[\s,]*\bnegative prompts?:.*", re.I | re.S),
        " ",
    ),
    ("command", "/imagine", re.compile(r"/imagine(?: +prompt)? *:?", re.I), " "),
    ("network", "<", re.compile(r"<\w+:[^<>\n]+>"), " "),
    (
        "flag",
        "--no",
        re.compile(r"(?<!\S)(?:--|[\u2014\u2013])no\b(?:(?!\s(?:--|[\u2014\u2013]))[\s\S])*"),
        " ",
    ),
    (
        "flag",
        "--",
        re.compile(rf"\[--{FLAG}{VALUE}\](?: *,)?|(?<![\w-])--{FLAG}\b{VALUE}?(?: *,)?"),
        " ",
    ),
    # an autocorrected --; without a value it may be a dash
    (
        "flag",
        "\u2014",
        re.compile(rf"(?<!\S)\u2014{FLAG}{VALUE}(?: *,)?"),
        " ",
    ),
    ("flag", "\u2013", re.compile(rf"(?<!\S)\u2013{FLAG}{VALUE}(?: *,)?"), " "),
    (
        "flag",
        "\u2014",
        re.compile(
            r"(?<!\S)\u2014(?:hd|niji|testp?|tile|upanime|uplight)(?=[\s,]*(?:$|--|\u2014))"
        ),
        " ",
    ),
    # the first Stable Diffusion bot's -W 768 -n 4 -C 10, at the end
    (
        "flag",
        " ",
        re.compile(
            r"(?<=[\s,])(?:(?:[-\u2014\u2013] ?|--)"
            r"(?:[wh] ?\d{3,4}|[cns] ?\d{1,3}(?:\.\d)?)[\s,]*){1,4}$",
            re.I,
        ),
        " ",
    ),
    ("weight", "::", re.compile(rf" *::(?:{NUMBER}(?![\w.:])|(?=[\s,]|$))\s*,?"), ", "),
    ("weight", ":", re.compile(r"\(([^():]*[^():\d\s]) *: *(?:\d(?:\.\d+)?|\.\d+) *\)"), r"\1"),
    ("weight", ":", re.compile(r"(?<=[A-Za-z\])]):[0-2]?\.\d{1,2}(?![\w.:])"), ""),
    ("BREAK", "BREAK", re.compile(r"(?:(?<=,)|(?<=\n)) *BREAK *(?=,|\n|$)"), " "),
]
COMMAS = re.compile(r"\s*,(?:\s*,)+")


def strip(text: str) -> tuple[str, list[str]]:
    """`text` without generator syntax, and the names of the rules that changed it."""
    applied = []
    for name, sign, pattern, replacement in RULES:
        if sign in text or (name == "command" and "/Imagine" in text):
            # again and again: ((a:1.1) b:1.2) is nested
            while (shorter := pattern.sub(replacement, text)) != text:
                applied.append(name)
                text = shorter
    if applied:  # what stood around the stripped part
        text = COMMAS.sub(",", text).strip().strip(",").strip()
    return text, applied
