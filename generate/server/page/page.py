"""The status page as a Flask blueprint: the page, /status, /metrics, images and reports.

http://localhost:5000/?code=…     the page; the code of its link is changed into a cookie, once
curl -H "Authorization: Bearer $SECRET" http://localhost:5000/metrics     .server/metrics_secret
"""

import json
import os
import re
import time
from pathlib import Path

from flask import Blueprint, Response, abort, make_response, redirect, request, send_from_directory
from flask.typing import ResponseReturnValue
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from common.json_text import parse_json
from common.packed_folder import changed_ns, member_of, read_file
from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, read_untrusted, real_folders
from generate.dataset.layout import path_of
from generate.dataset.rejected_images import RejectedImages
from generate.protocol.output_root import can_be_dataset, dataset_folder
from generate.server.page import metrics
from generate.server.page.folder_extras import REPORT_BYTES, report_path
from generate.server.page.newest import thumbnail
from generate.server.page.page_access import COOKIE_S, is_signed
from generate.server.page.status import Pages, Run
from generate.server.page.watch import Watch

PAGE = Path(__file__).resolve().parent
EXACT = 2**53  # JavaScript counts to this without rounding
STEM = re.compile(r"[0-9]{1,12}_[0-9]{1,6}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Whoever may write into the output root may have written a report: it runs no script, sends
# nothing, loads nothing, and its origin is not the page's, so that no cookie goes with it.
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PRIVATE = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class PageGuard:
    """Access to the page: for a signed call, or with the cookie that a link was exchanged for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # Cookies know no port: two runs forwarded to one localhost must not log each other out.
        self.cookie = f"status_{run.about()['run_id'][:12]}"

    def allowed(self) -> bool:
        """Whether the present request may see what it asks for."""
        if is_signed():
            return True
        access = self.run.page_access
        scrapes = request.endpoint == "status_page.figures"
        if scrapes and access.may_scrape(request.headers.get("Authorization", "")):
            return True
        return access.may_look(request.cookies.get(self.cookie, ""), time.time())

    def change_into_cookie(self, code: str) -> ResponseReturnValue:
        """Exchange the code of a link for the cookie; a refusal if it is not valid."""
        value = self.run.page_access.redeem(code, time.time())
        if value is None:
            return refusal()
        response = make_response(redirect("/", 303))
        response.set_cookie(
            self.cookie, value, max_age=int(COOKIE_S), httponly=True, samesite="Lax"
        )
        return response


def blueprint(run: Run) -> Blueprint:
    """Flask blueprint "status_page" over a server.

    /, /page.css, /page.js, …, /status, /metrics, /image/<dataset>/<stem>, /sample/<dataset>/<stem>,
    /report/<dataset>, /rejected/<dataset>/<stem>/<attempt>.
    """
    pages = Blueprint("status_page", __name__)
    guard = PageGuard(run)
    watch = Watch(run)
    # From the start, not from the first look: the line is that of the whole run.
    pages.record_once(lambda setup: watch.start())

    def document(wanted: Pages) -> dict[str, object]:
        found = watch.read(wanted)
        if found is None:
            abort(503, "The ledger has not answered yet.")
        return found

    @pages.before_request
    def require_access() -> ResponseReturnValue | None:
        if request.endpoint == "status_page.page" and "code" in request.args:
            return None
        return None if guard.allowed() else refusal()

    @pages.after_request
    def private(response: Response) -> Response:
        for name, value in PRIVATE.items():
            response.headers.setdefault(name, value)
        return response

    @pages.get("/")
    def page() -> ResponseReturnValue:
        if "code" in request.args:
            return guard.change_into_cookie(request.args["code"])
        return send_from_directory(PAGE, "index.html")

    @pages.get("/<any('page.css', 'tools.js', 'page.js', 'newest.js', 'icon.svg'):name>")
    def part(name: str) -> ResponseReturnValue:
        return send_from_directory(PAGE, name)

    @pages.get("/status")
    def status() -> ResponseReturnValue:
        wanted = Pages(_page_number("workers_page"), _page_number("set_aside_page"))
        return Response(json.dumps(document(wanted)), mimetype="application/json")

    @pages.get("/page_link")
    def page_link() -> ResponseReturnValue:
        """A new link for one browser; only for who holds the token."""
        if not is_signed():
            return refusal()
        code = run.page_access.new_code(time.time())
        return {"url": f"{run.about()['url']}?code={code}"}

    @pages.get("/metrics")
    def figures() -> ResponseReturnValue:
        return Response(metrics.text(document(Pages())), content_type=CONTENT_TYPE_LATEST)

    @pages.get("/image/<dataset>/<stem>")
    def image(dataset: str, stem: str) -> ResponseReturnValue:
        return picture(_inside(run.output_root, dataset, stem, ".jpg"))

    @pages.get("/rejected/<dataset>/<stem>/<int:attempt>")
    def rejected(dataset: str, stem: str, attempt: int) -> ResponseReturnValue:
        """An image that was not accepted, where --keep_rejected kept it."""
        index, aug = _numbers_of(stem)
        kept = RejectedImages(dataset_folder(run.output_root, _folder_name(dataset)), 0)
        folder = kept.folder_of(index).parent.parent  # the data set's
        return picture(_truly_in(folder, kept.path_of(index, aug, attempt)))

    def picture(path: Path) -> ResponseReturnValue:
        try:
            if "small" in request.args:
                data = thumbnail(str(path), changed_ns(path))
            else:
                data = read_file(path, IMAGE_BYTES)
        except Exception as error:  # Pillow raises a dozen kinds for a broken file
            abort(404, f"The image cannot be shown: {type(error).__name__}.")
        # An image is never overwritten; the page asks for one made again with another ?v=
        caching = {"Cache-Control": "private, max-age=86400"}
        return Response(data, mimetype="image/jpeg", headers=caching)

    @pages.get("/report/<dataset>")
    def report(dataset: str) -> ResponseReturnValue:
        path = report_path(run.output_root, _folder_name(dataset))
        if path is None:
            abort(404)
        try:
            data = read_untrusted(path, REPORT_BYTES, inside=real_folders([path.parent]))
        except OSError:
            abort(404)
        policy = {"Content-Security-Policy": REPORT_POLICY}
        return Response(data, mimetype="text/html", headers=policy)

    @pages.get("/sample/<dataset>/<stem>")
    def sample(dataset: str, stem: str) -> ResponseReturnValue:
        path = _inside(run.output_root, dataset, stem, ".json")
        try:
            fields = dict(parse_json(read_file(path, SAMPLE_BYTES)))
            exact = {
                name: str(value) if type(value) is int and abs(value) > EXACT else value
                for name, value in fields.items()
            }  # a browser would round a seed
            text = json.dumps(exact, allow_nan=False)
        except (OSError, ValueError, TypeError):
            abort(404, "The sample's JSON is broken.")
        return Response(text, mimetype="application/json")

    return pages


def refusal() -> Response:
    """401, with the command that shows a new link."""
    text = (
        "Open this run's link; it is good once, for ten minutes: "
        "python generate/image_server.py --status shows a new one on a terminal.\n"
    )
    return Response(text, 401, mimetype="text/plain", headers={"WWW-Authenticate": "Bearer"})


def _page_number(name: str) -> int:
    word = request.args.get(name, "0")
    if not re.fullmatch(r"[0-9]{1,7}", word):
        abort(400, f"{name} must be a page number from 0")
    return int(word)


def _inside(output_root: Path, dataset: str, stem: str, suffix: str) -> Path:
    """Path of a sample's file, or 404.

    Only a regular file that truly lies in that data set's folder, whatever links stand there.
    """
    index, aug = _numbers_of(stem)
    folder = dataset_folder(output_root, _folder_name(dataset))
    return _truly_in(folder, path_of(folder, index, aug, suffix))


def _numbers_of(stem: str) -> tuple[int, int]:
    """(index, augmentation) of "12345_3", or 404."""
    if not STEM.fullmatch(stem):
        abort(404)
    index, aug = map(int, stem.split("_"))
    return index, aug


def _truly_in(folder: Path, path: Path) -> Path:
    """The path without links, or 404: it is no regular file that lies in the folder."""
    real = Path(os.path.realpath(path))
    inside = Path(os.path.realpath(folder)) in real.parents
    if os.path.islink(folder) or not inside or not _is_there(real):
        abort(404)
    return real


def _folder_name(dataset: str) -> str:
    """A data set's name, or 404 for what no data set is called."""
    if not can_be_dataset(dataset):
        abort(404)
    return dataset


def _is_there(path: Path) -> bool:
    """Whether it is a regular file, or one in a tar of its folder."""
    try:
        return path.is_file() or member_of(path) is not None
    except OSError:  # a damaged mark
        return False
