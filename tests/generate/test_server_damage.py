"""Small files of the server that were deleted, torn, of wrong types, or came from a backup (V11).

The server always starts, clients find it, and no lease's name comes twice.
"""

import json
import os
import shutil
import sqlite3
import threading
import time
from itertools import product

import pytest

from common.command_line import UserError
from generate.client.job_client import AllDone, Wait
from generate.protocol.answers import Grant
from generate.protocol.connection import Connection, ServerAway
from generate.server import state
from generate.server.identity import claim_epoch, known_epoch, open_folder, run_identity
from generate.server.ledger.live_leases import LeaseLimits
from tests.fakes.running_server import delete_while_it_is_used, finish, granted, until

DAMAGED = [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"run_id": 7, "token": null}']


def work_to_the_end(client, size=5):
    """Finish all that is left; the indices."""
    seen = []
    while not isinstance(answer := client.get_indices(size), AllDone):
        if isinstance(answer, Wait):
            time.sleep(0.05)
            continue
        seen += answer.indices
        assert set(finish(client, answer).values()) <= {"accepted", "already_done"}
    return seen


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_identity_is_made_again_from_server_json(tmp_path, damage):
    folder = open_folder(tmp_path)
    run = run_identity(folder)
    record = {"run_id": run.run_id, "token": run.token, "url": "http://x:1/", "epoch": 3}
    (folder / "server.json").write_text(json.dumps(record))
    (folder / "run.json").write_bytes(damage)
    assert run_identity(folder) == run
    assert (folder / "run.json.damaged").read_bytes() == damage
    (folder / "run.json").write_bytes(damage)
    (folder / "server.json").write_bytes(damage)
    other = run_identity(folder)
    assert other != run and run_identity(folder) == other
    assert (folder / "run.json.damaged-2").exists()


def test_a_fifo_in_the_place_of_a_file_makes_nobody_wait(tmp_path):
    folder = open_folder(tmp_path)
    os.mkfifo(folder / "run.json")
    os.mkfifo(folder / "server.json")
    os.mkfifo(folder / "epochs" / "7")
    assert run_identity(folder).token
    assert claim_epoch(folder, known_epoch(folder)).epoch == 8


def test_epochs_go_on_above_all_that_is_known(tmp_path):
    folder = open_folder(tmp_path)
    assert claim_epoch(folder, known_epoch(folder)).epoch == 1
    (folder / "epochs" / "x²").touch()
    (folder / "server.json").write_text(
        json.dumps({"url": "http://x:1/", "token": "t", "run_id": "r", "epoch": 41})
    )
    assert claim_epoch(folder, known_epoch(folder)).epoch == 42
    shutil.rmtree(folder)
    folder = open_folder(tmp_path)
    assert claim_epoch(folder, known_epoch(folder)).epoch == 1, "a new output root"
    shutil.rmtree(folder)
    folder = open_folder(tmp_path)
    (tmp_path / "generated_images" / "storm").mkdir()
    (tmp_path / "generated_images" / "storm" / "dataset.yaml").touch()
    epoch = claim_epoch(folder, known_epoch(folder)).epoch
    assert epoch > 10**9, "servers have run here, under unknown epochs"


def test_a_claim_knows_that_it_was_deleted_or_made_by_another(tmp_path):
    folder = open_folder(tmp_path)
    claim = claim_epoch(folder)
    assert not claim.is_lost()
    (folder / "epochs" / "1").unlink()
    assert claim.is_lost()
    again = claim_epoch(folder)
    assert again.epoch == 1 and claim.is_lost() and not again.is_lost()


def test_a_ledger_of_a_later_epoch_is_opened_above_it(tmp_path):
    folder = open_folder(tmp_path)
    ledger, claim = state.claim_ledger(folder, LeaseLimits())
    ledger.store.run("UPDATE server SET epoch = 17")
    ledger.close()
    shutil.rmtree(folder / "epochs")
    ledger, claim = state.claim_ledger(open_folder(tmp_path), LeaseLimits())
    assert claim.epoch == 18
    ledger.close()


def test_the_first_of_two_at_the_same_instant_does_not_wait_for_the_seconds_ledger(tmp_path):
    folder = open_folder(tmp_path)
    ledger, _ = state.claim_ledger(folder, LeaseLimits())
    ledger.close()
    holder = sqlite3.connect(folder / "ledger.sqlite")
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, (folder / "epochs" / "3").touch).start()
    began = time.monotonic()
    with pytest.raises(UserError, match="a later server was started"):
        state.claim_ledger(folder, LeaseLimits())
    assert time.monotonic() - began < 5
    holder.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *product(["url", "token", "run_id"], [None, 5, "", "\ud800", "a\r\nb", "\x00"]),
        *product(["epoch"], [None, "1", 1.0, True, -1, 10**12, 10**40]),
    ],
)
def test_a_server_json_that_no_call_can_carry_is_damaged(tmp_path, field, value):
    (tmp_path / ".server").mkdir()
    record = {"url": "http://127.0.0.1:9/", "token": "t", "run_id": "r", "epoch": 1}
    (tmp_path / ".server" / "server.json").write_text(json.dumps(record | {field: value}))
    with pytest.raises(ServerAway, match=f"cannot be read: no {field} in it"):
        Connection(tmp_path)


def test_epochs_that_are_a_link_are_refused(tmp_path):
    """Each start would make a file where it leads."""
    (tmp_path / ".server").mkdir(mode=0o700)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".server" / "epochs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="epochs is a link; remove it"):
        open_folder(tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("damage", [None, b"", b"{", b'{"url": 3}', b"[" * 100_000])
def test_server_json_is_written_again_by_the_server_that_runs(start, damage):
    server = start()
    path = server.root / ".server" / "server.json"
    before = server.json
    path.unlink() if damage is None else path.write_bytes(damage)
    until(server.answers, "server.json", 20)
    assert server.json == before
    for change in ({"epoch": 0}, {"url": "http://127.0.0.1:9/"}, {"pid": 1}):
        path.write_text(json.dumps(before | change))
        until(lambda: server.json == before, "server.json", 20)
    assert (path.stat().st_mode & 0o777) == 0o600


def test_the_servers_folder_is_deleted_while_it_runs(start):
    """It notices, starts anew under a higher epoch, and the run goes on to its end."""
    server = start(ttl_s=3)
    client = server.client(server_timeout_s=60)
    first = granted(client)
    finish(client, first)
    second = granted(client)
    old = server.json
    delete_while_it_is_used(server.root / ".server")
    until(lambda: server.answers(old["epoch"]), "the server to start anew", 30)
    assert server.json["epoch"] > 10**9 and server.json["token"] != old["token"]
    assert server.process.poll() is None and server.json["pid"] == server.process.pid
    finish(client, second, publish=True)
    rest = work_to_the_end(client)
    assert not set(rest) & set(first.indices)
    assert server.dataset()["done"] == 20 and server.dataset()["sum_ok"]
    assert "paid LLMs stay off" in server.log() and "Traceback" not in server.log()


def test_the_ledger_is_deleted_while_the_server_runs(start):
    """It is written again from what the server holds open: leases go on."""
    server = start(ttl_s=5)
    client = server.client(server_timeout_s=60)
    first = granted(client)
    finish(client, first)
    second = granted(client)
    (server.root / ".server" / "ledger.sqlite").unlink()
    until(lambda: server.answers(1), "the server to start anew", 30)
    assert set(finish(client, second, publish=True).values()) == {"accepted"}
    rest = work_to_the_end(client)
    assert not set(rest) & {*first.indices, *second.indices}
    assert server.dataset()["done"] == 20 and server.dataset()["sum_ok"]
    assert "written again, nothing of it is lost" in server.log()
    assert "paid LLMs stay off" not in server.log() and "Traceback" not in server.log()
    assert not list((server.root / ".server").glob(".ledger*"))


def test_the_ledger_is_replaced_while_the_server_runs(start):
    """By a copy from a backup: it is opened anew, and recognised as an older one."""
    server = start()
    client = server.client(server_timeout_s=60)
    path = server.root / ".server" / "ledger.sqlite"
    server.stop()
    backup = path.read_bytes()
    server.start()
    finish(client, granted(client))
    (path.parent / "copy").write_bytes(backup)
    (path.parent / "copy").rename(path)
    until(lambda: server.answers(2), "the server to start anew", 30)
    assert "paid LLMs stay off" in server.log() and "Traceback" not in server.log()
    work_to_the_end(client)
    assert server.dataset()["done"] == 20 and server.dataset()["sum_ok"]


def test_two_servers_after_the_folder_was_deleted_leave_one(start):
    server = start()
    granted(server.client())
    first = server.process
    delete_while_it_is_used(server.root / ".server")
    server.start(wait=False)  # it may be the one that ends
    until(lambda: first.poll() is not None or server.process.poll() is not None, "one to end", 40)
    time.sleep(1.5)
    assert (first.poll() is None) != (server.process.poll() is None)
    assert granted(server.client()).indices


def test_files_from_a_backup(start):
    """Clients have seen a later epoch and refuse an older server: it learns of it, and goes on."""
    server = start()
    client = server.client(server_timeout_s=60)
    finish(client, granted(client))
    server.stop()
    backup = server.root / "backup"
    shutil.copytree(server.root / ".server", backup)
    for _ in range(2):
        server.start()
        later = granted(client)
        finish(client, later)
        server.stop()
    seen = server.json["epoch"]
    shutil.rmtree(server.root / ".server")
    backup.rename(server.root / ".server")
    server.start(wait=False)
    grant = granted(client, seconds=60)
    assert int(grant.lease.split("-")[0]) > seen
    assert not set(grant.indices) & set(later.indices), "the folder wins"
    assert "from a backup" in server.log() and "paid LLMs stay off" in server.log()


def test_a_stranger_cannot_make_the_server_start_anew(start):
    server = start()
    status, _, _ = server.raw("GET", "/healthz?nonce=abc&seen=99&seen_proof=0")
    time.sleep(1.5)
    assert status == 200 and server.json["epoch"] == 1 and server.answers()


def test_a_mark_is_believed_until_its_folder_was_listed(start):
    """Until a client asked, "all is done" was said of prompts whose files had gone."""
    server = start()
    work_to_the_end(server.client())
    folder = server.root / "generated_images" / "storm" / "000000"
    until((folder / "COMPLETE").exists, "the mark")
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    (folder / "2_0.jpg").unlink()
    server.start()
    until(lambda: server.dataset() and server.dataset()["done"] == 19, "the folder's listing", 20)
    assert not (folder / "COMPLETE").exists()


def test_a_mark_is_believed_once_while_other_folders_are_compared(start):
    """The listing before "all done" was a second look at the mark, as long as others took."""
    server = start()
    work_to_the_end(server.client(name="few"))
    granted(server.client(total=2_000_000, name="many"))
    folder = server.root / "generated_images" / "few" / "000000"
    until((folder / "COMPLETE").exists, "the mark")
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    (folder / "2_0.jpg").unlink()
    server.start()
    client = server.client(name="few", host="node2")
    answer = until(lambda: (got := client.get_indices(5)) and not isinstance(got, Wait) and got, "")
    assert isinstance(answer, Grant) and list(answer.indices) == [2], answer


@pytest.mark.parametrize("kind", ["file", "link to itself"])
def test_a_sub_folder_that_is_none_ends_no_report(start, kind):
    """It was a failed disk (503): the client asked again and again, and drew nothing."""
    server = start()
    client = server.client()
    grant = granted(client)
    folder = server.root / "generated_images" / "storm" / "000000"
    if kind == "file":
        folder.touch()
    else:
        folder.symlink_to(folder)
    assert set(finish(client, grant, publish=False).values()) == {"missing"}
    until(lambda: "folder 000000 cannot be compared" in server.log(), server.log)
