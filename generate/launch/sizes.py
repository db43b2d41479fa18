"""Check sizes and the options of single prompts against what the model can generate.

size, mix = sizes_of(args, family)       # --size, --sizes, --resolution
check_items(args, family, items)         # when a prompts file enters a run
"""

from argparse import Namespace
from collections.abc import Sequence

from common.command_line import UserError
from generate.dataset.mapped_prompts import items_to_check
from generate.dataset.prompts_file import Item
from generate.dataset.sizes import Mix, Size, size_from, words_of
from generate.image_models.model_family import Family


def sizes_of(args: Namespace, family: Family) -> tuple[Size, Mix | None]:
    """(the size of the images, None), or of a mix (its largest one, the mix).

    UserError for a size that the model cannot make.
    """
    given = [name for name in ("resolution", "size", "sizes") if getattr(args, name)]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} cannot be given together")
    mix = None
    size = (args.resolution or family.size,) * 2
    try:
        if args.sizes:
            mix = Mix.from_text(args.sizes)
            size = mix.largest
        elif args.size:
            size = size_from(args.size)
    except ValueError as error:
        raise UserError(f"--{given[0]}: {error}") from None
    if not args.pipeline:
        for each in mix.sizes if mix else (size,):
            if why := why_not(each, family):
                raise UserError(f"{args.model} {why} (--size, --sizes, --resolution)")
    return size, mix


def why_not(size: Size, family: Family) -> str | None:
    """Why a model cannot make images of a size, as the rest of a sentence; None: it can."""
    if size[0] % family.multiple or size[1] % family.multiple:
        return f"makes multiples of {family.multiple} pixels only, not {words_of(size)}"
    if family.sizes and size not in family.sizes:
        return f"makes only {', '.join(map(words_of, family.sizes))}, not {words_of(size)}"
    return None


def check_batch_size(args: Namespace, family: Family) -> None:
    """UserError if --batch_size is above 1 for a model whose images depend on their batch."""
    if args.batch_size and args.batch_size > 1 and family.one_by_one and not args.pipeline:
        raise UserError(
            f"--batch_size {args.batch_size}: {args.model} generates one by one, since its text "
            "encoder reads a batch's padding: leave it out"
        )


def check_items(args: Namespace, family: Family, items: Sequence[Item]) -> None:
    """UserError, naming the item by position (from 0), for what this model cannot do.

    A class of the user's own (--pipeline) may take anything.
    """
    if args.pipeline:
        return
    for position, item in items_to_check(items):
        why = None
        if "size" in item:
            why = why_not(size_from(item["size"]), family)
        if "negative_prompt" in item and family.negative_prompt is None:
            why = f"takes no negative prompt ({family.pipeline})"
        if why:
            raise UserError(f"{args.data_path}: item {position}: {args.model} {why}")
