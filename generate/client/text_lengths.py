"""How much of a caption each text encoder reads: tokens, and the limit at which they are cut.

    lengths = text_lengths(pipe, arguments, "a photo of …")   # {"text_encoder": (93, 77), …}

Counted by the pipeline's own tokenizers, without an encoder. Template words that a family puts
around a caption take room of its limit, where the family cuts both together.
"""

from collections.abc import Callable, Mapping
from typing import Any

Lengths = dict[str, tuple[int, int]]  # text encoder -> (tokens, limit)
CLIP_LIMIT = 77
# Cut after the template was taken away: QwenImagePipeline, HunyuanImagePipeline, Kandinsky5T2I.
OWN_LIMIT = {"HunyuanImagePipeline": {"tokenizer": 1000, "tokenizer_2": 128}}


def text_lengths(pipe: Any, arguments: Mapping[str, Any], text: str) -> Lengths:
    """Tokens of a text and the limit, by text encoder; {} for a pipeline without tokenizers."""
    template = TEMPLATES.get(type(pipe).__name__, _plain)
    lengths = {}
    for number in ("", "_2", "_3", "_4"):
        tokenizer = getattr(pipe, f"tokenizer{number}", None)
        if tokenizer is None or not callable(tokenizer):
            continue
        limit = _limit(pipe, f"tokenizer{number}", tokenizer, arguments)
        words = text if _is_clip(tokenizer) else template(pipe, tokenizer, text)
        tokens = tokenizer(words, truncation=False, verbose=False)["input_ids"]
        lengths[f"text_encoder{number}"] = (len(tokens), limit)
    return lengths


def truncated(lengths: Lengths) -> list[str]:
    """The text encoders that do not read the whole text."""
    return [encoder for encoder, (tokens, limit) in lengths.items() if tokens > limit]


def _is_clip(tokenizer: Any) -> bool:
    return "CLIP" in type(tokenizer).__name__


def _limit(pipe: Any, name: str, tokenizer: Any, arguments: Mapping[str, Any]) -> int:
    if _is_clip(tokenizer):
        return min(CLIP_LIMIT, int(tokenizer.model_max_length))
    own = OWN_LIMIT.get(type(pipe).__name__, {}).get(name)
    given = arguments.get("max_sequence_length")
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


def _after_template(pipe: Any, tokenizer: Any, text: str) -> str:
    """The text with what of its template follows it: that takes room, too."""
    return text + str(pipe.prompt_template_encode).partition("{}")[2]


TEMPLATES: dict[str, Callable[[Any, Any, str], str]] = {
    "Lumina2Pipeline": _lumina2,
    "ZImagePipeline": _chat(thinking=True),
    "Flux2KleinPipeline": _chat(thinking=False),
    "QwenImagePipeline": _after_template,
    "HunyuanImagePipeline": _after_template,
}
