"""The status page, as a Flask blueprint of image_server.py: the page itself, the document behind it, Prometheus' figures, and the images.

    http://localhost:5000/?token=…        the page (the token goes into a cookie and out of the address bar)
    curl -H "Authorization: Bearer $TOKEN" http://localhost:5000/status
"""


def blueprint(server):
    """Flask blueprint "status_page": /, /page.css, /page.js, /status, /metrics, /image/<dataset>/<stem>, /sample/<dataset>/<stem>.

    server offers output_root (Path), token (str), about() -> dict, look(function) -> function(ledger, now) under the ledger's lock.
    """


def status_document(ledger, server, now, history):
    """The status document without its later pages: dict. Called under the ledger's lock; a few queries, each bounded."""
