"""Remove generator syntax (flags, weights, networks, URLs), which describes nothing.

Midjourney's flags and weights, WebUI's weights, networks and settings, chat commands, image URLs.
Emphasis without a number, `((dark forest))`, stays: it is readable, and its depth may be meant. The
reference for the brackets is the grammar of AUTOMATIC1111's WebUI.

Every rule takes linear time: a match can begin only at the first blank of a run, and nested weights
are resolved in one pass. A test feeds each rule 10^5 adversarial characters.
"""

import re
from collections.abc import Callable
from re import Match

from common.texts import word_set

NUMBER = r"-?(?:\d+(?:\.\d+)?|\.\d+)"
FLAGS = word_set(
    """ar aspect v version q quality s stylize stylise seed sameseed chaos c iw niji tile test testp
    creative uplight upbeta hd w h stop style repeat r weird width height video fast relax turbo cw
    sw sv ow exp draft raw beta upanime wallpaper vibe mp fp motion loop end bs"""
)
FLAG = "(?:" + "|".join(sorted(FLAGS, key=lambda flag: (-len(flag), flag))) + ")"
VALUE_WORD = "(?:raw|cute|expressive|scenic|original|random|low|high|4[abc])"
VALUE = rf"(?:[ =]*{NUMBER}(?:[:x/]{NUMBER})?(?![\w:])|[ =]+{VALUE_WORD}\b)"
# what names pictures or profiles takes a list of codes: --sref 123 456, --profile cq2ubwa x1y2z3
CODE_FLAG = "(?:sref|cref|oref|profile|personalize|p)"
CODE = (
    rf"(?:random\b|\d{{1,20}}(?:::{NUMBER})?(?![\w.:])"
    r"|(?=[a-z]{0,11}\d)[a-z0-9]{5,12}(?!\w))"
)
# a URL after one of these is what the picture shows
SHOWN = re.compile(
    r"(?:\b(?:says?|saying|reads?|reading|text|words?|url|link|address|written|labell?ed|called"
    r"|titled|named|website|spelling)\b[:,]? ?[\"'\u201c]?|[\"'\u201c])$",
    re.I,
)
MEASURES = "(?:million|billion|thousand|percent|meters?|miles?|km|cm|mm|kg|inch(?:es)?|feet|ft)"
WEIGHT_NUMBER = re.compile(r" *(?:\d(?:\.\d+)?|\.\d+) *")
LONGEST_WEIGHT = 12  # characters from the colon on

# the first Stable Diffusion bot's -W 768 -n 4 -C 10, at the end
BOT_FLAG = re.compile(
    r"(?<=[\s,])(?:[-\u2014\u2013] ?|--)(?:[wh] ?\d{3,4}|[cns] ?\d{1,3}(?:\.\d)?)[\s,]{0,9}$", re.I
)
END = 60  # characters in which it is looked for
# the size of the picture at the end: "w 1024 h 768", "1024 x 768"
SIZE = re.compile(
    r"(?:(?<=[\s,])[wh] ?(?P<dash>-? ?)|(?<=\S)(?P<joined>-) ?[wh] ?)(?P<side>\d{3,4})[\s,]{0,9}$"
    r"|(?<=[\s,])(?P<width>\d{3,4}) ?x ?(?P<height>\d{3,4})[\s,]{0,9}$",
    re.I,
)
STEP = 8  # pixels: the sides of pictures are multiples; "mercedes w 124" is no size
# "street art:2 by Sachin Teng:4", at the end of a clause
BARE_WEIGHT = re.compile(r"(?:(?<=[a-z,])| (?=\S{1,3} by\b)):(?:10|[1-9])(?=\s+by\b|\s*,|\s*$)")

Replacement = str | Callable[[Match[str]], str]
Rule = tuple[str, str, re.Pattern[str], Replacement]


def _unless_shown(match: Match[str]) -> str:
    """A blank for an image URL; the URL itself where the picture is to show it."""
    before = match.string[max(0, match.start() - 24) : match.start()]
    return match[0] if SHOWN.search(before) else " "


def strip_bot_flags(text: str) -> str:
    """Without a bot's flag (`- n 9`) at the end. After a name it stays: "Boeing - n 9"."""
    stripped = text
    while found := BOT_FLAG.search(stripped, max(0, len(stripped) - END)):
        before = stripped[max(0, found.start() - END) : found.start()].split()
        if found[0][1:2] == " " and before and before[-1][0].isupper():
            break
        stripped = stripped[: found.start()]
    return stripped


def strip_sizes(text: str) -> str:
    """Without the picture's size in pixels at the end."""
    stripped = text
    while found := SIZE.search(stripped, max(0, len(stripped) - END)):
        sides = [int(side) for side in found.group("side", "width", "height") if side]
        dash = found["dash"] or found["joined"]
        if not dash and any(side % STEP or side < 256 for side in sides):
            break
        stripped = stripped[: found.start()].rstrip(" ,-")
    return stripped


def strip_bare_weights(text: str) -> str:
    """Without weights outside of brackets. One after a name stays, as a verse: "John:3"."""
    found = list(BARE_WEIGHT.finditer(text))
    if len(found) == 1:
        word = text[max(0, found[0].start() - END) : found[0].start()].split()[-1:]
        if not word or word[0][:1].isupper():
            return text
    return BARE_WEIGHT.sub("", text)


RULES: list[Rule] = [
    # (name in the table, does it occur at all?, pattern, replacement)
    ("image URL", "http", re.compile(r"<?\bhttps?://[^\s<>]+>?", re.I), _unless_shown),
    (
        "settings",
        "Steps:",
        re.compile(
            r"(?<![\s,])[\s,]*\bSteps: {0,9}\d+, {0,9}"
            r"(?:Sampler|Size|Seed|CFG scale|Schedule type)\b.*",
            re.S,
        ),
        " ",
    ),
    (
        "negative prompt",
        "egative prompt",
        re.compile(r"(?<![\s,])[\s,]*\bnegative prompts?:.*", re.I | re.S),
        " ",
    ),
    ("command", "/imagine", re.compile(r"/imagine(?: {1,9}prompt)? {0,9}:?", re.I), " "),
    # at the beginning: "prompt: …", "image 2: …"
    (
        "label",
        ":",
        re.compile(
            r"^\s{0,9}(?:(?:my|the|image|text|input|output|positive|main) ){0,2}"
            r"(?:prompt|picture|image|caption|description)(?: ?\d{1,2})? ?:\s{1,9}(?=\S)",
            re.I,
        ),
        "",
    ),
    # <photo quality=hd>…</photo>, as the first language models wrote it
    (
        "tag",
        "<",
        re.compile(
            r"< ?/? ?(?:photo|photograph|picture|image|img|painting|prompt)\b[^<>\n]{0,80}>"
            r"|</?(?:p|b|i|u|br|em|strong|div|span|h[1-6]) ?/?>|< ?/[^<>\n]{0,20}$",
            re.I,
        ),
        " ",
    ),
    ("network", "<", re.compile(r"<\w{1,40}:[^<>\n]+>"), " "),
    (
        "flag",
        "--",
        re.compile(r"(?<!\S)(?:--|[\u2014\u2013])no\b(?:(?!\s(?:--|[\u2014\u2013]))[\s\S])*", re.I),
        " ",
    ),
    (
        "flag",
        "--",
        re.compile(
            rf"\[--{FLAG}{VALUE}\](?: *,)?"
            rf"|(?<![\w-])(?:--(?:{CODE_FLAG}\b(?:[ =]+{CODE})*"
            rf"|{FLAG}(?:\b|(?=\d)){VALUE}?)(?: *,)?)+",
            re.I,
        ),
        " ",
    ),
    # an autocorrected --; without a value it may be a dash
    ("flag", "\u2014", re.compile(rf"(?<!\S)\u2014{FLAG}{VALUE}(?: *,)?"), " "),
    ("flag", "\u2013", re.compile(rf"(?<!\S)\u2013{FLAG}{VALUE}(?: *,)?"), " "),
    (
        "flag",
        "\u2014",
        re.compile(
            r"(?<!\S)\u2014(?:hd|niji|testp?|tile|upanime|uplight)(?=[\s,]*(?:$|--|\u2014))"
        ),
        " ",
    ),
    # whom Midjourney's bot names after the prompt
    (
        "command",
        "@",
        re.compile(
            r"(?<=\s)[-\u2013\u2014] ?(?:image #\d )?<?@\w{1,40}>? ?"
            r"\((?:fast|relaxed|turbo|stealth|, |\d{1,3}%)+\)\s{0,9}$",
            re.I,
        ),
        " ",
    ),
    # a whole number above 20 may be meant: "SALE::50"
    (
        "weight",
        "::",
        re.compile(
            r"(?<! ) *::(?:(?:-?(?:1?\d|20)(?![\d.])|-?\d{0,2}\.\d+|-?1?\d\.(?!\d))(?!\w|:(?!:))"
            r"|(?=[\s,]|$))\s{0,9},?"
        ),
        ", ",
    ),
]
# after the weights in brackets
LATE_RULES: list[Rule] = [
    (
        "weight",
        ":",
        re.compile(rf"(?<=[A-Za-z\])]):[0-2]?\.\d{{1,2}}(?![\w.:]| ?{MEASURES}\b)"),
        "",
    ),
    ("BREAK", "BREAK", re.compile(r"(?:(?<=,)|(?<=\n)) *BREAK *(?=,|\n|$)"), " "),
]
COMMAS = re.compile(r"(?<!\s)\s*,(?:\s*,)+")


def strip(text: str) -> tuple[str, list[str]]:
    """`text` without generator syntax, and the names of the rules that changed it."""
    applied: list[str] = []
    text = _apply(RULES, text, applied)
    without_bot = strip_bot_flags(text)
    applied += ["flag"] * (without_bot != text)
    text = without_bot
    without_size = strip_sizes(text)
    applied += ["size"] * (without_size != text)
    text = without_size
    if ":" in text:
        without_weights = strip_bare_weights(text)
        applied += ["weight"] * (without_weights != text)
        text = without_weights
    if "(" in text and ":" in text:
        without_weights = strip_weights(text)
        applied += ["weight"] * (without_weights != text)
        text = without_weights
    text = _apply(LATE_RULES, text, applied)
    if applied:  # what stood around the stripped part
        text = COMMAS.sub(",", text).strip().strip(",").strip()
    return text, applied


def _apply(rules: list[Rule], text: str, applied: list[str]) -> str:
    for name, sign, pattern, replacement in rules:
        if sign in text or (name == "command" and "/Imagine" in text):
            shorter = pattern.sub(replacement, text)
            applied += [name] * (shorter != text)
            text = shorter
    return text


class _Bracket:
    """An opened bracket: its place in the output, and what stands in it."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.colons = 0
        self.last_colon = 0
        self.holds_brackets = False


def strip_weights(text: str) -> str:
    """(word:1.2) is word; ((a:1.1) b:1.2) is a b: one pass over the text, from the inside out."""
    out: list[str] = []
    opened: list[_Bracket] = []
    for character in text:
        if character == ")" and opened:
            bracket = opened.pop()
            if _is_weight(out, bracket):
                out[bracket.start] = ""
                del out[bracket.last_colon :]
                while out and out[-1] == " ":
                    out.pop()
                continue
            if opened:
                opened[-1].holds_brackets = True
        elif character == "(":
            opened.append(_Bracket(len(out)))
        elif character == ":" and opened:
            opened[-1].colons += 1
            opened[-1].last_colon = len(out)
        out.append(character)
    return "".join(out)


def _is_weight(out: list[str], bracket: _Bracket) -> bool:
    """Whether a bracket that closes now holds words, a colon and a weight."""
    if bracket.colons != 1 or bracket.holds_brackets:
        return False
    if len(out) - bracket.last_colon > LONGEST_WEIGHT:
        return False
    number = "".join(out[bracket.last_colon + 1 :])
    words = "".join(out[bracket.start + 1 : bracket.last_colon][-40:]).rstrip(" ")
    if not WEIGHT_NUMBER.fullmatch(number) or not words or words[-1].isdigit():
        return False
    # (John:3) is a verse: a name and a whole number
    return "." in number or " " in words or not words[:1].isupper()
