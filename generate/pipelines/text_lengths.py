"""How much of a caption each text encoder reads: tokens, and the limit at which they are cut.

    lengths = TextLengths(pipe, arguments)("a photo of …")   # {"text_encoder": (93, 77), …}

Counted by the pipeline's own tokenizers, without an encoder. Template words that a family puts
around a caption take room of its limit, where the family cuts both together.
"""

import copy
import functools
import threading
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

# What becomes of a text that is not read to its end (--truncated).
KEEP, SKIP, FAIL = "keep", "skip", "fail"
Lengths = dict[str, tuple[int, int]]  # text encoder -> (tokens, limit)
CLIP_LIMIT = 77
KEPT = 1 << 14  # counts of texts: most are asked for twice
OWN_LIMIT = {"HunyuanImagePipeline": 1000}  # takes no max_sequence_length
LONG_CLIPS = {"HiDreamImagePipeline": 218}  # trained on longer texts than others


class TextLengths:
    """Counts for one pipeline, from any thread.

    With tokenizers of its own: those of the pipeline keep state from call to call, and may be at
    work on the next batch.
    """

    def __init__(self, pipe: Any, arguments: Mapping[str, Any]) -> None:
        self.pipe = pipe
        self.template = TEMPLATES.get(type(pipe).__name__, _plain)
        self.lock = threading.Lock()
        self.tokenizers: dict[str, tuple[Any, int]] = {}
        self.kept = functools.lru_cache(KEPT)(self._count)
        for number in ("", "_2", "_3", "_4"):
            given = getattr(pipe, f"tokenizer{number}", None)
            # FLUX.2 and Kandinsky 5 have a processor of texts and images there
            tokenizer = getattr(given, "tokenizer", given)
            # the second one of HunyuanImage reads quoted words alone
            if hasattr(tokenizer, "model_max_length") and "ByT5" not in type(tokenizer).__name__:
                limit = _limit(pipe, tokenizer, arguments)
                kept = given if self.template is _flux2 else tokenizer
                self.tokenizers[number] = (copy.deepcopy(kept), limit)

    def __call__(self, text: str) -> Lengths:
        """Tokens of a text and the limit, by text encoder; {} for no tokenizers."""
        return self.kept(text)

    def _count(self, text: str) -> Lengths:
        lengths = {}
        for number, (tokenizer, limit) in self.tokenizers.items():
            template = _plain if number or _is_clip(tokenizer) else self.template
            with self.lock:
                words = template(self.pipe, tokenizer, text)
                if isinstance(words, str):
                    words = tokenizer(words, truncation=False, verbose=False)["input_ids"]
                tokens = len(words)
            if template is _whole:
                tokens -= self.pipe.prompt_template_encode_start_idx
            lengths[f"text_encoder{number}"] = (tokens, limit)
        return lengths


def truncated(lengths: Lengths) -> list[str]:
    """The text encoders that do not read the whole text."""
    return [encoder for encoder, (tokens, limit) in lengths.items() if tokens > limit]


def unread(cut: Sequence[str], lengths: Sized) -> bool:
    """Whether no text encoder has read the end of a text; cut: those that have not.

    SD3 and FLUX.1 read a text with T5, too, where CLIP has cut it.
    """
    return 0 < len(lengths) == len(cut)


def in_words(lengths: Lengths) -> str:
    """ "text_encoder 93 of 77, text_encoder_2 93 of 77"."""
    return ", ".join(f"{encoder} {n} of {most}" for encoder, (n, most) in lengths.items())


def _is_clip(tokenizer: Any) -> bool:
    return "CLIP" in type(tokenizer).__name__


def _limit(pipe: Any, tokenizer: Any, arguments: Mapping[str, Any]) -> int:
    given = arguments.get("max_sequence_length")
    if _is_clip(tokenizer):
        most = LONG_CLIPS.get(type(pipe).__name__, CLIP_LIMIT)
        asked = given if most > CLIP_LIMIT and given else most
        return int(min(most, asked, tokenizer.model_max_length))
    own = OWN_LIMIT.get(type(pipe).__name__)
    return int(own or given or tokenizer.model_max_length)


def _plain(pipe: Any, tokenizer: Any, text: str) -> str:
    return text


def _lumina2(pipe: Any, tokenizer: Any, text: str) -> str:
    return f"{pipe.system_prompt} <Prompt Start> {text}"


def _chat(thinking: bool) -> Callable[[Any, Any, str], str]:
    def template(pipe: Any, tokenizer: Any, text: str) -> str:
        words = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        return str(words)

    return template


def _whole(pipe: Any, tokenizer: Any, text: str) -> str:
    """The whole template: its first tokens are dropped before the rest is cut."""
    template = getattr(pipe, "prompt_template_encode", None) or pipe.prompt_template
    return str(template).format(text)


def _flux2(pipe: Any, processor: Any, text: str) -> list[int]:
    """Tokens of the conversation that FLUX.2 makes of a text, its instruction included."""
    parts = (("system", pipe.system_message), ("user", text.replace("[IMG]", "")))
    conversation = [
        {"role": role, "content": [{"type": "text", "text": words}]} for role, words in parts
    ]
    encoded = processor.apply_chat_template([conversation], tokenize=True, return_dict=True)
    return list(encoded["input_ids"][0])


TEMPLATES: dict[str, Callable[[Any, Any, str], str | list[int]]] = {
    "Lumina2Pipeline": _lumina2,
    "ZImagePipeline": _chat(thinking=True),
    "Flux2KleinPipeline": _chat(thinking=False),
    "QwenImagePipeline": _whole,
    "HunyuanImagePipeline": _whole,
    "Kandinsky5T2IPipeline": _whole,
    "Flux2Pipeline": _flux2,
}
