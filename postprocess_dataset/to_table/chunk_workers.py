"""Chunks of samples, read, parsed and checked by workers; their rows in the order asked.

with ChunkWorkers(checks) as workers:
    workers.submit(Chunk("HPDv2/000012", names, has_image))
    for chunk, (rows, rejects) in workers.done(): …       # and workers.rest() at the end

A chunk that lies in few files (a .samples for each prompt) goes to a thread: parsing releases the
interpreter's lock, and nothing has to be sent. A chunk of thousands of small files goes to a
process, and its rows come back as Arrow IPC: threads would hand the lock over 17 times a file.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import pyarrow as pa

from postprocess_dataset.sample_checks import Checked, Checks, Chunk
from postprocess_dataset.to_table.sample_files import Read, Reader, read_chunk
from postprocess_dataset.workers import forked, start

# Samples: 6-10 MB of JSON, about 50 MB at the peak of a worker with the parsed columns.
CHUNK = 8192
INLINE = 4096  # samples of a chunk that is not worth the forks, 0.1 s, while no worker is there
WORKERS = 4
# 150 bytes a row instead of 880: 1.0 us of CPU in all, through a pipe as they are 4.2
COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")
READERS: list[Reader] = []  # a worker's own


class Sent(NamedTuple):
    """The checked rows of a chunk as a process sends them: Arrow IPC."""

    rows: bytes | None
    rejects: list[tuple[str, str]]
    done: int


Begun = tuple[Chunk, Future[Sent] | Future[Read] | Read]


class ChunkWorkers:
    """One worker for each core, at most WORKERS; started when there is work for them.

    Threads until a chunk of small files comes, then processes: a process must not be forked while
    threads run.
    """

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self.count = min(WORKERS, len(os.sched_getaffinity(0)))
        self.reader = Reader()
        self.stack = ExitStack()
        self.pool: Executor | None = None
        self.threads: Executor | None = None
        self.waiting: deque[Begun] = deque()

    def submit(self, chunk: Chunk) -> None:
        """Begin with a chunk of at most CHUNK samples."""
        self.waiting.append(self._begin(chunk))

    def _begin(self, chunk: Chunk) -> Begun:
        if self.pool is None and len(chunk.names) <= INLINE:
            return chunk, read_chunk(self.reader, self.checks, chunk)
        if self.pool is None and chunk.in_few_files:
            self.threads = self.threads or ThreadPoolExecutor(self.count)
            return chunk, self.threads.submit(read_chunk, self.reader, self.checks, chunk)
        if self.threads:
            self.threads.shutdown()
            self.threads = None
        if self.pool is None:
            self.pool = self.stack.enter_context(forked(self.count, READERS.append, Reader()))
        return chunk, start(self.pool, read_and_send, self.checks, chunk)

    def done(self) -> Iterator[tuple[Chunk, Checked]]:
        """The oldest chunks, until no more are under way than keep the workers busy."""
        while len(self.waiting) > 2 * self.count:
            yield self._oldest()

    def rest(self) -> Iterator[tuple[Chunk, Checked]]:
        """All that are left."""
        while self.waiting:
            yield self._oldest()

    def _oldest(self) -> tuple[Chunk, Checked]:
        chunk, found = self.waiting.popleft()
        result = found.result() if isinstance(found, Future) else found
        if result.done < len(chunk.names):  # the rest is next: rows keep their order
            self.waiting.appendleft(self._begin(chunk.part(result.done, len(chunk.names))))
        rows = received(result.rows) if isinstance(result, Sent) else result.rows
        return chunk, (rows, result.rejects)

    def __enter__(self) -> Self:
        self.stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.threads:
            self.threads.shutdown(cancel_futures=True)
        self.stack.__exit__(*error)


def read_and_send(checks: Checks, chunk: Chunk) -> Sent:
    """In a worker: a chunk's rows and rejects."""
    rows, rejects, done = read_chunk(READERS[0], checks, chunk)
    if rows is None:
        return Sent(None, rejects, done)
    rows = rows.drop_columns(["caption"])  # the same text as augmented_prompt
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=COMPRESSED) as writer:
        writer.write_table(rows)
    return Sent(sink.getvalue().to_pybytes(), rejects, done)


def received(content: bytes | None) -> pa.Table | None:
    """The rows that read_and_send() sent."""
    if content is None:
        return None
    rows = pa.ipc.open_stream(content).read_all()
    place = rows.schema.names.index("__key__") + 1  # as in rows that were read here
    return rows.add_column(place, "caption", rows["augmented_prompt"])
