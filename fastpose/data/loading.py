"""Loaders whose order is a function of (seed, epoch): sharded by rank, restartable at any step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import queues
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fastpose.data.unreadable import Substitute, say_left_out

Batch = dict[str, torch.Tensor]

_NOT_HANDED_OVER = 75  # exit code of a worker


def epoch_order(count: int, *, shuffle: bool, seed: int, epoch: int) -> np.ndarray:
    """Return the order of samples in an epoch, int64 (count,): a permutation from (seed, epoch), or 0..count-1."""
    if not shuffle:
        return np.arange(count)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch)))).permutation(count)


def epoch_keys(order: np.ndarray, epoch: int) -> np.ndarray:
    """Return the keys (epoch, index) of samples by their order (N,), int64 (N, 2)."""
    return np.stack([np.full(len(order), epoch), order], axis=1).astype(np.int64)


Order = Callable[[int], np.ndarray]
"""From the epoch to the keys of its samples, int64 (N, 2): what randomness depends on besides the seed, and index."""


def _order(dataset: Any, *, shuffle: bool, seed: int, batch_size: int, world_size: int) -> Order:
    """Return what orders the samples of an epoch: the data set's own order where it has one (``MixedDataset``)."""
    own = getattr(dataset, "order", None)
    if own is None:
        return lambda epoch: epoch_keys(epoch_order(len(dataset), shuffle=shuffle, seed=seed, epoch=epoch), epoch)
    return lambda epoch: own(shuffle=shuffle, seed=seed, epoch=epoch, batch_size=batch_size, world_size=world_size)


class ShardSampler(Sampler[list[tuple[int, int]]]):
    """Batches of keys (epoch, index) of one rank.

    Step t of the whole job takes the slice ``order[t*B*W:(t+1)*B*W]`` and rank r its r-th part, so that W ranks with
    batch B see in each step what one rank with batch W*B sees. The last, shorter slice is dropped with ``drop_last``,
    else dealt out in turn; every sample then comes exactly once and ranks may differ by one batch.
    """

    def __init__(self, count: int, batch_size: int, *, order: Order, rank: int, world_size: int, drop_last: bool):
        self.count, self.batch_size, self.order = count, batch_size, order
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch, self.start_step = 0, 0

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size * self.world_size)
        return whole + int(not self.drop_last and rest > self.rank)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order(self.epoch)
        for step in range(self.start_step, len(self)):
            yield [(int(epoch), int(index)) for epoch, index in self._part(order, step)]

    def _part(self, order: np.ndarray, step: int) -> np.ndarray:
        size = self.batch_size * self.world_size
        part = order[step * size : (step + 1) * size]  # (<= B * W, 2)
        if len(part) < size:
            return part[self.rank :: self.world_size]
        return part[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]


@dataclass(frozen=True)
class _Failure:
    """An expected error that travels from a worker as data, so that its one sentence arrives without a traceback."""

    kind: type[Exception]
    text: str


class _Guarded(Dataset):
    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.dataset[key]
        except MemoryError as error:
            return _Failure(MemoryError, f"sample {key[1]}: memory ran out ({error}); lower workers or batch_size")
        except FileNotFoundError as error:
            return _Failure(FileNotFoundError, str(error))
        except (ValueError, OSError) as error:
            return _Failure(ValueError, str(error))


def _collate(samples: list[Any]) -> Any:
    """Return samples as a batch, substitutes as what they are; or the first failure."""
    failures = [sample for sample in samples if isinstance(sample, _Failure)]
    plain = [dict(sample) if isinstance(sample, Substitute) else sample for sample in samples]
    return failures[0] if failures else default_collate(plain)


def _collate_read(samples: list[Any]) -> Any:
    """Return a batch of the samples that were asked for; None where each of them has a substitute."""
    own = [sample for sample in samples if not isinstance(sample, Substitute)]
    return _collate(own) if own else None


def _prepare_worker(_worker: int) -> None:
    """One thread per worker: processes already fill the machine, and OpenCV's pool does not survive a fork."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    queues.Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]
    _leave_signals_to_parent()


# What stops a whole job: a scheduler, a closed terminal, Ctrl-C. Not on every system.
_STOPPING = {getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, "sigwaitinfo")}


def _leave_signals_to_parent() -> None:
    """Let what stops a whole job be the main process's affair, which finishes a step and needs its batches for that.

    The parent's own SIGTERM still ends a worker, and so does the parent's death.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or not _STOPPING:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)

    def listen() -> None:
        while True:
            told = signal.sigwaitinfo(_STOPPING)
            if told.si_signo == signal.SIGTERM and told.si_pid == parent.pid:
                os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


@contextmanager
def _signals_later() -> Iterator[None]:
    """Deliver to this process after the body what would stop it; workers begin without hearing it."""
    if not _STOPPING:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _give_up(_error: Exception, _batch: Any) -> None:
    """End a worker that cannot hand its batch over: the main process would wait for it for ever."""
    os._exit(_NOT_HANDED_OVER)


def _start_method() -> str | None:
    """Return how workers are started: forked on Linux, unless the program has chosen.

    Forked ones begin at once and share what is loaded; others import everything anew, seconds and 150 MB for each.
    Python's own choice has changed (3.14).
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return "fork" if chosen is None and sys.platform == "linux" else chosen


class Loader:
    """Iterable over the batches of an epoch; see ``create_loader``.

    ``len(loader)`` counts the steps of a whole epoch of this rank; iteration starts at ``start_step``.
    """

    def __init__(self, dataset: Any, sampler: ShardSampler, workers: int, pin_memory: bool, substitutes: bool):
        self.dataset, self.sampler, self.workers, self.substitutes = dataset, sampler, workers, substitutes
        self._loader = DataLoader(
            _Guarded(dataset),
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_collate if substitutes else _collate_read,
            worker_init_fn=_prepare_worker,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            multiprocessing_context=_start_method() if workers > 0 else None,
            # Its own generator: the base seed that torch draws for workers must not advance the global random state.
            generator=torch.Generator().manual_seed(0),
        )

    @property
    def batch_size(self) -> int:
        """Samples per step on this rank."""
        return self.sampler.batch_size

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch, and the step at which the next iteration starts (exact resume)."""
        if not 0 <= start_step <= len(self.sampler):
            raise ValueError(f"start_step: expected 0 to {len(self.sampler)} (steps of an epoch), got {start_step}")
        self.sampler.epoch, self.sampler.start_step = epoch, start_step

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._started()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                if not self.substitutes:
                    say_left_out(getattr(self.dataset, "skipped", 0), len(self.dataset))
                return
            except (RuntimeError, OSError, EOFError) as error:
                died = worker_death(error, self.workers, self._exit_codes())
                if died is None:
                    raise
                self.close()
                raise died from error
            if isinstance(batch, _Failure):
                self.close()
                raise batch.kind(batch.text)
            if batch is not None:
                yield batch

    def _started(self) -> Iterator[Any]:
        """Return the batches of an epoch, with workers that are running."""
        if self.workers:
            _check_shared_memory()
        try:
            with _signals_later():
                batches = iter(self._loader)
        except (RuntimeError, OSError) as error:
            _end_started(error)
            self.close()
            raise self._unstarted(error) from error
        _without_signal(batches)
        return batches

    def _unstarted(self, error: Exception) -> Exception:
        """Return one sentence for workers that could not be started, or of which one died at once."""
        if isinstance(error, OSError):
            reason = error.strerror or error
            return ChildProcessError(f"data workers: cannot be started ({reason}); lower workers (now {self.workers})")
        return worker_death(error, self.workers) or error

    def _exit_codes(self) -> list[int]:
        """Return the exit codes of the workers that have ended."""
        workers = getattr(self._loader._iterator, "_workers", ())
        for worker in workers:
            worker.join(0.2)  # a connection may break before the process behind it is gone
        return [worker.exitcode for worker in workers if worker.exitcode]

    def close(self) -> None:
        """End the workers; a later iteration starts fresh ones."""
        pool, self._loader._iterator = self._loader._iterator, None
        getattr(pool, "_shutdown_workers", lambda: None)()


def _check_shared_memory() -> None:
    """Raise one sentence where processes cannot share anything: torch would leave a half-made pool that complains."""
    try:
        multiprocessing.get_context(_start_method()).Lock()
    except OSError as error:
        raise OSError(
            f"data workers need shared memory (/dev/shm), and there is none ({error.strerror or error}); "
            "set run.workers=0, which needs none"
        ) from None


def _end_started(error: Exception) -> None:
    """End the workers of a pool that was not made whole: torch takes hold of one when all are there, or of none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        pool = frame.f_locals.get("self")
        if isinstance(pool, _MultiProcessingDataLoaderIter):
            pool._workers_status = [True] * len(pool._workers)
            pool._shutdown_workers()


def _without_signal(batches: Any) -> None:
    """Let the death of a worker of this pool be found by torch's polling alone (every 5 s while a batch is awaited).

    Torch also looks at its workers from a SIGCHLD handler, which raises wherever the main process happens to be: in a
    step, in a checkpoint, in another test. A torch without these attributes keeps that behaviour.
    """
    forget = getattr(signal_handling, "_remove_worker_pids", None)
    if forget is not None and getattr(batches, "_worker_pids_set", False):
        forget(id(batches))
        batches._worker_pids_set = False


def worker_death(error: Exception, workers: int, exit_codes: Sequence[int] = ()) -> ChildProcessError | None:
    """Return one sentence for an error with which torch reports a worker that died, None for any other error.

    A batch whose worker died before handing over its memory shows as a broken connection. What a sample raises is no
    such error: it comes as a ``_Failure``, or with its traceback and the word "Caught".
    """
    text = str(error)
    if _NOT_HANDED_OVER in exit_codes or (workers and "Too many open files" in text):
        return ChildProcessError(
            f"a data worker could not hand over a batch: too many open files; raise their number (ulimit -n) or lower "
            f"workers (now {workers})"
        )
    if workers and ("shared memory" in text or "Bus error" in text):
        return ChildProcessError(
            "a data worker found no room in shared memory (/dev/shm); make it larger (of a container: --shm-size=8g), "
            f"lower workers (now {workers}), or set them to 0"
        )
    if isinstance(error, RuntimeError) and ("DataLoader worker" not in text or "Caught " in text):
        return None
    if isinstance(error, OSError) and (not workers or "Caught " in text):
        return None
    reason = (text.splitlines() or [type(error).__name__])[0].rstrip(". ")
    return ChildProcessError(
        f"a data worker died ({reason}); usually memory ran out: lower workers (now {workers}) or batch_size"
    )


def create_loader(
    dataset: Any,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool | None = None,
    epoch: int = 0,
    start_step: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """Return a ``Loader`` over ``dataset[(epoch, index)]`` with batches stacked by ``default_collate``.

    Args:
        dataset: has ``__len__`` and ``__getitem__((epoch, index)) -> dict`` (``KeypointDataset``); one that has an
            ``order`` (``MixedDataset``) chooses the keys.
        batch_size: samples per step and rank.
        shuffle: a new permutation for every epoch, from (seed, epoch) alone; else the order of the data set, and what
            stands in for an unreadable sample is left out, since a score would count it twice.
        workers: processes; 0 loads in the calling process. The batches do not depend on it.
        rank, world_size: this process's share of each step.
        drop_last: drop the shorter last step; default: as ``shuffle`` (training drops, evaluation keeps every sample).
        epoch, start_step: where the first iteration starts; later ones by ``set_epoch``.

    Raises:
        ValueError: a size is out of range, or fewer samples than one whole step with ``drop_last``.
        ChildProcessError: (while iterating) a worker process died.
        ValueError, FileNotFoundError: (while iterating) what the data set raised, as one sentence.
    """
    drop_last = shuffle if drop_last is None else drop_last
    _check_workers(batch_size, workers, rank, world_size)
    order = _order(dataset, shuffle=shuffle, seed=seed, batch_size=batch_size, world_size=world_size)
    count = len(order(0))
    _check_count(count, batch_size, world_size, drop_last)
    sampler = ShardSampler(count, batch_size, order=order, rank=rank, world_size=world_size, drop_last=drop_last)
    loader = Loader(dataset, sampler, workers, pin_memory, substitutes=shuffle)
    loader.set_epoch(epoch, start_step)
    return loader


def _check_workers(batch_size: int, workers: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if workers < 0:
        raise ValueError(f"workers: expected 0 or more, got {workers}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: expected 0 to world_size - 1 = {world_size - 1}, got {rank}")


def _check_count(count: int, batch_size: int, world_size: int, drop_last: bool) -> None:
    if drop_last and count < batch_size * world_size:
        raise ValueError(
            f"batch_size: {batch_size} x {world_size} processes needs {batch_size * world_size} persons for one step, "
            f"found {count}; lower batch_size"
        )
