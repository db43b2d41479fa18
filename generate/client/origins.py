"""Count captions and images of a finished prompt by LLM and by source.

    origins_of(record, given_up={3}, tried={0: [Tried(…)]})
    # {"llm": {"original prompt": [1, 1, 1], "llama3.1": [9, 8, 0]},
    #  "source": {"hpdv2": [10, 9, 1]}}

Each list: captions, images of them that count, images that were not accepted. A prompt of two
sources counts for both.
"""

from collections.abc import Container, Mapping, Sequence

from common.console import visible
from generate.client.captioner import FROM_FILE
from generate.dataset.captions import Caption, Captions
from generate.dataset.tries import Tried

ORIGINAL = "original prompt"
NO_SOURCE = "no source"
LONGEST = 100  # characters of a name
MOST = 20  # sources of one prompt that are counted
MOST_LLMS = 40  # of one prompt; the captions of further ones are counted as OTHERS
OTHERS = "others"  # the job server's word, too
Counts = dict[str, list[int]]


def origins_of(
    record: Captions, given_up: Container[int], tried: Mapping[int, Sequence[Tried]]
) -> dict[str, Counts]:
    """For the job server's report; given_up and tried: by augmentation."""
    llms: Counts = {}
    for aug, caption in enumerate(record["texts"]):
        name = visible(_writer(caption))[:LONGEST]
        if len(llms) >= MOST_LLMS:
            name = name if name in llms else OTHERS
        counts = llms.setdefault(name, [0, 0, 0])
        counts[0] += 1
        counts[1] += aug not in given_up
        counts[2] += len(tried.get(aug, ()))
    total = [sum(counts[k] for counts in llms.values()) for k in range(3)]
    sources = [visible(source)[:LONGEST] for source in record["source"][:MOST]] or [NO_SOURCE]
    return {"llm": llms, "source": dict.fromkeys(sources, total)}


def _writer(caption: Caption) -> str:
    """The LLM that wrote it, the prompts file that gave it, or that it is the prompt itself."""
    if name := caption.get("llm_model_name"):
        return name
    return FROM_FILE if caption.get("backend") == FROM_FILE else ORIGINAL
