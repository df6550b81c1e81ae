"""Worker processes that end with the process that asked for them, however that ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection, wait


@contextlib.contextmanager
def start(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many processes: all end at once when the block raises, is interrupted or its process is killed."""
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(count, context, initializer=end_with, initargs=(theirs,))
    try:
        yield executor
    except BaseException:
        ours.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        ours.close()


def end_with(theirs: Connection | int) -> None:
    """Make this process end when the other end of a pipe is closed, as the system does for a process that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: one traceback, the parent's, is enough

    def watch() -> None:
        wait([theirs])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
