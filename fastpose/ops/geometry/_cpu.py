"""The pairwise descriptor by the C++ kernels for the CPU."""

from fastpose.ops import _places
from fastpose.ops.geometry._kernels import backends

pairwise_descriptor = backends(_places.CPU)
