"""--repair: make marks, table, tars and their index again from what is intact.

    done = repair(settings, report)        # sentences: what was repaired

Images, JSONs and captions are never changed: only the run itself can make them again.
"""

import os
from pathlib import Path

from common.command_line import UserError
from common.files import keep_damaged
from common.packed_folder import MARK
from postprocess_dataset import table
from postprocess_dataset.packing.remade_mark import remake_mark
from postprocess_dataset.to_table.build_table import TableSettings, make_table
from postprocess_dataset.to_tars import shard_plan
from postprocess_dataset.to_tars.make_tars import make_tars
from postprocess_dataset.to_tars.shard_files import remove
from postprocess_dataset.to_tars.tar_settings import TarSettings
from postprocess_dataset.verification.verify import Report, VerifySettings, base_of


def repair(settings: VerifySettings, report: Report) -> list[str]:
    """Repair what the findings name: first marks, then the table, then tars made from it.

    UserError: the disk, or something that cannot be repaired in this way.
    """
    done = []
    mends = report.found.mends
    for mend in sorted(mends):
        what, _, path = mend.partition(" ")
        if what == "mark":
            prompts = remake_mark(Path(path))
            done.append(f"{path}/{MARK}: made again from its tars, {prompts:,} prompts")
        elif what == "file":
            os.unlink(path)
            done.append(f"{path}: removed; it is derived from the files beside it")
    if "table" in mends and settings.parquet_file:
        done.append(_table(settings, settings.parquet_file))
    shards = sorted(mend.partition(" ")[2] for mend in mends if mend.startswith("shard "))
    if settings.tars and settings.parquet_file and (shards or {"table", "tars"} & mends):
        done.append(_tars(settings, report, shards, bool({"table", "tars"} & mends)))
    return done


def _table(settings: VerifySettings, path: str) -> str:
    """Make the table again, as it was made."""
    if os.path.isdir(path):
        raise UserError(f"{path}: a table of partitions; make it again with --part and --finish")
    try:
        facts = table.facts(path)
    except UserError:
        facts = None
        keep_damaged(path)
    relative = bool(facts and facts["relative"])
    make_table(
        TableSettings(settings.folders, path, verify="sha256", relative=relative, rebuild=True)
    )
    return f"{path}: made again"


def _tars(settings: VerifySettings, report: Report, shards: list[str], anew: bool) -> str:
    """Write damaged shards again; all shards if their samples are not the right ones."""
    output = str(settings.tars)
    plan = shard_plan.load_plan(output)
    if plan is None or not report.plan:
        raise UserError(f"{output}: there is no plan; write the tars into an empty folder")
    options = report.plan
    if options.get("where"):
        raise UserError(
            f"{output} was made with --where {options['where']!r}: remove what is damaged and run "
            "convert_parquet_to_wds.py with it again"
        )
    for shard in plan["shards"]:
        if anew or shard["name"] in shards:
            remove(output, shard)
    if anew:
        os.unlink(shard_plan.plan_path(output))
    make_tars(
        TarSettings(
            table=str(settings.parquet_file),
            base_dir=base_of([os.path.abspath(f) for f in settings.folders], settings.parquet_file),
            output=output,
            workers=min(8, len(os.sched_getaffinity(0))),
            shard_size_mb=options["shard_size_mb"],
            split=options["split"],
            shuffle_seed=options["shuffle_seed"],
        )
    )
    return f"{output}: {'all' if anew else len(shards)} shards and the index made again"
