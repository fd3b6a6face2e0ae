"""Networks by name: ``models.create("sagan.generator", sarm="B")``; ``models.list()`` names them all."""

from fastpose.models._registry import count_parameters, create
from fastpose.models._registry import names as list
from fastpose.models.inference import for_inference
from fastpose.models.looking import attention_maps, features
from fastpose.models.published import import_published

__all__ = ["attention_maps", "count_parameters", "create", "features", "for_inference", "import_published", "list"]
