"""A loader of data whose workers leave signals to the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import DataLoader


class PatientDataLoader(DataLoader):
    """A loader whose workers outlive the signals sent to their whole process group, but not their parent's.

    A worker that died of them would take the training's last step with it. PyTorch ends its workers with SIGTERM too,
    so each looks at who sent it: SIGTERM is blocked in all threads of a worker, from its birth, and one waits for it.
    """

    @classmethod
    def of(cls, loader: DataLoader) -> DataLoader:
        """Make PyTorch's loader one of these; not where the system cannot tell who sent a signal (macOS, Windows)."""
        if type(loader) is DataLoader and hasattr(signal, "sigwaitinfo"):
            loader.worker_init_fn = partial(_begin_worker, loader.worker_init_fn)
            loader.__class__ = cls
        return loader

    def __iter__(self) -> Any:
        """Start the workers, unless they persist."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            iterator = super().__iter__()
            vars(self)["started"] = weakref.ref(iterator)
            return iterator
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_workers(loader: Any) -> None:
    """End what is left of a loader's workers once one of them was killed.

    Until then PyTorch raises its error again whenever any child of this process ends, also in the middle of a save.
    """
    iterator = getattr(loader, "started", lambda: None)()
    shut_down = getattr(iterator, "_shutdown_workers", None)  # no iterator without workers has it
    if shut_down is None or threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        shut_down()
    finally:
        signal.signal(signal.SIGCHLD, before)


def _begin_worker(initialise: Callable[[int], None] | None, worker: int) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if initialise is not None:
        initialise(worker)


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as PyTorch's own workers end when their parent tells them to
