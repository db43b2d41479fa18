"""A report as one HTML page that loads nothing.

html = render(gather(settings))
"""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.command_line import DONE, LEFT_OUT
from common.console import amount, duration, visible
from common.version import version
from postprocess_dataset.own_files import REPORT, refuse_other
from postprocess_dataset.private_fields import without_folders
from postprocess_dataset.progress import tell
from postprocess_dataset.publish import publish_text, refuse_name
from postprocess_dataset.report.gather import Report, ReportSettings, gather

SHOWN = 5  # images that cannot be read
HERE = Path(__file__).resolve().parent


def make_report(settings: ReportSettings) -> int:
    """Write the report; the exit status. The old page stays until the new one is complete.

    UserError: another page lies there.
    """
    refuse_name(settings.output, ".html", "a report")
    refuse_other(settings.output, REPORT)
    report = gather(settings)
    publish_text(settings.output, render(report))
    seen = report.seen
    counted = "" if seen.exact else f" ({seen.counted:,} of them counted)"
    unread = report.unread_images
    tell(f"{settings.output}: report of {seen.rows:,} images{counted}; {len(unread):,} unread")
    if unread:
        more = f" and {len(unread) - SHOWN:,} more" if len(unread) > SHOWN else ""
        names = ", ".join(unread[:SHOWN])
        tell(f"not shown, since they cannot be read: {names}{more}")
    return LEFT_OUT if unread else DONE


def render(report: Report) -> str:
    """The page. Every text in it is escaped; control characters are shown as \\x1b."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(visible=visible, public=without_folders)
    environment.filters.update(short=short, digits=digits, amount=amount, hours=hours)
    sections = [
        ("prompts", "Prompts"),
        ("mix", "Sources and models"),
        ("sizes", "Sizes"),
        *([("scores", "Scores")] if report.scores or report.accepted else []),
        ("alike", "Alike"),
        ("cost", "Cost"),
        ("left-out", "Left out"),
        *([("definition", "Settings")] if report.definition else []),
    ]
    return environment.get_template("page.html").render(
        report=report,
        css=Markup((HERE / "page.css").read_text()),
        date=datetime.now(UTC).strftime("%d %B %Y").lstrip("0"),
        sections=sections,
        texts=len(report.seen.texts()),
        version=version(),
    )


def short(value: float | None) -> str:
    """A number with three significant digits; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def digits(value: float | None, after: int) -> str:
    """A number of a column, with the same number of decimals in all rows; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.{after}f}"


def hours(value: float) -> str:
    """A time in hours; below one hour in minutes or seconds."""
    if 0 < value < 1 / 3600:
        return "below 1 s"
    return f"{short(value)} h" if value >= 1 else duration(3600 * value)
