"""Operations on feature maps, heatmaps and joints; see each function's docstring."""

from fastpose.ops._explain import explain, operations
from fastpose.ops.attention.functional import attention_rows, nonlocal_attention, nonlocal_attention_residual

__all__ = [
    "attention_rows",
    "explain",
    "nonlocal_attention",
    "nonlocal_attention_residual",
    "operations",
]
