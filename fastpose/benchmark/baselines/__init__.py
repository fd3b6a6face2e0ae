"""The same results by the ways people write them today, beside which the operations are timed."""

from fastpose.benchmark.baselines._attention import (
    FLASH_CHANNELS,
    SDPA,
    STORING,
    attention_blocked,
    attention_flex,
    attention_naive,
    attention_on_gpu,
    attention_residual_sdpa,
    attention_sdpa,
    attention_sdpa_by,
    rows_of_whole_map,
)
from fastpose.benchmark.baselines._compiled import Compiled
from fastpose.benchmark.baselines._geometry import descriptor_broadcast
from fastpose.benchmark.baselines._heatmap import (
    CODECS,
    DECODERS,
    decode_argmax,
    decode_as_codecs,
    decode_dark_opencv,
    decode_quarter,
    decode_softargmax,
    depth_maps_broadcast,
    flip_and_index,
    render_broadcast,
    render_numpy,
    render_separable,
    render_then_mse,
)

__all__ = [
    "CODECS",
    "DECODERS",
    "FLASH_CHANNELS",
    "ON_HOST",
    "SDPA",
    "STORING",
    "Compiled",
    "attention_blocked",
    "attention_flex",
    "attention_naive",
    "attention_on_gpu",
    "attention_residual_sdpa",
    "attention_sdpa",
    "attention_sdpa_by",
    "decode_argmax",
    "decode_as_codecs",
    "decode_dark_opencv",
    "decode_quarter",
    "decode_softargmax",
    "depth_maps_broadcast",
    "descriptor_broadcast",
    "flip_and_index",
    "render_broadcast",
    "render_numpy",
    "render_separable",
    "render_then_mse",
    "rows_of_whole_map",
]

ON_HOST = ("numpy + copy", "opencv")  # ways whose work is the host's: they are timed by its clock
