"""Networks by name: ``models.create("sagan.generator", sarm="B")``; ``models.list()`` names them all."""

from fastpose.models._registry import count_parameters, create
from fastpose.models._registry import names as list
from fastpose.models.published import import_published
from fastpose.nn.self_attention import attention_maps

__all__ = ["attention_maps", "count_parameters", "create", "import_published", "list"]
