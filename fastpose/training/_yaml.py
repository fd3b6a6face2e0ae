"""A YAML loader for files people edit: plain values only, each key once.

Anchors and aliases are refused because a few lines of them can describe a structure of any size, tags because they make
what is no plain value, duplicate keys because the last one would win without a word, and numbers such as 010 or 1:30
because YAML reads them as 8 and 90. Kept apart so that importing the configuration does not import yaml.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent

_PLAIN = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_DIGITS = 100


class StrictLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` without anchors, aliases, tags, merge keys, dates, duplicate keys and ambiguous numbers."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise ConstructorError(None, None, "anchors and aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None) not in (None, "!"):
            raise ConstructorError(None, None, f"tags such as {event.tag!r} are not allowed", event.start_mark)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a list or section is no key", key_node.start_mark)
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise ConstructorError(None, None, "merge keys are not allowed", key_node.start_mark)
            key = self.construct_object(key_node)  # yes and on are one key
            if key in seen:
                raise ConstructorError(None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        """Return a number of decimal digits, as the command line takes it."""
        text = str(node.value)
        if len(text) > _DIGITS or not _PLAIN.fullmatch(text):
            shown = text if len(text) <= _DIGITS else f"{text[:10]}..."
            problem = f"the number {shown} is not read as it stands; write it in decimal digits, or in quotes"
            raise ConstructorError(None, None, problem, node.start_mark)
        return int(text.replace("_", ""))

    def construct_yaml_float(self, node: Any) -> float:
        """Return a number that is not of base 60."""
        if ":" in node.value:
            problem = f"the number {node.value[:_DIGITS]} is not read as it stands; write it without ':', or in quotes"
            raise ConstructorError(None, None, problem, node.start_mark)
        return float(super().construct_yaml_float(node))  # type: ignore[no-untyped-call]


# A date is text, whatever its digits.
StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_yaml_int)
StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.construct_yaml_float)
