"""Undo tokenised spacing, as a part of DiffusionDB's prompts (so of ImageRewardDB's, and what people pasted elsewhere) went through:

    1 9 8 0 s -> 1980s   8 k -> 8k   cinema 4 d -> cinema 4d   ( ( x ) ) -> ((x))   1 6 : 9 -> 16:9   f 1. 4 -> f 1.4   sci - fi -> sci-fi

A third of the prompts have it, the others not, so each rule looks for the spacing itself and leaves what could also have been meant:
`4 knights` is four knights, `1 2 3 4 5` is counting, `painting - kawaii` may be a dash, so only words that are known to form compounds join.
"""

import re

# A run of 2-4 single digits is one number: 5 and more are several numbers without a seam ("8 5 0 5 5 mm"), and stay.
DIGITS = re.compile(r"(?<!\S)(?<!\d )([(\[\"'$#~]*)(\d(?: \d){1,3})(?! ?\d)")
COUNTING = "0123456789 9876543210"
# k and d go with any number (8k, 4d); s makes decades only (80s, 1980s); "8 bit", "35 mm", "20 year old" read well as they are
UNIT = re.compile(r"(?<![\w.-])(\d+) (k|d|K|D)(?![\w'])|(?<!\w)(\d*0) (s)(?![\w'])|(?<!\w)(\d*(?:1 st|2 nd|3 rd|[04-9] th|1[1-3] th))(?!\w)")
THOUSANDS = re.compile(r"(?<![\w,])(\d(?: \d){0,2}) ?, (\d \d \d)(?! ?\d)")
DECIMAL = re.compile(r"(?<![\w.])(f ?/? ?|)(\d{1,2})\. (\d{1,2})(?=mm\b| mm\b|[ ]?[,)|]|$| (?!\d))")
RATIO = re.compile(r"(?<![\w:.])(\d{1,4}) ([:/]) (\d{1,4})(?![\w:])")
APERTURE = re.compile(r"(?<!\w)f / ?(?=\d)")
OPENING = re.compile(r"([(\[{]) +(?=\S)")
CLOSING = re.compile(r"(?<=\S) +(?=[)\]}])")
SPACED_BRACKETS = re.compile(r"[(\[{] [^()\[\]{}]|[^()\[\]{}\s:;] [)\]}]|[(\[{] [(\[{]|[)\]}] [)\]}]")
COMMA = re.compile(r"(?<=[^\s,.]) +(?=[,.](?:\s|$))")
DOUBLE_COLON = re.compile(r"(?<!:) : :(?!\S)")
APOSTROPHE = re.compile(r"(?<=[A-Za-z]) ' (?=(?:s|t|re|ve|ll|d|m)\b)")
HYPHEN = re.compile(r"(?<![\w'-])([A-Za-z0-9]+(?:-[A-Za-z]+)*) - ([A-Za-z]+)(?![\w'])")

# Compounds seen among 10,000 real prompts (868 " - ", 420 kinds): the first word or the second decides
BEFORE = set("""all anti award bio black blood blue bright brown casually cel clean close co cross cyber dark deep dream eco ex extra eye far fair first fine fish
    flat four front full futuristic golden gray green grey half hand hard heavy hi high highly hyper ice ill in inter iron jean large left
    light lo long low macro make medium mega meso mid middle mind mini mono mr multi near neo next non obi old one open over papier
    perfectly photo pig pin pink pop post pre pro psycho purple quarter ray re real red retro sci second self semi short shoulder side silver single six skin
    slicked slow snow soft spider steam still stop strong sub super sun symbol t tech techno third three tilt top tri true two u ukiyo ultra under
    very v vapor water well wet white wide wild william wind worn x yellow young hsiao scooby yu chun hyung ken tomino didier ocasio jacques marie
    pierre chan jean-baptiste wou synth witch ghost photo""".split())
AFTER = set("""adolphe alike angle apocalyptic armed art back baked bash based bearded body born bound breasted capped carved century chested clad
    class coated color colored colour coloured con coded covered crafted cut depth detail detailed doo doll dressed e edge edged effect end eyed face faced fi
    filled focus format free fructose fu fueled gi gothic hair haired hand headed high hop horned inspired key legged length level life like lit
    looking mache made man mounted new o old on orc painted paint patterned piece pixel point pop pouget powered processing production punk quality
    raphaelite rated ray ready real realism realistic ron savvy sama scale scene set shaded shaped shaven shell shirt shot side sized skinned
    speed star style styled tech themed thin tone toned tooth traced trace type up view wave wide winged winning world worn year""".split())


def join(text):
    """`text` without tokenised spacing. Changes blanks only, never a letter, a digit or a sign."""
    if " " not in text:
        return text
    text = THOUSANDS.sub(lambda m: m[1].replace(" ", "") + "," + m[2].replace(" ", ""), text)
    text = DIGITS.sub(_number, text)
    text = UNIT.sub(lambda m: m[0].replace(" ", ""), text)
    text = DECIMAL.sub(lambda m: f"{m[1]}{m[2]}.{m[3]}", text)
    text = RATIO.sub(r"\1\2\3", text)
    text = APERTURE.sub("f/", text)
    if SPACED_BRACKETS.search(text):
        text = CLOSING.sub("", OPENING.sub(r"\1", text))
    text = COMMA.sub("", text)
    text = DOUBLE_COLON.sub("::", text)
    text = APOSTROPHE.sub("'", text)
    return HYPHEN.sub(_compound, text)


def _number(match):
    digits = match[2].replace(" ", "")
    if len(digits) > 2 and digits in COUNTING:
        return match[0]
    return match[1] + digits


def _compound(match):
    first, second = match[1].rsplit("-", 1)[-1].lower(), match[2].lower()
    known = (first in BEFORE or second in AFTER) and len(match[1]) > 0
    if first.isdigit():
        known = second in ("year", "years", "point", "bit", "d", "piece", "inch", "foot", "minute", "hour", "day", "way", "story", "axis")
    return f"{match[1]}-{match[2]}" if known else match[0]
