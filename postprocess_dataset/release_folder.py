"""What a release writes, by its names: in the folder that is published, and in its work folder.

    with making("release/HPDv2", ["key.pem"]):     # UserError: files of others lie there
        …                                          # no other process makes it meanwhile

So nothing is published, replaced or removed that no release has written. Names with a leading dot
are drafts or another program's: they are left alone and not published.
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from common.command_line import UserError
from common.console import visible
from postprocess_dataset.own_files import CARD, REPORT, refuse_others
from postprocess_dataset.progress import tell
from postprocess_dataset.publish import Draft, refuse_samples
from postprocess_dataset.release_note import read_note
from postprocess_dataset.same_folder import lies_in
from postprocess_dataset.score_table import files_of
from postprocess_dataset.table import refuse_no_utf8

Names = Mapping[str, re.Pattern[str]]  # of a folder ("": the top); other folders are none of ours
SCORES = "scores"
KEPT = re.compile(r"tars\.replaced(-[0-9]+)?")  # by verify_dataset.py --repair
FIRST = "public.parquet"  # in the work folder, before anything lies in the release
MARK = r"[\w-]+\.tar\.(json|facts)"
PUBLISHED: Names = {
    "": re.compile(
        r"(README|ATTRIBUTION)\.md|croissant\.json|pictures\.jpg|report\.html|release\.json"
        r"|(MANIFEST|verification)\.json"
    ),
    "webdataset": re.compile(r"\w+-[0-9]{6,}\.tar|index\.json"),
    "data": re.compile(r"\w+-[0-9]{5,}\.parquet"),
    "metadata": re.compile(r"\w+-[0-9]{5,}\.parquet"),
    SCORES: re.compile(r"part-[0-9]{5,}-of-[0-9]{5,}\.[0-9]{6,}\.parquet"),
}
WORK: Names = {
    "": re.compile(r"(table|public)\.parquet\S*|(steps|status|verification|verified)\.json"),
    "tars": re.compile(
        r"output_dataset\w*\.(tar|json)|index\w*\.json|README\.md|(MANIFEST|verification)\.json"
    ),
    "signed": re.compile(r"\w+-[0-9]{6,}\.tar(\.json)?"),
    "parquet": re.compile(MARK),
    "metadata": re.compile(MARK),
}


def work_folder(release: str) -> str:
    """The folder beside a release where all that is not published lies."""
    named = release.rstrip("/")
    if os.path.basename(named) in ("", ".", ".."):
        named = os.path.abspath(release)
    return f"{named}.work"


@contextlib.contextmanager
def making(release: str, inputs: Iterable[str] = ()) -> Iterator[None]:
    """Make or continue a release; a process that makes it at this moment is waited for.

    inputs: files and folders that it is made of. UserError: it would replace or publish what no
    release has written.
    """
    refuse_no_utf8(release)
    refuse_samples(release)
    work = work_folder(release)
    begun = os.path.join(work, FIRST)
    if _has_names(release) and not os.path.lexists(begun):
        raise UserError(
            f"{release} is not empty, and {begun} is not there: it was not made by release.py; "
            "choose another folder"
        )
    os.makedirs(work, exist_ok=True)
    place = os.path.realpath(release)
    try:
        draft = Draft(place)
    except UserError as error:
        tell(f"waiting: {error}")
        draft = Draft(place, wait=True)
    with draft:
        check_release(release, inputs)
        yield


def check_release(release: str, inputs: Iterable[str] = ()) -> None:
    """UserError: files of others lie in a release or its work folder, or an input in a release."""
    for path in inputs:
        if lies_in(path, release):
            raise UserError(
                f"{path} lies in {release}, whose files are published: move it to another folder"
            )
    scores = os.path.join(release, SCORES)
    if files_of(scores) and SCORES not in read_note(release):
        raise UserError(
            f"{scores} was not made by a release, and would be replaced: move it to another "
            "folder, and give it with --scores"
        )
    _refuse(release, others(release, PUBLISHED))
    refuse_others(release, (*CARD, REPORT))
    work = work_folder(release)
    _refuse(work, others(work, WORK))


def _has_names(folder: str) -> bool:
    """Whether anything lies there but hidden files, such as those of a clone of the hub's."""
    return os.path.isdir(folder) and any(name[0] != "." for name in os.listdir(folder))


def is_published(path: str) -> bool:
    """Whether a release writes a file of this name; path: below its folder."""
    folder, name = os.path.split(path)
    return folder in PUBLISHED and bool(PUBLISHED[folder].fullmatch(name))


def others(folder: str, names: Names) -> list[str]:
    """Paths below a folder that are none of ours, as links and pipes are, in their order."""
    found = []
    for below, pattern in names.items():
        place = os.path.join(folder, below)
        if not os.path.isdir(place):
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                folder_of_ours = not below and (entry.name in names or KEPT.fullmatch(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    ours = bool(folder_of_ours)
                else:
                    plain = entry.is_file(follow_symlinks=False)
                    ours = plain and bool(pattern.fullmatch(entry.name))
                if not ours and not entry.name.startswith("."):
                    found.append(os.path.join(below, entry.name))
    return sorted(found)


def _refuse(folder: str, found: list[str]) -> None:
    if found:
        shown = visible(", ".join(found[:3]))
        more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
        raise UserError(
            f"{visible(folder)} holds {shown}{more}, which no release writes; move it to another "
            "folder"
        )


def remove_others(folder: str, kept: Collection[str], names: re.Pattern[str]) -> None:
    """Remove the files of an earlier release, and drafts that a killed run has left."""
    for name in os.listdir(folder):
        own = re.sub(r"^\.(.*)\.tmp$", r"\1", name)
        if names.fullmatch(own) and name not in kept:
            os.unlink(os.path.join(folder, name))


def remove_folder(folder: str, names: re.Pattern[str]) -> None:
    """Remove a folder of an earlier release; what others have put there stays."""
    if os.path.isdir(folder) and not os.path.islink(folder):
        remove_others(folder, (), names)
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(folder)
