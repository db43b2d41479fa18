"""Undo tokenised spacing, as a part of DiffusionDB's prompts (so of ImageRewardDB's, and what people pasted elsewhere) went through:

    1 9 8 0 s -> 1980s   8 k -> 8k   cinema 4 d -> cinema 4d   ( ( x ) ) -> ((x))   1 6 : 9 -> 16:9   f 1. 4 -> f 1.4   sci - fi -> sci-fi

A third of the prompts have it, the others not, so each rule looks for the spacing itself and leaves what could also have been meant:
`4 knights` is four knights, `1 2 3 4 5` is counting, `painting - kawaii` may be a dash, so only known compounds join.
"""

import re

# A run of 2-4 single digits is one number: 5 and more are several numbers without a seam ("8 5 0 5 5 mm"), and stay.
DIGITS = re.compile(r"(?<!\S)(?<!\d )([(\[\"'$#~]*)(\d(?: \d){1,3})(?!\w| \d(?!\w))")
COUNTING = "0123456789 9876543210"
# k and d go with any number (8k, 4d); s makes decades only (80s, 1980s); "8 bit", "35 mm", "20 year old" read well as they are
UNIT = re.compile(r"(?<![\w.-])\d+ [kdKD](?![\w'])|(?<!\w)\d*0 s(?![\w'])|(?<!\w)\d*(?:1 st|2 nd|3 rd|[04-9] th|1[1-3] th)(?!\w)")
THOUSANDS = re.compile(r"(?<![\w.,])(\d(?: \d){0,2}) ?, (0 0 0)(?! ?\d)")  # 4 0, 0 0 0; but "f 4. 2, 2 5 0 mm" are two numbers
# not "no. 3. 5 cats"
DECIMAL = re.compile(r"(?<!\w)(f ?/? ?)(\d{1,2})\. (\d{1,2})(?=mm\b|\W|$)|(?<![\w.])()(\d{1,2})\. (\d{1,2})(?= ?mm\b| ?[,)|]|$)")
RATIO = re.compile(r"(?<![\w:.-])(\d{1,4}) ([:/]) (\d{1,4})(?![\w:-])")
APERTURE = re.compile(r"(?<!\w)f / ?(?=\d)")
OPENING = re.compile(r"([(\[{]) +(?=\S)")
CLOSING = re.compile(r"(?<=\S) +(?=[)\]}])")
SPACED_BRACKETS = re.compile(r"[(\[{] [^()\[\]{}]|[^()\[\]{}\s:;] [)\]}]|[(\[{] [(\[{]|[)\]}] [)\]}]")
COMMA = re.compile(r"(?<=[^\s,.]) +(?=[,.](?:\s|$))")
DOUBLE_COLON = re.compile(r"(?<!:) : :(?!\S)")
APOSTROPHE = re.compile(r"(?<=[A-Za-z]) ' (?=(?:s|t|re|ve|ll|d|m)\b)")
HYPHENS = re.compile(r"(?<![\w'-])[A-Za-z0-9]+(?:-[A-Za-z]+)*(?: - [A-Za-z]+)+(?![\w'])")
ENTITY = re.compile(r" ?& # (\d(?: \d)+) ; ?(?=s\b)|& # (\d(?: \d)+) ;")  # gentleman & # 0 3 9 ; s
YEAR_2K = re.compile(r"(?<!\w)2 k (\d) (\d)(?! ?\d)")

# Compounds among 10,000 real prompts (868 " - ", 420 kinds): a prefix, an ending, or a fixed pair. Anything else may be a dash and stays.
PREFIXES = set("""
    anti award bio cel close co cross cyber double eco ex extra four full half hi high hsiao hyper jean lo long low medium mega mid
    mini mono multi neo non obi papier perfectly post pre pro proto ray retro sci self semi short single spider sub super t techno
    three trans tri two u ukiyo ultra un well wide william wou x year yu""".split())
ENDINGS = set("""
    adolphe alike apocalyptic armed based bearded blown bodied bound breasted breathing capped carved century clad coated colored
    coloured covered crafted detailed dressed driven edged esque eyed faced fi filled fructose fueled haired handed headed horned
    inspired inspiring ish jawed jointed legged like lit looking masked mounted painted patterned plated powered punk raphaelite rated
    realism realistic rimmed sama shaded shaped shaven sized skinned style styled themed toned toothed traced tracing winged
    winning""".split())
PAIRS = {pair.strip() for pair in """
    art deco, art nouveau, built in, chain mail, chan wook, chun li, coca cola, didier pouget, eye level, fairy tale, ground level,
    hip hop, hyung tae, in frame, in game, jacques louis, k pop, lapis lazuli, make up, om d, orang utan, photo bash, pin up,
    pixel art, science fiction, scooby doo, see through, side view, slicked back, still life, stop motion, synth wave, time lapse,
    upside down, v ray, vapor wave, witch doctor, yog sothoth""".split(",")}
AFTER_NUMBER = set("axis bit d day foot hour inch minute piece point story way year years".split())
MIDDLES = set("a and by in o of on the to up".split())  # ghost-in-the-shell, wet-on-wet


def join(text):
    """`text` without tokenised spacing. Changes blanks only, never a letter, a digit or a sign."""
    if " " not in text:
        return text
    text = ENTITY.sub(lambda m: f"&#{(m[1] or m[2]).replace(' ', '')};", text)
    text = YEAR_2K.sub(r"2k\1\2", text)
    text = THOUSANDS.sub(lambda m: m[1].replace(" ", "") + "," + m[2].replace(" ", ""), text)
    text = DIGITS.sub(_number, text)
    text = UNIT.sub(lambda m: m[0].replace(" ", ""), text)
    text = DECIMAL.sub(lambda m: f"{m[1] or ''}{m[2] or m[5]}.{m[3] or m[6]}", text)
    text = RATIO.sub(r"\1\2\3", text)
    text = APERTURE.sub("f/", text)
    if SPACED_BRACKETS.search(text):
        text = CLOSING.sub("", OPENING.sub(r"\1", text))
    text = COMMA.sub("", text)
    text = DOUBLE_COLON.sub("::", text)
    text = APOSTROPHE.sub("'", text)
    return HYPHENS.sub(_compound, text)


def _number(match):
    digits = match[2].replace(" ", "")
    if len(digits) > 2 and digits in COUNTING:
        return match[0]
    return match[1] + digits


def _compound(match):
    words = match[0].split(" - ")
    whole = any(word.lower() in MIDDLES for word in words[1:-1])
    text = words[0]
    for before, after in zip(words, words[1:]):
        first, second = before.rsplit("-", 1)[-1].lower(), after.lower()
        known = second in AFTER_NUMBER if first.isdigit() else first in PREFIXES or second in ENDINGS or f"{first} {second}" in PAIRS
        text += ("-" if whole or known else " - ") + after
    return text
