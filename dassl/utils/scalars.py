"""Curves for TensorBoard, without the thread and the queue of its own writer."""

from __future__ import annotations

import io
import os
import socket
import time
from typing import Any

from dassl.utils.files import mkdir_if_missing, writing

FLUSH_SECONDS = 30


class ScalarWriter:
    """Writes an event file, now and then and on :meth:`close`.

    Args:
        log_dir: its folder.

    Raises:
        OutputDirError: the file cannot be written; so do all methods.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        mkdir_if_missing(log_dir)
        origin = f"{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = os.path.join(log_dir, f"events.out.tfevents.{origin}")
        self._pending = io.BytesIO()
        self._records = RecordWriter(self._pending)
        self._last_flush = time.monotonic()
        self._step: int | None = None
        self._values: list[dict[str, Any]] = []
        self._add(file_version="brain.Event:2")

    def add_scalar(self, tag: str, value: float, step: int | None = None) -> None:
        """Add a point to the curve ``tag``; neighbours of one step become one event."""
        if step != self._step:
            self._end_step()
            self._step = step
        self._values.append({"tag": tag, "simple_value": value})
        if time.monotonic() - self._last_flush > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """Write what is not yet in the file."""
        self._end_step()
        content = self._pending.getvalue()
        self._pending.seek(0)
        self._pending.truncate()
        self._last_flush = time.monotonic()
        with writing(self.path, len(content)), open(self.path, "ab") as file:
            file.write(content)

    def _end_step(self) -> None:
        values, self._values = self._values, []
        if values:
            self._add(step=self._step, summary={"value": values})

    def _add(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **event).SerializeToString())
