"""Run long tasks in parallel, each in a process of its own with its own log."""

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import UserError, find_user_error
from ..messages import shown_messages


def in_parallel(tasks: Mapping[Path, Callable[[], object]], processes: int) -> Iterator[None]:
    """Call tasks in new processes, which divide the threads; yield whenever a task has ended.

    The processes end with this one, in whatever way that comes, and with the first failure: what
    they do must be resumable.

    Args:
        tasks: what to do, by the file that receives what it prints; it must survive pickling.
        processes: how many at a time.

    Raises:
        UserError: that of a task, or if the system ended one of the processes.
    """
    threads = max(1, torch.get_num_threads() // processes)
    spawned = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, spawned, _begin, (threads,)) as pool:
        try:
            started = [pool.submit(_logged, task, log) for log, task in tasks.items()]
            for one in tqdm(as_completed(started), desc="trainings", unit="run", total=len(started)):
                yield one.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # it would begin what it has fetched already
            if isinstance(error, BrokenProcessPool):
                logs = ", ".join(str(log) for log in tasks if log.exists())
                found = f"a process was ended by the system, often for lack of memory ({logs})"
                raise UserError(f"{found}; expected: fewer processes; the same command goes on") from None
            raise


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    """End this process when its parent has ended, because a pool's workers would go on."""
    parent.join()
    os._exit(1)


def _logged(task: Callable[[], object], log: Path) -> None:
    """Call a task with its output in a file, that of native code and of log handlers too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    try:
        with shown_messages():
            task()
    except Exception as error:
        traceback.print_exc()
        mistake = find_user_error(error)
        if mistake is None:
            raise  # the pool sends its whole traceback
        raise mistake from None  # what it was raised from is lost on the way
    finally:
        sys.stdout.flush()
