"""HPDv2's benchmark prompts -> prompts/HPDv2.json

    python combine_prompts/process_hpdv2.py [--input FOLDER_OR_FILES] [--output FILE.json]

Reads benchmark/{anime,concept-art,paintings,photo}.json of ymhao/HPDv2, each a list of strings. Never drawbench.json, which lies beside
them and is a validation set of others. The three art styles were rewritten by ChatGPT, and its chatter is repaired or dropped.

Expected of the real source (counted): 4 x 800 prompts, 3,172 distinct (anime 781, concept-art 795, paintings 798, photo 800); 3,170 are
written after cleaning.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

import re

from combine_prompts.processor import json_list, local_files, parser, process
from combine_prompts.sources import hub_files

FILES = ["anime.json", "concept-art.json", "paintings.json", "photo.json"]

SENTENCE = re.compile(
    r"""["'(]?[A-Z0-9][^\n]*\s\S+\s\S+\s\S+"""
)  # begins like one and has four words
LABEL = re.compile(
    r"^(?:(?:the|image|one sentence) )*description(?: without modifiers)?[,:] +", re.I
)
OF_WHAT = re.compile(
    r"^(?:the image (?:is of|depicts|shows|features|portrays|displays|showcases)|the image is(?= an? )|"
    r"in the image,? there (?:is|are)|of(?= )|features(?= )|depicts(?= ))\s+",
    re.I,
)
# "The image features a samurai and is painted in ...": without its head the sentence would break
MORE_VERBS = re.compile(
    r"\b(?:and|but|which|,) (?:is|are|was|were|has|have|features|depicts|shows|includes)\b"
)
REFUSAL = re.compile(r"^(?:there is no (?:picture|image)|(?:i'm |i am )?sorry\b|as an ai\b)", re.I)


def main():
    args = parser(__doc__, "HPDv2.json").parse_args()
    if args.input:
        files, problems = local_files(args.input, FILES)
        problems += [
            f"{path}: not read, DrawBench is a validation set"
            for path in files
            if path.name == "drawbench.json"
        ]
        files = [path for path in files if path.name != "drawbench.json"]
    else:
        files, problems = (
            hub_files("ymhao/HPDv2", [f"benchmark/{name}" for name in FILES], args.revision),
            [],
        )
    return process(args, files, problems, read, repair)


def read(path):
    """Yield (item number from 0, prompt). Raises ValueError where the file is not a JSON list."""
    yield from enumerate(json_list(path.read_bytes()))


def repair(text):
    """Return (prompt, name of the rule that changed it or None); (None, reason) drops it."""
    before, rule = text, None
    text = text.strip()
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if (
        len(parts) > 1
    ):  # the model answered twice: the first answer if it is a sentence, else (a torn one) the last
        text, rule = parts[0] if SENTENCE.match(parts[0]) else parts[-1], "chat: second answer"
    if REFUSAL.match(text):
        return None, "chat: refusal"
    if len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text, rule = text[1:-1].strip(), "chat: quoted"
    if LABEL.match(text):
        text, rule = LABEL.sub("", text), "chat: label"
    if OF_WHAT.match(text) and not MORE_VERBS.search(text):
        text, rule = OF_WHAT.sub("", text), "chat: the image depicts"
    if rule:
        text = text[:1].upper() + text[1:]
    return (text, rule) if rule else (before, None)


if __name__ == "__main__":
    sys.exit(main())
