"""The validation set's short prompts: parts of innocent ones, and likeness that says nothing."""

import pytest

from common import validation_set
from common.validation_set import ValidationSet

SHORT = ["red fox den", "strawberry sandwiches", "two chairs", "a cat on a mat"]


def how(text):
    match = ValidationSet.of(SHORT).find_all([text])[0]
    return match.how if match else None


@pytest.mark.parametrize(
    "text, rule, weaker",
    [
        ("red fox dens", "LETTERS", 4),
        ("strawberry sandwich", "CONTENT_WORDS", 1),
        ("two chairs in the garden of a castle", "WHOLE", range(2, 8)),
    ],
)
def test_short_prompts_are_found_whole_or_not_at_all(text, rule, weaker, monkeypatch):
    """Each text is let through by one rule: with a weaker one it is found."""
    assert how(text) is None
    monkeypatch.setattr(validation_set, rule, weaker)
    assert how(text) is not None


def test_short_prompts_are_found_themselves():
    assert how("Red fox den!") == how("strawberry sandwiches, 8k") == "same text"
    assert how("two chairs, oil painting") == "same text"
    assert how("a poster of a cat on a mat in a hall") == "inside it"
    assert how("") is None and how("a") is None


def test_the_same_meaning_needs_some_of_the_letters():
    """Few words about the same things are near to the embeddings, whatever they say."""
    short = ValidationSet.of(["A dog is to the right of the cat.", "two horses by a river"])
    assert short.find_all(["a dog dressed like a cat"]) == [None]
    match = short.find_all(["a pair of horses beside the river"])[0]
    assert match is not None and match.how == "same meaning"
