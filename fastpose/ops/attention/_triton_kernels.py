"""The kernels of attention in Triton, by name; importing this loads Triton."""

from __future__ import annotations

from fastpose.ops.attention._triton_first import columns, forward, row_products, rows
from fastpose.ops.attention._triton_second import means, second_columns, second_rows
from fastpose.ops.attention._triton_tiles import Map, dtype_of

__all__ = [
    "Map",
    "columns",
    "dtype_of",
    "forward",
    "means",
    "row_products",
    "rows",
    "second_columns",
    "second_rows",
]
