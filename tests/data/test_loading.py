"""Loaders: order from (seed, epoch), exact start in mid-epoch, shards, workers, errors without hanging."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fastpose.data import KeypointDataset, loading
from fastpose.data.loading import create_loader, epoch_order, worker_death


class Numbers(Dataset):
    """Samples that say which (epoch, index) they are."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key):
        return {"epoch": torch.tensor(key[0]), "index": torch.tensor(key[1])}


class Settings(Numbers):
    """Samples that say how many threads their process may use."""

    def __getitem__(self, key):
        import cv2

        return {"threads": torch.tensor([torch.get_num_threads(), cv2.getNumThreads()])}


def crash(number):
    faulthandler.disable()  # pytest's, which would fill the screen
    os.kill(os.getpid(), number)


FATAL = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "exit as if all were well": lambda: os._exit(0),
    "abort": lambda: crash(signal.SIGABRT),
    "crash": lambda: crash(signal.SIGSEGV),
    "sys.exit": sys.exit,
}


class Broken(Numbers):
    """A sample that raises, or whose process is killed."""

    def __init__(self, count, action):
        super().__init__(count)
        self.action = action

    def __getitem__(self, key):
        if key[1] == 5 and self.action in FATAL:
            FATAL[self.action]()
        if key[1] == 5:
            raise self.action("tiny person 5: image a.jpg: the file is empty")
        return super().__getitem__(key)


def _indices(loader):
    return [batch["index"].tolist() for batch in loader]


def test_an_epoch_visits_every_sample_once_in_a_new_order():
    loader = create_loader(Numbers(12), 4, shuffle=True, seed=1)
    first = _indices(loader)
    loader.set_epoch(1)
    second = _indices(loader)
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(12))
    assert first != second


def test_the_order_depends_on_seed_and_epoch_alone():
    assert np.array_equal(
        epoch_order(50, shuffle=True, seed=7, epoch=3), epoch_order(50, shuffle=True, seed=7, epoch=3)
    )
    assert not np.array_equal(
        epoch_order(50, shuffle=True, seed=7, epoch=3), epoch_order(50, shuffle=True, seed=8, epoch=3)
    )


def test_samples_learn_their_epoch():
    loader = create_loader(Numbers(4), 2, shuffle=True, epoch=6)
    assert {int(value) for batch in loader for value in batch["epoch"]} == {6}


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_an_epoch_can_be_entered_at_any_step(start):
    whole = _indices(create_loader(Numbers(12), 4, shuffle=True, seed=1, epoch=2))
    assert _indices(create_loader(Numbers(12), 4, shuffle=True, seed=1, epoch=2, start_step=start)) == whole[start:]


def test_length_is_that_of_the_whole_epoch():
    assert len(create_loader(Numbers(12), 4, shuffle=True, start_step=2)) == 3


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_the_steps_of_one_rank_with_the_larger_batch(world_size):
    whole = _indices(create_loader(Numbers(25), 2 * world_size, shuffle=True, seed=1))
    shards = [
        _indices(create_loader(Numbers(25), 2, shuffle=True, seed=1, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert [list(chain(*parts)) for parts in zip(*shards, strict=True)] == whole


@pytest.mark.parametrize("count", [1, 4, 7, 8, 9])
def test_evaluation_gives_every_sample_exactly_once(count):
    shards = [_indices(create_loader(Numbers(count), 2, shuffle=False, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(index for shard in shards for batch in shard for index in batch) == list(range(count))
    lengths = [len(create_loader(Numbers(count), 2, shuffle=False, rank=rank, world_size=2)) for rank in range(2)]
    assert lengths == [len(shard) for shard in shards]


def test_training_drops_the_short_step():
    assert [len(batch) for batch in _indices(create_loader(Numbers(10), 4, shuffle=True))] == [4, 4]


def test_batches_do_not_depend_on_workers(tiny_source):
    dataset = KeypointDataset(tiny_source, augment="newell", image_size=(32, 32), seed=2)
    loaders = [create_loader(dataset, 2, shuffle=True, seed=1, workers=workers) for workers in (0, 2)]
    for epoch, start in ((0, 0), (3, 1)):
        for loader in loaders:
            loader.set_epoch(epoch, start)
        for one, other in zip(*loaders, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_abandoned_epoch_does_not_disturb_the_next():
    loader = create_loader(Numbers(40), 2, shuffle=True, seed=1, workers=1)
    next(iter(loader))
    loader.set_epoch(1)
    assert _indices(loader) == _indices(create_loader(Numbers(40), 2, shuffle=True, seed=1, epoch=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_loader_has_no_workers_and_begins_anew(workers):
    loader = create_loader(Numbers(8), 2, shuffle=False, workers=workers)
    before = len(multiprocessing.active_children())
    next(iter(loader))
    assert len(multiprocessing.active_children()) == before + workers
    for _ in range(2):  # the second time there is nothing to end
        loader.close()
        assert len(multiprocessing.active_children()) == before
    assert _indices(loader) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    list(create_loader(Numbers(4), 2, shuffle=True, workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_run_with_one_thread():
    (batch,) = create_loader(Settings(1), 1, shuffle=False, workers=1)
    assert batch["threads"].tolist() == [[1, 1]]  # OpenCV calls "no pool" one thread


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
def test_promise_17_an_error_in_a_sample_arrives_as_its_sentence(workers, kind):
    with pytest.raises(kind) as caught:
        list(create_loader(Broken(8, kind), 2, shuffle=False, workers=workers))
    assert str(caught.value) == "tiny person 5: image a.jpg: the file is empty"


def test_a_defect_is_not_turned_into_a_sentence():
    with pytest.raises(KeyError):
        list(create_loader(Broken(8, KeyError), 2, shuffle=False))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_promise_11_what_stops_a_whole_job_leaves_its_workers_to_it(number):
    batches = iter(create_loader(Numbers(60), 1, shuffle=False, workers=2))
    next(batches)
    for worker in multiprocessing.active_children():
        another_process_sends(number, worker.pid)
    assert len(list(batches)) == 59


def another_process_sends(number, pid):
    """Send a signal that does not come from this process, as a scheduler or a terminal does."""
    assert subprocess.run(["kill", f"-{int(number)}", str(pid)], timeout=60).returncode == 0


@pytest.mark.timeout(60)
def test_a_worker_that_its_parent_ends_is_gone():
    batches = iter(create_loader(Numbers(60), 1, shuffle=False, workers=1))
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("action", FATAL)
def test_promise_18_a_dead_worker_is_one_error(action, monkeypatch):
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    with pytest.raises(
        ChildProcessError, match=r"a data worker died .*lower workers \(now 1\) or batch_size"
    ) as caught:
        list(create_loader(Broken(8, action), 2, shuffle=False, workers=1))
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "error", [RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), OSError(12, "No memory")]
)
def test_promise_18_a_worker_that_dies_while_others_are_started_is_one_error(monkeypatch, error):
    """Torch says so from a signal's handler, wherever the main process is; and no worker is left behind."""

    def interrupted(*_):
        raise error

    loader = create_loader(Numbers(8), 2, shuffle=False, workers=2)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_put_index", interrupted)
    before = len(multiprocessing.active_children())
    with pytest.raises(
        ChildProcessError, match=r"^(a data worker died \(|data workers: cannot be started).*lower workers"
    ):
        next(iter(loader))
    assert len(multiprocessing.active_children()) == before


class Odd(Exception):
    """An error that no other process can be told of: it holds what cannot be pickled, and asks for two arguments."""

    def __init__(self, text, more):
        super().__init__(text)
        self.more = lambda: more


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [Odd("odd", 1), KeyError("odd"), RecursionError("odd"), AssertionError("odd")])
def test_promise_18_a_defect_in_a_worker_arrives_with_its_traceback(error):
    def fail(_text):
        raise error

    with pytest.raises((type(error), RuntimeError), match=r"(?s)Caught .*Traceback.*odd"):
        list(create_loader(Broken(8, fail), 2, shuffle=False, workers=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_promise_18_a_sample_that_takes_all_memory_is_no_bad_sample(workers):
    with pytest.raises(MemoryError, match=r"^sample 5: memory ran out \(tiny person 5.*lower workers or batch_size$"):
        list(create_loader(Broken(8, MemoryError), 2, shuffle=False, workers=workers))


@pytest.mark.timeout(60)
def test_promise_18_a_batch_that_cannot_be_handed_over_does_not_hang(monkeypatch):
    """A lock cannot be sent; the worker's own thread would say so to nobody, and live on."""

    class Locked(Numbers):
        def __getitem__(self, key):
            return super().__getitem__(key) | {"lock": LOCK}

    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    monkeypatch.setattr(loading, "_collate_read", lambda samples: samples)
    with pytest.raises(ChildProcessError, match="a data worker could not hand over a batch"):
        list(create_loader(Locked(8), 2, shuffle=False, workers=1))


LOCK = threading.Lock()
HANDLES = """
import resource, sys
from types import SimpleNamespace
import torch
from fastpose.data.loading import create_loader

class Many(torch.utils.data.Dataset):
    def __len__(self): return 40
    def __getitem__(self, key): return {str(number): torch.zeros(3) for number in range(12)}

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
try:
    batches = list(create_loader(Many(), 2, shuffle=False, workers=2))
    assert len(batches) == 20
except ChildProcessError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("handles", [9, 16, 24, 64, 1024])
def test_promise_18_too_few_open_files_are_one_sentence(handles):
    """Or enough; never a hang."""
    words = [sys.executable, "-W", "ignore", "-c", HANDLES, str(handles)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") <= 1
    assert "Too many open files" in done.stdout or "too many open files" in done.stdout or not done.stdout
    if handles >= 1024:
        assert not done.stdout


def test_promise_18_full_shared_memory_is_told_by_its_name():
    """What torch says of it, as an error of a worker and as the bus error that ends one."""
    found = [
        "Caught RuntimeError in DataLoader worker process 0.\nTraceback ...\nRuntimeError: unable to allocate shared "
        "memory(shm) for file </torch_1_2_0>: No space left on device (28)\n",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
    ]
    for text in found:
        died = worker_death(RuntimeError(text), 2)
        assert "found no room in shared memory (/dev/shm); make it larger (of a container: --shm-size=8g)" in str(died)


def test_promise_18_other_errors_are_no_worker_death():
    assert worker_death(RuntimeError("shape mismatch"), 2) is None
    assert worker_death(RuntimeError("Caught RuntimeError in DataLoader worker process 0."), 2) is None
    assert worker_death(OSError("disk full"), 0) is None


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_promise_18_a_broken_connection_is_a_worker_death(error):
    assert str(worker_death(error, 2)).startswith("a data worker died (")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"batch_size": 9}, "needs 9 persons for one step, found 8; lower batch_size"),
        ({"batch_size": 2, "workers": -1}, "workers: expected 0 or more"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank: expected 0 to world_size - 1 = 1, got 2"),
        ({"batch_size": 2, "start_step": 5}, r"start_step: expected 0 to 4 \(steps of an epoch\), got 5"),
    ],
)
def test_sizes_out_of_range_are_errors(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_loader(Numbers(8), shuffle=True, **options)
