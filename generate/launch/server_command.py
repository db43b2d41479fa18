"""From the options of image_server.py to what they ask for: a server, its status, or an order to the one that runs."""

import http.client
import json
import os
from pathlib import Path

from generate.launch import local_server
from generate.launch import status as run_status
from generate.protocol.connection import Connection, ServerAway
from generate.server import app


def run(args):
    """Do what the options say; the exit status."""
    output_root = Path(os.path.abspath(args.output_root))
    if args.status:
        return status(output_root, args.json)
    order = {
        "drain": args.drain,
        "resume": args.resume,
        "retry_failed": args.retry_failed,
        "release_quarantine": args.release_quarantine,
    }
    order |= {"llm_budget_usd": args.llm_budget_usd, "llm_spent_usd": args.llm_spent_usd}
    if order := {name: value for name, value in order.items() if value not in (None, False)}:
        return tell(output_root, order)
    if args.while_locked:
        local_server.end_with_runs(args.while_locked)
    return app.serve(args, output_root)


def status(output_root, as_json):
    if not as_json:
        return run_status.show(output_root)
    answer = run_status.fetch(output_root)
    if not answer.document:
        raise SystemExit(f"image_server: no job server for {output_root}: {answer.why}")
    print(json.dumps(answer.document))
    return 0


def tell(output_root, order):
    try:
        connection = Connection(output_root)
        code, answer = connection.post("/admin", order)
    except (ServerAway, OSError, http.client.HTTPException, ValueError) as error:
        raise SystemExit(f"image_server: {error}") from None
    if code != 200:
        raise SystemExit(f"image_server: {answer.get('error')}")
    print("\n".join(answer["done"]))
    return 0
