"""The data path: images per second, the training process's part, start and memory of workers, by number of workers."""

import data_path
import pytest

from fastpose.benchmark.timing import in_both_orders


@pytest.fixture(scope="module")
def persons():
    return data_path.source()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_data_path(benchmark, results, persons, cache, workers):
    def records():
        return data_path.records(persons, workers, cache, in_both_orders)

    results["loading"] += benchmark.pedantic(records, rounds=1)
