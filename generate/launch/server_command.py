"""Options of image_server.py that ask a running server: its status, or an order to it."""

import argparse
import http.client
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.command_line import UserError
from generate.launch import local_server
from generate.launch import status as run_status
from generate.protocol.connection import Connection, ServerAway


def run(args: argparse.Namespace, orders: Sequence[str]) -> int | None:
    """Do what the options ask of a running server; the exit status. None: they ask to serve.

    orders: names of the options that are orders to it.
    """
    output_root = Path(os.path.abspath(args.output_root))
    if args.status:
        return status(output_root, args.json)
    asked = {name: getattr(args, name) for name in orders}
    # a budget of 0 is one, and equals False
    given = {
        name: value for name, value in asked.items() if value is not None and value is not False
    }
    if given:
        return order(output_root, given)
    if args.while_locked:
        local_server.end_with_runs(args.while_locked)
    return None


def status(output_root: Path, as_json: bool) -> int:
    """Print how the running server is doing."""
    if not as_json:
        return run_status.show(output_root)
    answer = run_status.fetch(output_root)
    if not answer.document:
        why = f"no job server for {output_root}: {answer.why}"
        raise UserError(run_status.with_a_start(why, output_root))
    print(json.dumps(answer.document))
    return 0


def order(output_root: Path, orders: dict[str, Any]) -> int:
    """Have the running server do something, and print what it did."""
    try:
        connection = Connection(output_root)
    except ServerAway as error:
        raise UserError(run_status.with_a_start(str(error), output_root)) from None
    try:
        code, answer = connection.post("/admin", orders)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(str(error)) from None
    if code != 200:
        raise UserError(str(answer.get("error")))
    print("\n".join(answer["done"]))
    return 0
