"""Promise 28 among threads and processes: calls at the same time, forks, ends of processes, a lack of memory."""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import kernel_calls
import pytest
import runs
import torch
from torch.utils.data import DataLoader

from fastpose import _native, ops

if _native.missing():
    pytest.skip(_native.missing(), allow_module_level=True)

THREADS, ROUNDS = 8, 4
TIMEOUT = 120  # seconds, for a machine ten times slower


def run(code: str) -> str:
    """What a process with two threads says that runs the code; it must end well and leave nothing on stderr."""
    head = "import kernel_calls\nimport torch\nfrom fastpose import _native, ops\ntorch.set_num_threads(2)\n"
    command = [sys.executable, "-W", "ignore", "-c", head + code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = runs.environment(OMP_NUM_THREADS="2")
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:
        try:
            said, errors = process.communicate(timeout=TIMEOUT)
        finally:  # forked children that wait for ever too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (0, ""), said + errors
    return said


# ----------------------------------------------------------------------------------------------------------- threads


def in_threads(works) -> None:
    """Run every piece of work in a thread of its own, all at once; raise what one of them raises."""
    start = threading.Barrier(len(works))

    def started(work):
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(started, work) for work in works]:
            future.result()


@pytest.mark.parametrize("same", [True, False], ids=["same inputs", "own inputs"])
def test_promise_28_calls_from_eight_threads_give_the_serial_bits(same):
    sets = [kernel_calls.calls(0 if same else seed) for seed in range(1 if same else THREADS)]
    expected = [{name: call() for name, call in calls.items()} for calls in sets]

    def work(number: int) -> None:
        torch.set_num_threads(number % 3 + 1)  # torch keeps it for each thread
        calls, results = sets[number % len(sets)], expected[number % len(sets)]
        for name, call in islice(cycle(calls.items()), number, number + ROUNDS * len(calls)):
            assert call() == results[name], f"{name}, thread {number}"
            with pytest.raises(ValueError, match="joints: expected"):
                ops.pairwise_descriptor(torch.zeros(1, 2, 5))

    in_threads([lambda number=number: work(number) for number in range(THREADS)])


def test_promise_28_derivatives_while_other_threads_call_and_change_the_number_of_threads():
    calls, gradients = kernel_calls.calls(), kernel_calls.gradients()
    expected = {name: call() for name, call in calls.items()}
    derivatives = {name: call() for name, call in gradients.items()}
    done = threading.Event()

    def call_all() -> None:
        while not done.is_set():
            assert {name: call() for name, call in calls.items()} == expected

    def change_threads() -> None:
        for count in cycle((1, 2, 3)):
            torch.set_num_threads(count)
            if done.is_set():
                return

    def differentiate() -> None:
        try:
            for _ in range(ROUNDS):
                assert {name: call() for name, call in gradients.items()} == derivatives
        finally:
            done.set()

    in_threads([differentiate, differentiate, call_all, call_all, change_threads])


def test_promise_28_other_threads_run_while_a_kernel_does():
    began, ended, seen = [], [], []

    def kernel() -> None:
        began.append(time.perf_counter())
        _native.module().multiply_add(2**26, 1)  # a tenth of a second or more
        ended.append(time.perf_counter())

    thread = threading.Thread(target=kernel)
    thread.start()
    while thread.is_alive():
        seen.append(time.perf_counter())
    assert sum(began[0] < moment < ended[0] for moment in seen) > 100


def test_promise_28_an_interrupt_during_a_kernel_comes_after_it():
    calls = kernel_calls.calls()
    expected = calls["attention"]()

    def for_long() -> None:
        threading.Timer(0.02, _thread.interrupt_main).start()
        for _ in range(10**6):
            calls["attention"]()

    with pytest.raises(KeyboardInterrupt):
        for_long()
    assert calls["attention"]() == expected


# --------------------------------------------------------------------------------------------------------- processes

ALL = "calls = kernel_calls.calls()\nexpected = {name: call() for name, call in calls.items()}\n"
FORKED = """
import os

def child():  # torch's own operations would wait for the parent's threads for ever; the sum of a residual is one
    assert {name: call() for name, call in calls.items() if name != "residual"}.items() <= expected.items()
    torch.set_num_threads(1)
    assert calls["residual"]() == expected["residual"]

def fork():
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert fork() == 0
"""


@pytest.mark.slow
def test_promise_28_a_forked_child_computes_what_its_parent_does():
    assert run(ALL + FORKED) == ""


@pytest.mark.slow
def test_promise_28_a_fork_while_other_threads_are_in_kernels():
    code = """
import threading

done = threading.Event()
def work():
    while not done.is_set():
        assert calls["attention"]() == expected["attention"]
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(10):
    assert fork() == 0
done.set()
for thread in threads:
    thread.join()
print({name: call() for name, call in calls.items()} == expected)
"""
    assert run(ALL + FORKED + code) == "True\n"


def rendered(index: int) -> bytes:
    return kernel_calls.calls()["heatmaps"]()


class Rendered(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> bytes:
        return rendered(index)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of fork beside threads
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_promise_28_workers_of_pools_and_loaders_compute(method):
    expected = rendered(0)
    context = multiprocessing.get_context(method)
    loader = DataLoader(Rendered(), batch_size=None, num_workers=2, multiprocessing_context=context, timeout=TIMEOUT)
    assert list(loader) == [expected] * 4
    with context.Pool(2) as pool:
        assert pool.map_async(rendered, range(4)).get(TIMEOUT) == [expected] * 4


AT_THE_END = """
import atexit, threading
cpu, ready = _native.module().cpu, threading.Event()
maps = [torch.randn(2, 32, 4096) for _ in range(3)]
out, lse = torch.empty(2, 32, 4096), torch.empty(2, 4096)
def work():
    while True:
        ready.set()
        cpu.attention_fwd(*maps, out, lse, {threads})
threading.Thread(target=work, daemon=True).start()
ready.wait()
atexit.register(lambda: print(kernel_calls.calls()["descriptor"]() == expected["descriptor"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_promise_28_a_process_ends_while_a_kernel_runs(threads):
    assert run(ALL + AT_THE_END.format(threads=threads)) == "True\n"


WITHOUT_MEMORY = """
import resource
{first}
maps, points = torch.randn(1, 8, 64, 64, requires_grad=True), torch.rand(64, 17, 2)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {room} * 2**20, -1))
def tried(name, call):
    try:
        call()
    except (MemoryError, RuntimeError) as error:
        print(name, type(error).__name__, str(error)[:15])
tried("attention", lambda: ops.nonlocal_attention(maps, maps, maps).sum().backward())
tried("heatmaps", lambda: ops.render_gaussian_heatmaps(points, (2048, 2048), 2.0))
tried("loss", lambda: ops.heatmap_mse_loss(torch.zeros(1).expand(64, 17, 1, 2**26), points, 2.0))
tried("endless", lambda: _native.module().cpu.heatmap_decode(torch.zeros(1).expand(1, 1, 1, 2**39), "dark", [1.0],
                                                             1.0, torch.zeros(1, 1, 2), torch.zeros(1, 1), 2))
small = torch.ones(1, 2, 3, 3)
print(ops.nonlocal_attention(small, small, small).sum().item())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how large the process is")
@pytest.mark.parametrize("room", [1, 16, 128])
@pytest.mark.parametrize("first", ["", "kernel_calls.calls()['attention']()"], ids=["no threads yet", "threads there"])
def test_promise_28_without_memory_a_call_raises_and_the_next_one_works(room, first):
    said = run(WITHOUT_MEMORY.format(room=room, first=first))
    assert "heatmaps RuntimeError" in said
    assert "loss MemoryError scratch memory" in said
    assert "endless MemoryError scratch memory" in said
    assert said.endswith("\n18.0\n")


REFUSED_A_THREAD = """
import os, resource

torch.set_num_threads(1)
maps = torch.randn(2, 8, 40, 40), *torch.randn(2, 2, 8, 20, 20)
expected = ops.nonlocal_attention(*maps)
torch.set_num_threads(2)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {room} * 2**20, -1))
print(torch.equal(ops.nonlocal_attention(*maps), expected))
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
threads = os.listdir("/proc/self/task")
print(torch.equal(ops.nonlocal_attention(*maps), expected), os.listdir("/proc/self/task") == threads)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how large the process is")
@pytest.mark.parametrize("room", [2, 4, 7])
def test_promise_28_where_a_thread_is_refused_fewer_compute(room):
    """There is memory for what a kernel needs and none for another thread's stack, which is not tried at every call."""
    assert run(REFUSED_A_THREAD.format(room=room)) == "True\nTrue True\n"


def test_promise_28_more_threads_than_any_machine_has_are_fewer():
    planes, points = torch.randn(2, 64, 16, 16), torch.empty(2, 64, 2)
    _native.module().cpu.heatmap_decode(planes, "argmax", [1.0], 1.0, points, torch.empty(2, 64), 2**31 - 1)
    assert torch.equal(points, ops.decode_heatmaps(planes)[0])
