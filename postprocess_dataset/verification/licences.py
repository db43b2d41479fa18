"""Check that the terms of every source, LLM and image model of a data set are known.

check_licences(seen.licences, Licences.of(["mine=CC0-1.0"]), found)
"""

from pathlib import Path

from common.command_line import UserError
from common.files import read_json
from common.json_form import in_form
from common.model_terms import terms_of_llm, terms_of_model
from common.terms import UNKNOWN, UNSTATED, Licences
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.verification.chunk import Licences as Counted

SOURCES = {"sources": {str: {"terms?": {"licence?": str}}}}  # of combine.py's report


def check_licences(counted: Counted, licences: Licences, found: Findings) -> None:
    """A finding for each source, LLM or model without terms, and how many samples it has.

    A prompt may be published if one of its sources states a licence, as in combine.py.
    """
    for (kind, names), count in sorted(counted.items()):
        name = names[0]
        if kind == "source":
            if not licences.allow(names):
                stated = licences.terms_of(name)["licence"]
                why = "none stated" if stated.startswith(UNSTATED) else "not known"
                found.add_unlicensed(f"source {', '.join(names)}", name, why, count)
            continue
        known = terms_of_llm(name) if kind == "llm" else terms_of_model(name)
        if known is None and name not in licences.stated:
            what = "LLM" if kind == "llm" else "image model"
            found.add_unlicensed(f"{what} {name}", name, "not known", count)


def stated_licences(options: list[str], prompts: Path | None) -> Licences:
    """The licences that the user states: here, and in combine.py's report beside the prompts file.

    UserError: an option is no NAME=LICENCE, or the report is damaged.
    """
    stated = Licences.of(options).stated
    report = prompts.with_name(f"{prompts.stem}.report.json") if prompts else None
    if report is None or not report.is_file():
        return Licences(stated)
    try:
        for name, about in in_form(read_json(report), SOURCES)["sources"].items():
            licence = about.get("terms", {}).get("licence", UNKNOWN)
            if licence != UNKNOWN and not licence.startswith(UNSTATED):
                stated.setdefault(name, licence)
    except ValueError as error:
        raise UserError(f"{report}: {error}; write it again with combine.py") from None
    return Licences(stated)
