"""On a GPU: the operations at the sizes of large batches, beside everything that PyTorch offers for them.

What torch.compile has to build comes last, so that a run with ``--budget`` has all the rest.
"""

import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import GPU

JOBS = sorted(orders.jobs(GPU), key=lambda job: job.compiled)


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_gpu(measure, job):
    measure([job])
