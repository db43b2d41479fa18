"""Make one parquet table of the samples (NAME.json beside NAME.jpg) of one or more dataset folders.

    python postprocess_dataset/convert_json_to_parquet.py outputs/generate_images/generated_images/HPDv2 HPDv2.parquet
    python postprocess_dataset/convert_json_to_parquet.py DIR HPDv2.parquet --update    # later: append what is new

On a cluster, 64 tasks and a last one that puts their parts together (HPDv2.parquet is then a directory of part files):

    sbatch --array=0-63 --wrap 'python postprocess_dataset/convert_json_to_parquet.py DIR HPDv2.parquet --part $SLURM_ARRAY_TASK_ID/64'
    python postprocess_dataset/convert_json_to_parquet.py DIR HPDv2.parquet --part 0/64 --finish

Rows come by (input_file, prompt_index, augmentation_idx). A sample that does not pass the checks is left out, listed with its reason in
HPDv2.parquet.rejects.jsonl and counted; the exit status is then 3. It may run while images are still being generated.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

import json
import os
import zlib

from common.command_line import Options
from postprocess_dataset import table
from postprocess_dataset.parts import part
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import Draft
from postprocess_dataset.sorted_rows import SortedRows

NAMES = (
    1 << 18
)  # stems of a folder held as text at a time, 20 MB; a flat folder of a million would need 80


def main(as_script=False):
    parser = Options(__doc__)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="DIR",
        help="dataset folders; the last argument is OUTPUT.parquet unless --output_path is given",
    )
    parser.add_argument("--output_path", "--output-path", metavar="OUTPUT.parquet")
    parser.add_argument(
        "--verify",
        choices=("exists", "size", "sha256", "decode"),
        default="exists",
        help="what an image must pass: be there (default, costs nothing), not be empty, have its JSON's sha256, decode",
    )
    parser.flag("--strict", "publish nothing when any sample is rejected")
    parser.flag(
        "--relative",
        "image_path relative to the base folder (the common parent of the DIRs), for data that will move",
    )
    parser.flag(
        "--update",
        "keep the table's rows and their order, append new samples; rows whose sample is gone are named in OUTPUT.gone.jsonl",
    )
    parser.flag("--rebuild", "sort a table anew that has been updated")
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=part,
        help="do piece I of N (0/64 … 63/64), independently of the others",
    )
    parser.flag(
        "--finish", "with --part I/N: check that all N pieces are there and put them together"
    )
    args = parser.parse_args()
    output = args.output_path or (args.paths.pop() if args.paths[-1].endswith(".parquet") else None)
    if output is None or not args.paths or not output.endswith(".parquet"):
        parser.error("give DIR [DIR …] OUTPUT.parquet, the last one ending in .parquet")
    if args.update and (args.rebuild or args.part):
        parser.error("--update goes neither with --rebuild nor with --part")
    if args.finish and not args.part:
        parser.error("--finish needs the number of pieces: --part 0/N")
    if as_script:
        table.own_process()
    try:
        folders = folders_of(args.paths)
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        if not args.finish:
            return convert(folders, output, args)
        with Draft(f"{output}.finish"):  # its lock alone
            from postprocess_dataset.parts import finish

            return finish(output, args.part[1])
    except KeyboardInterrupt:
        raise SystemExit("convert_json_to_parquet.py: interrupted; nothing was published")
    except OSError as error:  # a full disk, a folder without permission: the old table stands
        where = "" if error.filename else f"{output}: "
        raise SystemExit(f"convert_json_to_parquet.py: {where}{error}; nothing was published")


def folders_of(paths):
    """Absolute paths of the DIRs. SystemExit for one that is none, or that lies in another."""
    from postprocess_dataset.sample_checks import is_utf8

    folders = [os.path.abspath(path) for path in paths]
    for folder in folders:
        if not os.path.isdir(folder):
            raise SystemExit(f"convert_json_to_parquet.py: {folder} is not a directory")
        if not is_utf8(folder):
            raise SystemExit(
                f"convert_json_to_parquet.py: {folder!r}: its name is not UTF-8, which a table's text must be; rename it"
            )
    for first in folders:
        for second in folders:
            if first is not second and f"{second}/".startswith(f"{first}/"):
                raise SystemExit(
                    f"convert_json_to_parquet.py: {second} is given twice or lies in {first}: its samples would count twice"
                )
    return folders


class Conversion:
    """One pass over the folders: rows to a table, the rest to the list of rejects."""

    def __init__(self, base, args, rows, rejects):
        from postprocess_dataset.dataset_folder import Reader

        self.base, self.args, self.rows, self.rejects = base, args, rows, rejects
        self.reader, self.progress = Reader(), Progress("samples")
        self.new = self.rejected = self.orphans = self.skipped = self.noted = 0
        self.mtimes = {}  # subdirectory: ns

    def every_folder(self, folders, earlier):
        """Add what is new in all of them; `earlier`: what the last run knew. Returns the lines of OUTPUT.gone.jsonl."""
        from postprocess_dataset.dataset_folder import stems, walk

        gone, unseen = [], set(earlier.folders)
        for subdirectory, listing in walk(
            folders, self.base, earlier, self.progress.say, self.args.part
        ):
            unseen.discard(subdirectory)
            if isinstance(listing, OSError):
                self.reject(subdirectory, f"folder cannot be read: {listing.strerror}")
                unseen = {
                    other for other in unseen if not other.startswith(f"{subdirectory}/")
                }  # unread is not gone
                self.mtimes.pop(
                    os.path.dirname(subdirectory), None
                )  # so that the next --update looks here again
            elif listing is None:
                self.skipped += 1
                self.mtimes[subdirectory] = earlier.mtimes[subdirectory]
                self.again(subdirectory, earlier.rejects.get(subdirectory, ()))
                gone += earlier.gone.get(subdirectory, ())
            else:
                missing = self.folder(subdirectory, listing, earlier.keys(subdirectory))
                gone += [{"__key__": table.key_of(subdirectory, stem)} for stem in missing]
        for subdirectory in sorted(unseen):
            if any(
                os.path.join(self.base, subdirectory, "").startswith(os.path.join(folder, ""))
                for folder in folders
            ):
                codes, odd = earlier.keys(subdirectory)
                gone += [
                    {"__key__": table.key_of(subdirectory, stem)}
                    for stem in stems(codes) + sorted(odd)
                ]
                continue
            if subdirectory in earlier.mtimes:  # of a DIR that was not named this time: as it was
                self.mtimes[subdirectory] = earlier.mtimes[subdirectory]
            gone += earlier.gone.get(subdirectory, ())
            for line in earlier.rejects.get(subdirectory, ()):
                self.keep(line)
        return gone

    def samples(self, subdirectory, names, has_image):
        """Read, check and add the samples `names` of a folder."""
        from postprocess_dataset.dataset_folder import read_samples

        for rows, rejects in read_samples(
            self.reader,
            self.base,
            subdirectory,
            names,
            has_image,
            self.args.verify,
            self.args.relative,
        ):
            if rows is not None:
                self.rows.add(rows)
                self.new += rows.num_rows
            for stem, reason in rejects:
                self.reject(f"{subdirectory}/{stem}.json", reason)
            self.progress.add((rows.num_rows if rows is not None else 0) + len(rejects))

    def reject(self, name, reason):
        self.rejected += 1
        self.note({"json": name, "reason": reason})

    def orphan(self, name):
        """An image whose JSON is still missing on a second look: a run may be about to write it."""
        if not os.path.lexists(os.path.join(self.base, name)[:-4] + ".json"):
            self.orphans += 1
            self.note({"image": name, "reason": "image without JSON"})

    def note(self, line):
        if not (self.rejected + self.orphans) > 5:
            self.progress.say(f"{line.get('json') or line['image']}: {line['reason']}")
        self.keep(line)

    def keep(self, line):
        self.noted += 1
        self.rejects.write((json.dumps(line) + "\n").encode())

    def folder(self, subdirectory, listing, known):
        """Add what is new in a listed folder; `known`: (codes, other stems) of its rows in the table.

        Returns the stems of rows whose sample is gone.
        """
        import numpy as np

        from postprocess_dataset.dataset_folder import BLOCK, CODE, stems

        codes, known_odd = known
        jsons, odd = (
            np.setdiff1d(listing.jsons, codes, assume_unique=True),
            [stem for stem in listing.odd_jsons if stem not in known_odd],
        )
        images, odd_images = (
            np.setdiff1d(listing.images, listing.jsons, assume_unique=True),
            sorted(listing.odd_images - set(listing.odd_jsons)),
        )
        if (
            self.args.part and not os.path.basename(subdirectory).isdecimal()
        ):  # else the whole folder is ours; which piece is whose never changes
            i, n = self.args.part
            jsons, images = (names[names // CODE // BLOCK % n == i] for names in (jsons, images))
            odd, odd_images = (
                [stem for stem in some if zlib.crc32(os.fsencode(stem)) % n == i]
                for some in (odd, odd_images)
            )
        has_image = np.isin(jsons, listing.images)
        for n in range(0, len(jsons), NAMES):
            self.samples(
                subdirectory, stems(jsons[n : n + NAMES]), has_image[n : n + NAMES].tolist()
            )
        self.samples(subdirectory, odd, [stem in listing.odd_images for stem in odd])
        for stem in stems(images) + odd_images:
            self.orphan(f"{subdirectory}/{stem}.jpg")
        self.mtimes[subdirectory] = listing.mtime_ns
        there = np.intersect1d(listing.jsons, listing.images, assume_unique=True)
        missing = stems(np.setdiff1d(codes, there, assume_unique=True)) + sorted(
            known_odd - (set(listing.odd_jsons) & listing.odd_images)
        )
        return [stem for stem in missing if not self.still_there(subdirectory, stem)]

    def still_there(self, subdirectory, stem):
        """A second look by name at a sample that the listing did not show whole."""
        from postprocess_dataset.sample_checks import image_elsewhere

        place = os.path.join(self.base, subdirectory, stem)
        try:
            with open(place + ".json", "rb") as f:
                return (
                    os.path.exists(place + ".jpg")
                    or image_elsewhere(os.path.dirname(place), json.load(f).get("image_path"))
                    is not None
                )
        except (OSError, ValueError, AttributeError):
            return False

    def again(self, subdirectory, lines):
        """In a folder that has not changed: the rejects and orphans of the last run, some of which may have been mended in place."""
        names = sorted(
            {
                os.path.splitext(os.path.basename(line.get("json") or line["image"]))[0]
                for line in lines
            }
        )
        whole = [
            name
            for name in names
            if os.path.lexists(os.path.join(self.base, subdirectory, name + ".json"))
        ]
        self.samples(subdirectory, whole, [False] * len(whole))
        for name in sorted(set(names) - set(whole)):
            if os.path.lexists(os.path.join(self.base, subdirectory, name + ".jpg")):
                self.orphan(f"{subdirectory}/{name}.jpg")


def convert(folders, output, args):
    """The table, or one part of it, or what is new in it. Returns the exit status."""
    from postprocess_dataset import increment

    update = args.update and os.path.exists(output)
    facts = table.facts(output) if os.path.exists(output) else None
    base = base_of(folders, output, args, facts, update)
    target, old, known = output, None, None
    if args.part:
        os.makedirs(f"{output}.parts", exist_ok=True)
        target = output = os.path.join(f"{output}.parts", "part-%05d-of-%05d.parquet" % args.part)
    elif update:
        known = increment.Known(output)
        old = None if os.path.isdir(output) else output
        target = (
            output if old else os.path.join(output, f"part-{len(table.files(output)):05d}.parquet")
        )
    scanned_ns = increment.server_time_ns(folders[0], target)
    with (
        SortedRows(
            target, {"base": base, "relative": args.relative}, old, known.rows if known else 0
        ) as rows,
        Draft(f"{output}.rejects.jsonl") as rejects,
    ):
        work = Conversion(base, args, rows, rejects.file)
        gone = work.every_folder(folders, increment.Earlier(output, known))
        work.progress.close()
        return publish(work, rows, rejects, gone, scanned_ns, output, known, facts, args)


def base_of(folders, output, args, facts, update):
    """The folder below which keys begin: the common parent of the DIRs, or the table's. SystemExit when that table forbids the request."""
    if update and facts is None:
        raise SystemExit(
            f"{output}: not a table of this script, so it cannot be updated; choose another name or --rebuild"
        )
    if update and facts["relative"] != args.relative:
        raise SystemExit(
            f"{output} was made {'with' if facts['relative'] else 'without'} --relative; update it the same way, or --rebuild"
        )
    if facts and len(facts["generations"]) > 1 and not (update or args.rebuild or args.part):
        raise SystemExit(
            f"{output} has grown by --update {len(facts['generations']) - 1} times; say --update again, or --rebuild to sort it anew "
            "(its tars must then be made anew, too)"
        )
    if os.path.isdir(output) and not update and not args.part:
        raise SystemExit(
            f"{output} is a directory of part files: --update it, or make it anew with --part and --finish"
        )
    base = os.path.dirname(folders[0]) if len(folders) == 1 else os.path.commonpath(folders)
    if update and not args.relative:
        base = facts["base"]
    for folder in folders:
        if not folder.startswith(os.path.join(base, "")):
            raise SystemExit(
                f"{folder} lies outside {base}, the base folder of {output}'s keys; --rebuild makes it anew"
            )
    return base


def publish(work, rows, rejects, gone, scanned_ns, output, known, facts, args):
    """Table first, state last; see increment.py. Returns the exit status."""
    from postprocess_dataset import increment

    found = work.new + work.rejected
    status = 3 if work.rejected else 0
    listed = f"{work.rejected:,} rejected" + (
        f" (see {output}.rejects.jsonl)" if work.rejected else ""
    )
    if work.rejected and args.strict or not work.new and not known and not args.part:
        if found:
            rejects.publish()  # the list is now of this run, so no folder may be skipped by what an earlier one knew
            if os.path.exists(f"{output}.state"):
                os.unlink(f"{output}.state")
            print(
                f"{output} was not published: {work.new:,} good samples, {listed}", file=sys.stderr
            )
            return status
        raise SystemExit(
            f"convert_json_to_parquet.py: no sample (NAME.json beside NAME.jpg) in {', '.join(args.paths)}; "
            f"{work.orphans:,} images without JSON; nothing was published"
        )
    if work.new or not known:
        rows.publish(
            (facts["generations"] if known and not os.path.isdir(output) else []) + [work.new]
        )
    for path, lines in ((f"{output}.gone.jsonl", gone), (f"{output}.rejects.jsonl", work.noted)):
        if not lines and os.path.exists(path):
            os.unlink(path)
    if gone:
        increment.save_lines(f"{output}.gone.jsonl", gone)
    if work.noted:
        rejects.publish()
    increment.save_state(output, scanned_ns, work.mtimes)
    print(
        f"{output}: {work.new + (known.rows if known else 0):,} rows"
        + (f", {work.new:,} of them new; {work.skipped:,} folders unchanged" if known else "")
        + f"; {listed}, {work.orphans:,} images without JSON"
        + (f", {len(gone):,} gone" if gone else "")
    )
    return status


if __name__ == "__main__":
    sys.exit(main(as_script=True))
