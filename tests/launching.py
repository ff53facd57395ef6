"""Several processes on one machine, as a launcher starts them."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
from collections.abc import Callable

import torch.utils.tensorboard  # noqa: F401  (imported once here, not in each forked child)

FORK = multiprocessing.get_context("fork")


def launch(work: Callable[..., object], *arguments: object, size: int = 2, limit: float = 15) -> list[int | None]:
    """Run ``work`` in as many processes as a launcher would start: the exit codes.

    Args:
        limit: seconds after which a process that hangs says where, and ends.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ranked(rank: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        faulthandler.dump_traceback_later(limit, exit=True)
        work(*arguments)
        faulthandler.cancel_dump_traceback_later()

    processes = [FORK.Process(target=ranked, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(4 * limit)
    return [process.exitcode for process in processes]
