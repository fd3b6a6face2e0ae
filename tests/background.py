"""Slow work of a test module's own processes: the work of all selected tests starts at once, two at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest


def started(request: pytest.FixtureRequest, argument: str, work: Callable[[Any], Any]) -> Iterator[dict[Any, Future]]:
    """Yield the futures of ``work`` by the selected tests' values of ``argument``; for a fixture of the module."""
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    values = dict.fromkeys(item.callspec.params[argument] for item in items if argument in item.callspec.params)
    with ThreadPoolExecutor(2) as pool:
        yield {value: pool.submit(work, value) for value in values}
        pool.shutdown(cancel_futures=True)
