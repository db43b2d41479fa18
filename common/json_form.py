"""The form of the JSON that this project writes and reads again: other values are damage.

    INDEX = {"shardlist": [{"url": str, "nsamples": COUNT}], "where?": (None, {"rows": COUNT})}
    index = in_form(read_json(path), INDEX)        # ValueError: shardlist[3].nsamples is 'x'

A form is None, str, bool, a range of whole numbers, a pattern of texts, a function that says yes,
a tuple (one of its forms; an error speaks of the last), a list (of one form), or a mapping: of
fields ("where?" may be missing, others may be there, too), or {str: form} of any names.
"""

import math
import re
import reprlib
from typing import Any

Form = Any  # as above
COUNT = range(1 << 63)  # what Arrow, SQLite and Linux take
TIME_NS = range(-1 << 63, 1 << 63)  # of a file; one of before 1970 is negative
SHA256 = re.compile("[0-9a-f]{64}")
LARGEST = 1e300  # of a number that is shown or added up


def number(value: object) -> bool:
    """The form of any finite number."""
    whole = type(value) is int and abs(value) < LARGEST
    return whole or (type(value) is float and math.isfinite(value) and abs(value) < LARGEST)


def in_form(value: Any, form: Form) -> Any:
    """The value. ValueError, which says where: it has another form."""
    if fault := _fault(value, form, ""):
        raise ValueError(fault)
    return value


def has_form(value: Any, form: Form) -> bool:
    """Whether a value has a form."""
    return not _fault(value, form, "")


def _fault(value: Any, form: Form, place: str) -> str:
    """What is wrong at the first place that has another form; "": nothing."""
    if isinstance(form, tuple):
        faults = [_fault(value, one, place) for one in form]
        return "" if "" in faults else faults[-1]
    if isinstance(form, list) and isinstance(value, list):
        found = (_fault(one, form[0], f"{place}[{n}]") for n, one in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(form, dict) and isinstance(value, dict):
        return _fault_in_fields(value, form, place)
    if _is_plain(value, form):
        return ""
    return f"{place or 'it'} is {reprlib.repr(value):.60}"


def _fault_in_fields(value: dict[str, Any], form: dict[Any, Form], place: str) -> str:
    if str in form:
        for name, one in value.items():
            wrong_name = _fault(name, str, f"a name in {place or 'it'}")
            if fault := wrong_name or _fault(one, form[str], f"{place}.{name}".lstrip(".")):
                return fault
        return ""
    for field, one in form.items():
        name = field.removesuffix("?")
        below = f"{place}.{name}".lstrip(".")
        if name not in value:
            if name == field:
                return f"{below} is missing"
        elif fault := _fault(value[name], one, below):
            return fault
    return ""


def _is_plain(value: Any, form: Form) -> bool:
    """Whether a value that is not looked into has a form."""
    if form is None or form is bool:
        return value is None if form is None else type(value) is bool
    if isinstance(form, re.Pattern):
        return _is_text(value) and bool(form.fullmatch(value))
    if form is str:
        return _is_text(value)
    if isinstance(form, range):
        return type(value) is int and value in form
    return callable(form) and bool(form(value))


def _is_text(value: Any) -> bool:
    """Whether it is a text that has bytes: a lone surrogate cannot be written anywhere."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode()
