"""The pairwise descriptor by the Triton kernels."""

from fastpose.ops import _places
from fastpose.ops.geometry._kernels import backends

pairwise_descriptor = backends(_places.TRITON)
