"""Find texts of an LLM that are no prompt: refusals, notes, placeholders, markup.

fault_of("I'm sorry, but I can't help with that.")      # "refusal"
fault_of("Sorry! board game on a wooden table")         # None

What stands in quotation marks is part of the picture and not looked at.
"""

import re

from common.texts import fold, word_set

QUOTED = re.compile(r"\"[^\"]{1,300}\"|“[^”]{1,300}”")
I_AM_SORRY = re.compile(
    r"^(?:i'?m|i am|we are|we're) (?:so |very |really )?(?:sorry|afraid)\b"
    r"|^sorry,? (?:but )?(?:i|we|as|this|that|the request)\b"
    r"|^(?:my |i offer my |please accept my )?apologies\b|^i apologi[sz]e\b"
    r"|^unfortunately,? (?:i|we|this|the|my|your)\b"
    r"|^as an? (?:ai\b|large language|language model|text)"
)
I_CANNOT = re.compile(
    r"^(?:i|we)(?:'m| am| are| do|'d| would| will| have to| must)? ?"
    r"(?:cannot|can not|can't|won't|will not|not|don't|do not|unable|decline|refuse|rather not)\b"
    r".{0,30}\b(?:able|answer|as|assist|be able|comfortable|complete|comply|continue|create"
    r"|describe|discuss|do (?:that|this|it)|engage|fulfil|fulfill|generate|help|make|process"
    r"|produce|provide|respond|support|think|write)\b"
)
DECLINED = re.compile(r"^(?:i|we) (?:must|have to|will|respectfully|would)? ?(?:decline|refuse)\b")
POLICY = re.compile(
    r"\b(?:violat\w*|against|breach\w*|infring\w*) (?:the |our |my |your |its )?"
    r"(?:content |usage |safety |community )?(?:polic|guideline|programming|terms|copyright)"
    r"|\bcontent (?:policy|warning)\b|\bsafety (?:system|filter)\b"
    r"|\b(?:request|prompt|content|message|response) (?:was |is |has been |cannot be )?"
    r"(?:denied|blocked|refused|rejected|removed|not allowed|filtered|fulfilled)\b"
    r"|\bnot appropriate to\b|\bcan only (?:help|assist)\b|\binappropriate (?:content|request)\b"
)
A_TEXT = (
    r"(?:variations?|captions?|rewrites?|prompts?|versions?|descriptions?|options?|rewordings?)"
)
NOTE = re.compile(
    r"^(?:notes?|explanation|disclaimer|comment|remark|changed|changes|total|subject|hint|tip"
    r"|warning|summary|translation|original|theme|themes|style|json|output) ?:"
    r"|\bnote: |^(?:new|modified|revised|alternative) ?: "
    # attributes as they were given, instructions to a painter, and what is left out
    r"|(?:[;,.|(-] ?)(?:place|time|era|culture|style|medium|light|lighting|shot|mood) ?: "
    r"|\bwith (?:the )?attributes?\b"
    r"|^(?:change|replace|swap|substitute|switch) (?:the|its|his|her|a|an) .{1,60}"
    r"\b(?:to|with|for|by|into) "
    r"|[.!;] (?:keep|add|make|change|replace) (?:the|it|its|more|some) "
    r"|\b(?:and so on|and so forth|etc)\W*$| (?:\.\.\.|\u2026)$"
    r"|\((?:the )?(?:same|original|variation|version|option|unchanged|modified|changed|rewritten)\b"
    rf"|, {A_TEXT} [a-z\d]$"
    r"|^(?:all|each|every|the|these|this|those|both) (?:of )?(?:the |these )?(?:above |following )?"
    rf"(?:\d+ |two |three |five |ten )?{A_TEXT}\b"
    r"|^(?:here|below|above|following)(?:'s| is| are)\b"
    rf".{{0,60}}\b(?:{A_TEXT}|json|list|take|ideas)\b"
    r"|^in (?:this|the|each|every) (?:\w+ )?(?:variation|version|caption|rewrite|one)\b"
    r"|\bhope (?:this|these|that|it|you)\b.{0,60}\b(?:helps?|like|enjoy|useful|meets?)\b"
    r"|^let me know\b|^feel free\b|^enjoy\W*$|^please (?:let|note|provide|tell|find)\b"
    r"|^(?:sure|certainly|of course|ok|okay|absolutely|great|alright|got it|understood)[!,.:]"
    r"(?: |$)(?!.{0,40}\b(?:board|sign|painting|photo)\b)"
    r"|^i(?:'ve| have)? (?:also )?(?:kept|changed|replaced|rewrote|rewritten|tried|used|chose"
    r"|varied|aimed|wrote|included|created|generated)\b"
    rf"|\b{A_TEXT}\b.{{0,40}}\b(?:completed|requested|you asked for|as requested)\b"
    rf"|^your (?:request|{A_TEXT})\b"
    rf"|^(?:end of|list of)\b.{{0,20}}\b(?:list|output|answer|{A_TEXT})\b"
    r"|\bjson\b.{0,30}\b(?:strings?|output|format|array)\b"
    r"|->|→|=>|:$|^\(.*\)$|^\[.*\]$"
)
MARKUP = re.compile(
    r"^#{1,6} |^\|.*\||!?\[[^\]]{0,200}\]\([^)]{0,300}\)|```|^[-=_*]{3,}$"
    r"|</?[a-z][a-z0-9]{0,15}(?: [^<>]{0,200})?>|<\w{1,20}:[^<>]{0,100}>|https?://"
    r"|^/imagine\b|(?:^|\s)--[a-z]|:-?\d\.\d+\)|::-?\d|\bnegative prompt ?:"
    r"|\b(?:steps|cfg scale|sampler|seed): ?\d|(?:^|\s)#[a-z]\w"
    r"|[\[{<]{1,2}[a-z][a-z_ -]{1,30}[\]}>]"
)
MOST_TIMES = 3  # that a word, or a phrase between commas, may follow itself
# A text of nothing but these is none: "first rewrite", "a different caption", "insert text here".
META = word_set(
    """a an the of in to with and for your my this that here goes insert another other different new
    alternative original rewritten first second third fourth forth fifth sixth seventh eighth ninth
    tenth one two three four five six seven eight nine ten number variation variations caption
    captions rewrite rewrites prompt prompts text texts example examples string strings version
    placeholder title description image output true false null none nan undefined todo tbd n na
    untitled etc"""
)
FEWEST_LETTERS = 3


def fault_of(text: str) -> str | None:
    """Why a text is no caption: "refusal" or "unusable"; None if it can be one."""
    plain = text.lower().replace("’", "'")  # noqa: RUF001
    plain = QUOTED.sub('""', plain)
    if any(rule.search(plain) for rule in (I_AM_SORRY, I_CANNOT, DECLINED, POLICY)):
        return "refusal"
    if NOTE.search(plain) or MARKUP.search(plain):
        return "unusable"
    words = fold(text).split()
    if _is_loop(words) or _is_loop([part.strip() for part in plain.split(",")]):
        return "unusable"
    if all(word in META or word.isdigit() for word in words):
        return "unusable"
    letters = sum(character.isalpha() for character in text)
    return "unusable" if letters < FEWEST_LETTERS else None


def _is_loop(parts: list[str]) -> bool:
    """Whether one to three parts are said again and again: "red red red red", "a b a b a b"."""
    for size in (1, 2, 3):
        most = MOST_TIMES if size == 1 else MOST_TIMES - 1
        run = 0
        for place in range(size, len(parts)):
            run = run + 1 if parts[place] and parts[place] == parts[place - size] else 0
            if run >= size * most:
                return True
    return False
