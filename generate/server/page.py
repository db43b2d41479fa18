"""The status page, as a Flask blueprint of image_server.py: the page itself, the document behind it, Prometheus' figures, and the images.

    http://localhost:5000/?token=…        the page (the token goes into a cookie and out of the address bar)
    curl -H "Authorization: Bearer $TOKEN" http://localhost:5000/status
    curl -H "Authorization: Bearer $TOKEN" http://localhost:5000/metrics

One thread makes the document every two seconds; a poll reads what that thread made, so that a hundred open pages cost the leases as much
as one. Only the later pages of the two long tables ask the ledger again, with one bounded query.
"""

import copy
import functools
import hashlib
import hmac
import io
import json
import logging
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

from flask import Blueprint, Response, abort, make_response, redirect, request, send_from_directory
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from generate.dataset.captions import read_captions
from generate.dataset.layout import path_of, stem
from generate.server import status as status_document
from generate.server.history import RunHistory

PAGE = Path(__file__).resolve().parent / "page"
EVERY_S = 2.0
NEWEST_EVERY_S = (
    6.0  # more often, a run on many GPUs would change all pictures before one has looked at them
)
NEWEST = 8  # prompts whose newest image is shown
STALE_S = 30  # a ledger that has not answered for this long hangs on its disk
COOKIE_DAYS = 60
STEM = re.compile(r"[0-9]{1,12}_[0-9]{1,6}")
PRIVATE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
log = logging.getLogger("image_server")


def blueprint(server):
    """Flask blueprint "status_page": /, /page.css, /page.js, /status, /metrics, /image/<dataset>/<stem>, /sample/<dataset>/<stem>.

    server offers output_root (Path), token (str), about() -> {"url", "hostname", "port", "run_id", "epoch", "pid", "started", "version"},
    look(function) -> function(ledger, now) under the ledger's lock, and, where there is one, accounts and weather_extra() -> str | None.
    """
    pages = Blueprint("status_page", __name__)
    watch = Watch(server)
    pages.record_once(
        lambda setup: watch.start()
    )  # from the start, not from the first look: the line is that of the whole run
    cookie = f"status_{server.about()['run_id'][:12]}"  # cookies know no port: two runs forwarded to one localhost must not log each other out
    # The cookie opens the page and nothing else: other programs on localhost are sent it too, and it must not let them take leases.
    cookie_value = hmac.new(server.token.encode(), b"status page", hashlib.sha256).hexdigest()

    def allowed():
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return _same(bearer, server.token) or _same(request.cookies.get(cookie, ""), cookie_value)

    @pages.before_request
    def only_with_token():
        if request.endpoint == "status_page.page" and "token" in request.args:
            return None
        return None if allowed() else refusal()

    @pages.after_request
    def private(response):
        for name, value in PRIVATE.items():
            response.headers.setdefault(name, value)
        return response

    @pages.get("/")
    def page():
        if "token" not in request.args:
            return send_from_directory(PAGE, "index.html")
        if not _same(request.args["token"], server.token):
            return refusal()
        response = make_response(redirect("/", 303))
        response.set_cookie(
            cookie, cookie_value, max_age=COOKIE_DAYS * 86400, httponly=True, samesite="Lax"
        )
        return response

    @pages.get("/<any('page.css', 'page.js', 'newest.js', 'icon.svg'):name>")
    def part(name):
        return send_from_directory(PAGE, name)

    @pages.get("/status")
    def status():
        return Response(
            json.dumps(watch.read(_page_number("workers_page"), _page_number("set_aside_page"))),
            mimetype="application/json",
        )

    @pages.get("/metrics")
    def metrics():
        from generate.server import metrics as status_metrics

        return Response(status_metrics.text(watch.read(0, 0)), content_type=CONTENT_TYPE_LATEST)

    @pages.get("/image/<dataset>/<stem>")
    def image(dataset, stem):
        path = _inside(server.output_root, dataset, stem, ".jpg")
        data = (
            thumbnail(str(path), path.stat().st_mtime_ns)
            if "small" in request.args
            else path.read_bytes()
        )
        # an image is never overwritten; the page asks for a redrawn one with another ?v=
        return Response(
            data, mimetype="image/jpeg", headers={"Cache-Control": "private, max-age=86400"}
        )

    @pages.get("/sample/<dataset>/<stem>")
    def sample(dataset, stem):
        fields = json.loads(_inside(server.output_root, dataset, stem, ".json").read_bytes())
        exact = {
            name: str(value) if type(value) is int and abs(value) > 2**53 else value
            for name, value in fields.items()
        }  # a browser would round a seed
        return Response(json.dumps(exact), mimetype="application/json")

    return pages


def refusal():
    text = "Open the link with this run's token: python generate/image_server.py --status shows it on a terminal.\n"
    return Response(text, 401, mimetype="text/plain", headers={"WWW-Authenticate": "Bearer"})


def _same(given, wanted):
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _page_number(name):
    word = request.args.get(name, "0")
    if not re.fullmatch(r"[0-9]{1,7}", word):
        abort(400, f"{name} must be a page number from 0")
    return int(word)


def dataset_folder(output_root, dataset):
    return Path(output_root) / "generated_images" / dataset


def _inside(output_root, dataset, stem, suffix):
    """Path of a sample's file, or 404: only a regular file that truly lies in that data set's folder, whatever links stand there."""
    if not STEM.fullmatch(stem) or dataset in ("", ".", "..") or "/" in dataset or "\0" in dataset:
        abort(404)
    folder = dataset_folder(output_root, dataset)
    index, aug = map(int, stem.split("_"))
    real = path_of(folder, index, aug, suffix).resolve()
    if folder.is_symlink() or folder.resolve() not in real.parents or not real.is_file():
        abort(404)
    return real


@functools.lru_cache(maxsize=128)
def thumbnail(path, mtime_ns):
    """The image at 320 pixels (bytes of a JPEG): 16 full images of 1024 x 1024 would be 5 MB through an ssh tunnel."""
    from PIL import Image

    with Image.open(path) as image:
        if max(image.size) <= 320:
            return Path(path).read_bytes()
        image.draft("RGB", (320, 320))
        image.thumbnail((320, 320))
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=85)
        return out.getvalue()


# ---------------------------------------------------------------- the thread that looks


class Watch:
    """Makes the status document every EVERY_S seconds, and looks for the newest images in a thread of its own: a file system that hangs
    must not stop the page from saying so."""

    def __init__(self, server):
        self.server = server
        self.history = RunHistory(Path(server.output_root) / ".server" / "history.json")
        self.document, self.made_at, self.notice, self.newest, self.candidates = (
            None,
            time.monotonic(),
            None,
            [],
            [],
        )
        self.starting, self.first = threading.Lock(), threading.Event()
        self.threads, self.pages, self.paging = [], {}, threading.Lock()

    def start(self):
        with self.starting:
            if not self.threads:
                self.threads = [
                    threading.Thread(target=self._repeat, args=step, daemon=True)
                    for step in ((self.look, EVERY_S), (self.find_newest, NEWEST_EVERY_S))
                ]
                for thread in self.threads:
                    thread.start()

    def _repeat(self, step, pause_s):
        told = None
        while True:
            try:
                step()
                told = None
            except Exception as error:  # the page must outlive whatever a disk or a half-written file does to one look
                if str(error) != told:
                    log.warning("status page: %s: %s", type(error).__name__, error)
                    told = str(error)
            time.sleep(
                pause_s if self.document else 0.2
            )  # the first images show as soon as there is a first document

    def look(self):
        self.notice = getattr(
            self.server, "weather_extra", lambda: None
        )()  # before the lock is taken: it may look too
        document, self.candidates = self.server.look(self._look)
        self.history.save(time.monotonic())
        self._add_prompts(document["set_aside"]["rows"])
        document["newest"] = self.newest
        self.document, self.made_at = document, time.monotonic()
        self.first.set()

    def _look(self, ledger, now):
        names, workers = ledger.names(), ledger.workers()
        counts = {name: ledger.counts(name) for name in names}
        running = [w for w in workers if w["dataset"]]
        active = {name for name in names if counts[name]["leased"]}
        self.history.observe(
            now, time.time(), {name: counts[name]["images"] for name in names}, running, active
        )
        candidates = [
            (w["dataset"], index)
            for w in running[: 2 * NEWEST]
            for index in list(w["drawing"] or ())[:1]
        ]
        for name in names:
            candidates += [(name, index) for index, _ in ledger.recent(name, NEWEST)]
        return status_document.status_document(
            ledger, self.server, now, self.history, self.notice
        ), candidates

    def read(self, workers_page, set_aside_page):
        """The document of the last look; later pages of the long tables are asked for anew."""
        self.first.wait(10)
        document = self.document
        if document is None:
            abort(503, "The ledger has not answered yet.")
        if workers_page or set_aside_page:
            document = self._later_page(workers_page, set_aside_page)
        silent_s = time.monotonic() - self.made_at
        if silent_s > STALE_S:
            document = copy.copy(document)
            document["weather"] = {
                "state": "storm",
                "reason": "disk",
                "since": document["time"],
                "probe_in_s": None,
                "errors": [],
                "headline": f"The ledger has not answered for {silent_s:.0f} s: the file system of the output root hangs, or is away.",
                "what_to_do": [
                    f"ls {self.server.output_root}",
                    "If that hangs too, ask who runs the file system; the run goes on by itself once it is back.",
                ],
            }
        return document

    def _later_page(self, workers_page, set_aside_page):
        def pages(ledger, now):
            return status_document.status_document(
                ledger, self.server, now, self.history, self.notice, workers_page, set_aside_page
            )

        with self.paging:  # one at a time, and the same page to all who ask within EVERY_S: the leases have the ledger to themselves meanwhile
            kept = self.pages.get((workers_page, set_aside_page))
            if kept is None or time.monotonic() - kept[0] > EVERY_S:
                document = self.server.look(pages)
                self._add_prompts(document["set_aside"]["rows"])
                document["newest"] = self.newest
                self.pages = {
                    key: value
                    for key, value in self.pages.items()
                    if time.monotonic() - value[0] <= EVERY_S
                }
                kept = self.pages[workers_page, set_aside_page] = (time.monotonic(), document)
            return kept[1]

    # -------- the folder

    def find_newest(self):
        """Newest image of each prompt that is being drawn or was finished last, beside the prompt's original."""
        found = {}
        for dataset, index in list(self.candidates):
            if (dataset, index) not in found and len(found) < 4 * NEWEST:
                found[dataset, index] = self._newest_of(dataset, index)
        self.newest = sorted(
            filter(None, found.values()), key=lambda entry: entry["time"], reverse=True
        )[:NEWEST]

    def _newest_of(self, dataset, index):
        folder, record = (
            dataset_folder(self.server.output_root, dataset),
            self._texts(dataset, index),
        )
        aug = record and last_drawn(folder, index, len(record["texts"]))
        if aug is None:
            return None
        try:
            mtimes = [path_of(folder, index, k, ".jpg").stat().st_mtime_ns for k in (aug, 0)]
        except FileNotFoundError:  # a repair takes images away
            return None
        image, original = (
            f"/image/{quote(dataset)}/{stem(index, k)}?v={mtime}"
            for k, mtime in zip((aug, 0), mtimes)
        )
        return {
            "dataset": dataset,
            "index": index,
            "aug": aug,
            "prompt": record["texts"][aug]["text"][: status_document.TEXT],
            "original_prompt": record["original_prompt"][: status_document.TEXT],
            "image": image,
            "original": original if aug else None,
            "time": mtimes[0] / 1e9,
        }

    def _add_prompts(self, rows):
        for row in rows:
            record = self._texts(row["dataset"], row["index"])
            row["prompt"] = record["original_prompt"][: status_document.TEXT] if record else None

    def _texts(self, dataset, index):
        """The .prompts record, or None: not written yet, or broken, which the client that holds the index reports."""
        try:
            return read_captions(dataset_folder(self.server.output_root, dataset), index)
        except (OSError, ValueError):
            return None


def last_drawn(folder, index, texts):
    """Number of the last image drawn of an index with so many texts, or None. They are drawn in order, so halving finds it in 8 looks at
    200 images; a gap (an image given up) may hide later ones, which only costs their showing."""
    low, high = 0, texts
    while low < high:
        middle = (low + high) // 2
        if path_of(folder, index, middle, ".jpg").exists():
            low = middle + 1
        else:
            high = middle
    return low - 1 if low else None
