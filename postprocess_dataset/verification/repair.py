"""--repair: make marks, table, tars and their index again from what is intact.

    done = repair(settings, report)        # sentences: what was repaired

Images, JSONs and captions are never changed: only the run itself can make them again. A replaced
table, and tars that may hold what the folder has not, are kept as NAME.replaced.
"""

import os
import shutil
from pathlib import Path

from common.command_line import UserError
from common.files import free_name, keep_damaged
from common.packed_folder import MARK
from postprocess_dataset import table
from postprocess_dataset.packing.remade_mark import remake_mark
from postprocess_dataset.to_table.build_table import TableSettings, make_table
from postprocess_dataset.to_tars import shard_plan
from postprocess_dataset.to_tars.make_tars import make_tars
from postprocess_dataset.to_tars.shard_files import remove_all_marks, remove_mark
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
            kept = keep_damaged(path)
            done.append(f"{path}: is {kept.name} now; the files beside it say the same")
    if "table" in mends and settings.parquet_file:
        done += _table(settings, settings.parquet_file)
    shards = sorted(mend.partition(" ")[2] for mend in mends if mend.startswith("shard "))
    if settings.tars and settings.parquet_file and (shards or {"table", "tars"} & mends):
        done += _tars(settings, report, shards, bool({"table", "tars"} & mends))
    return done


def _table(settings: VerifySettings, path: str) -> list[str]:
    """Make the table again, as it was made."""
    if os.path.isdir(path):
        raise UserError(f"{path}: a table of partitions; make it again with --part and --finish")
    kept = free_name(path, "replaced")
    try:
        facts = table.facts(path)
        shutil.copy2(path, kept)
    except UserError:  # damaged
        facts = None
        os.rename(path, kept)
    relative = bool(facts and facts["relative"])
    make_table(
        TableSettings(settings.folders, path, verify="sha256", relative=relative, rebuild=True)
    )
    return [f"{path}: made again; {kept} is the one that was there"]


def _tars(settings: VerifySettings, report: Report, shards: list[str], anew: bool) -> list[str]:
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
    kept = free_name(os.path.abspath(output), "replaced")  # --tars . has no name
    for shard in plan["shards"]:
        name = shard["name"]
        if not anew and name not in shards:
            continue
        if name in report.last_copies:
            kept.mkdir(exist_ok=True)
            os.rename(os.path.join(output, name), kept / name)
        remove_mark(output, shard)  # the tar itself stays until the new one is whole
    if anew:
        remove_all_marks(output)
    make_tars(
        TarSettings(
            table=str(settings.parquet_file),
            base_dir=base_of([os.path.abspath(f) for f in settings.folders], settings.parquet_file),
            output=output,
            workers=min(8, len(os.sched_getaffinity(0))),
            shard_size_mb=options["shard_size_mb"],
            split=options["split"],
            shuffle_seed=options["shuffle_seed"],
            anew=anew,
        )
    )
    done = [f"{output}: {'all' if anew else len(shards)} shards and the index made again"]
    if kept.exists():
        why = "they are damaged, or hold what the folder has not: look at them, then remove them"
        done.append(f"{kept}: tars as they were; {why}")
    return done
