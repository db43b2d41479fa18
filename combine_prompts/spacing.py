"""Undo tokenised spacing (`8 k`, `sci - fi`), as part of DiffusionDB's prompts have it.

    1 9 8 0 s -> 1980s     8 k -> 8k        cinema 4 d -> cinema 4d    ( ( x ) ) -> ((x))
    1 6 : 9 -> 16:9        f 1. 4 -> f 1.4  sci - fi -> sci-fi

Only a third of the prompts have it. So each rule looks for the spacing itself and leaves what the
author may have meant: `4 knights` are four knights, `1 2 3 4 5` is counting, and `painting -
kawaii` may have a dash, so only known compounds are joined.
"""

import re
from collections import Counter
from functools import partial
from itertools import pairwise
from re import Match

from common.texts import phrase_set, word_set

# A run of 2-4 single digits is one number: 5 and more are several numbers without a seam ("8 5 0 5
# 5 mm"), and stay. Signs may stand before it. Behind a quote it is looked for anew, so only up to
# the next one.
DIGITS = re.compile(
    r"((?<!\S)(?<!(?<![\d.])\d )[(\[\"'$#~]*|(?<=')[(\[\"$#~]*)"
    r"(\d(?: \d){1,3})(?!\w| \d(?!\w))"
)
COUNTING = "0123456789 9876543210"
# "4 0 k" is one number, "portra 4 0 0 8 k" and "unreal engine 5 8 k" are two: no other thousands of
# k are spoken of
RUN_UNIT = re.compile(r"(?<!\S)(?<!(?<![\d.])\d )(\d(?: \d){1,3}) ([kdKD])(?![\w'-])")
THOUSANDS_OF_K = word_set("10 12 14 15 16 18 20 24 30 32 40 50 60 64 80 96 100 128 200 256 512")
# k and d go with any number (8k, 4d); s makes decades and years only (80s, 1979s); "8 bit", "35
# mm", "20 year old" read well as they are
UNIT = re.compile(
    r"(?<![\w.-])[1-9]\d* [kdKD](?![\w'-])"
    r"|(?<!\w)(?:\d+0|1\d{3}|20\d\d) s(?![\w'-])"
    r"|(?<!\w)800 [tT](?![\w'-])"
    r"|(?<!\w)(?:240|360|480|720|1080|1440|2160) [pP](?![\w'.-])"
    r"|(?<!\w)\d*(?:1 st|2 nd|3 rd|[04-9] th|1[1-3] th)(?!\w)"
)
# 4 0, 0 0 0; but "f 4. 2, 2 5 0 mm" are two numbers
THOUSANDS = re.compile(r"(?<![\w.,])\d(?: \d){0,2}(?: ?, 0 0 0)+(?! ?0)")
# One digit follows the point: f 1. 8 5 0 mm, f 3. 5 1 / 1 6 0 0. Where it might begin the next
# number, f 2. 8 5 mm, nothing is done; nor without the f: "unreal engine 5. 3 5 mm"
DECIMAL = re.compile(
    r"(?<!\w)([f\u0192] ?/? ?)"
    r"(0\. 9 5"
    r"|(?:1\. \d|2\. [0258]|3\. [25]|4\. 5|5\. 6)(?= \d(?: \d| /| [kd]\b))"
    r"|\d ?\d?\. \d(?! ?\d| [kd]\b))(?!\w)"
)
RATIO = re.compile(r"(?<![\w:.-])(\d{1,4}) ([:/]) (\d{1,4})(?=s\b|[^\w:-]|$)")
APERTURE = re.compile(r"(?<!\w)f / ?(?=\d)")
WORDS = re.compile(r"(?<![\w'&])(?:y 2 ?k|c 4 ?d|2\. 5 ?d|d & d|b & w|r & b)(?![\w'&])", re.I)
OPENING = re.compile(r"([(\[{]) +(?=\S)")
CLOSING = re.compile(r"(?<=\S) +(?=[)\]}])")
SPACED_BRACKETS = re.compile(
    r"[(\[{] [^()\[\]{}]|[^()\[\]{}\s:;] [)\]}]|[(\[{] [(\[{]|[)\]}] [)\]}]"
)
COMMA = re.compile(r"(?<=[^\s,.:;]) +(?=[,.:;](?:\s|$))|(?<=\d) +(?=%)|(?<=\S #) +(?=\w)")
DOUBLE_COLON = re.compile(r"(?<!:) : :(?!\S)")
APOSTROPHE = re.compile(r"(?<=[A-Za-z]) ' (?=(?:s|t|re|ve|ll|d|m)\b)|(?<=\d) ' (?=s\b)")
# The only pair of its kind, or which quote opens? A single one closes before punctuation: "the dogs
# ' house and the cats ' food"
QUOTED = re.compile(
    r"""(?<!\S)(?<!\d )(["']) ((?:(?!\1).)+) \1(?:(?<=")(?![\w'"])|(?=$|[,.;:!?)]))"""
)
# ak - 47
MODEL = re.compile(
    r"(?<![\w'-])(ak|b|covid|f|mg|mp|rx|sr|su|t|u|v) - (\d{1,3})(?![\w:/-]|\.\w| ?mm\b)", re.I
)
HYPHENS = re.compile(r"(?<![\w'-])[A-Za-z0-9]+(?:-[A-Za-z]+)*(?: - (?:[A-Za-z]+|\d0s))+(?![\w'])")
FOLLOWING = re.compile(r" (\w+)")
LEICA = re.compile(r"(?<!\w)(sl) 2 ([1-9]) (\d) mm(?!\w)")  # a camera and its lens, not 250 mm
UNDERSCORE = re.compile(r"(?<=\w) _ (?=\w)")  # furry _ fandom
ENTITY = re.compile(r" ?& # (\d(?: \d)+) ; ?(?=s\b)|& # (\d(?: \d)+) ;")  # gentleman & # 0 3 9 ; s
YEAR_2K = re.compile(r"(?<!\w)((?:nba|wwe|nfl|mlb|tour) )2 k (\d) (\d)(?! ?\d)", re.I)

# Compounds among 10,000 real prompts (868 " - ", 420 kinds): a prefix, an ending, or a fixed pair.
# Anything else may be a dash and stays: so words that also end a clause ("up close - photo",
# "medium - oil") are no prefixes, and "a cat - realistic" makes no ending.
PREFIXES = word_set(
    """anti bio cel co cyber eco ex half hsiao high hyper inter jean lo low mega mid mini mono
    multi neo non obi papier perfectly post pre proto sci self semi sub super trans tri ukiyo
    ultra un well wou"""
)
ENDINGS = word_set(
    """adolphe aged armed based bearded blown bodied boiled bound breasted breathing capped carved
    century chan clad coated colored coloured covered crafted dressed driven edged esque eyed
    faced fi filled fueled furred haired handed headed horned hybrid inspired ish jawed jointed
    legged like lit looking masked mounted patterned plated powered rimmed sama san shaded
    shaped shaven sized skinned soaked style styled themed throwing toned toothed traced tracing
    winged winning"""
)
# what follows a clause and never such a compound: "girl - looking at the sea", "castle - inspired
# by escher", "fox - colored pencil"
CLAUSE = word_set(
    """a after an as at away back by down for from in into like of on out over pencil pencils the
    through to up with"""
)
PAIRS = phrase_set(
    """alma tadema, art deco, art house, art nouveau, at st, attention grabbing, awe inspiring, b
    movie, b roll, bastien lepage, battle axe, body shot, built in, chain mail, chan wook, chun
    li, close up, close ups, coca cola, cold weather, comic book, computer animated, cute fine,
    cyber punk, d cup, day lewis, didier pouget, diesel punk, double exposure, e m, etienne
    louis, eye level, eye view, fairy tale, fine face, flame throwing, full body, full color,
    full colour, full face, full frame, full hd, full length, full page, funko pop, gi oh, glow
    worms, greek revival, ground level, hand drawn, hand painted, he man, head on, hi def, hi
    fructose, hi res, hi tech, highly detailed, hip hop, hyung tae, in frame, in game, indo
    islamic, j pop, jacque louis, jacques louis, jong un, k pop, laid back, lapis lazuli,
    lecouffe deharme, live action, long exposure, long shot, long sleeved, look alike, lounge
    room, make up, mamou mani, medium format, medium shot, mind blowing, mintz plasse, modersohn
    becker, ocasio cortez, om d, orang utan, owl bear, photo bash, photo realistic, pierre
    joseph, pin up, pixar style, pixel art, punch out, real life, retro future, retro
    futuristic, ronner knip, science fiction, scooby doo, see through, she demon, shub
    niggurath, side view, slicked back, solar punk, spider gwen, spider man, spider verse,
    spider woman, stained glass, star gate, steam punk, still life, stop motion, synth wave, t
    pose, t rex, t shirt, t shirts, taylor joy, techno spirit, three piece, time lapse, top
    rated, toulouse lautrec, turbo charged, two piece, u boat, upside down, v ray, vanishing
    point, vapor wave, warrior princess, wide angle, wide lens, wide screen, wide shot, witch
    doctor, worms eye, x men, x ray, x t, x wing, year old, yog sothoth, yu gi, yukio e, kar
    wai, wong kar, hou hsiao, park chan, bong joon, joon ho, lee jung, kim jong, jean luc, jean
    paul, jean pierre, marie antoinette, anne marie"""
)
AFTER_NUMBER = word_set("axis bit d day foot hour inch minute piece point story way year years")
MIDDLES = word_set("a and by in it o of on the to up")  # ghost-in-the-shell, wet-on-wet


def join(text: str) -> str:
    """`text` without tokenised spacing. Changes blanks only, never a letter, a digit or a sign."""
    if " " not in text:
        return text
    text = ENTITY.sub(lambda m: f"&#{(m[1] or m[2]).replace(' ', '')};", text)
    text = LEICA.sub(r"\1 2 \2\3 mm", text)
    text = UNDERSCORE.sub("_", text)
    text = YEAR_2K.sub(r"\g<1>2k\2\3", text)
    text = WORDS.sub(_together, text)
    text = DECIMAL.sub(lambda m: m[1] + m[2].replace(" ", ""), text)
    text = THOUSANDS.sub(_together, text)
    text = RUN_UNIT.sub(_run_with_unit, text)
    text = DIGITS.sub(_number, text)
    text = UNIT.sub(_together, text)
    text = RATIO.sub(r"\1\2\3", text)
    text = APERTURE.sub("f/", text)
    if SPACED_BRACKETS.search(text):
        text = CLOSING.sub("", OPENING.sub(r"\1", text))
    text = DOUBLE_COLON.sub("::", text)
    text = COMMA.sub("", text)
    text = APOSTROPHE.sub("'", text)
    text = QUOTED.sub(partial(_quoted, counts=Counter(text)), text)
    text = MODEL.sub(r"\1-\2", text)
    return HYPHENS.sub(_compound, text)


def _together(match: Match[str]) -> str:
    return match[0].replace(" ", "")


def _quoted(match: Match[str], counts: Counter[str]) -> str:
    return match[1] + match[2] + match[1] if counts[match[1]] == 2 else match[0]


def _run_with_unit(match: Match[str]) -> str:
    digits = match[1].replace(" ", "")
    unit = match[2]
    if unit in "kK":
        is_one = digits in THOUSANDS_OF_K or digits[-1] not in "248"
    else:
        is_one = digits[-1] not in "234"
    return digits + unit if is_one else f"{digits[:-1]} {digits[-1]}{unit}"


def _number(match: Match[str]) -> str:
    digits = match[2].replace(" ", "")
    if len(digits) > 2 and digits in COUNTING:
        return match[0]
    return match[1] + digits


def _compound(match: Match[str]) -> str:
    words = match[0].split(" - ")
    is_whole = any(word.lower() in MIDDLES for word in words[1:-1])
    is_whole = is_whole or words[-1].lower() == "hybrid"
    following = FOLLOWING.match(match.string, match.end())
    next_word = following[1].lower() if following else ""
    text = words[0]
    for position, (before, after) in enumerate(pairwise(words), 2):
        is_last = position == len(words)
        joined = is_whole or _joins(before, after, next_word if is_last else "")
        text += ("-" if joined else " - ") + after
    return text


def _joins(before: str, after: str, next_word: str) -> bool:
    """Whether two words are a compound; `next_word` tells whether the second begins a clause."""
    first = before.rsplit("-", 1)[-1].lower()
    second = after.lower()
    if first.isdigit():
        return second in AFTER_NUMBER
    if first in PREFIXES or f"{first} {second}" in PAIRS:
        return True
    return second in ENDINGS and next_word not in CLAUSE
