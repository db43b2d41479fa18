"""PyYAML's safe loader without what makes some kilobytes take minutes.

    yaml.load(text, Loader=LinearLoader)

Numbers to the base of 60 (1:59:59, of YAML 1.1) take time that grows with the square of their
length. Lists and mappings of aliases (`[*a, *a]`, `<<: [*a, *a]`) double with each level: they are
small in memory, and take for ever once somebody prints or merges them.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import yaml

MOST_REPEATED = 1_000_000  # characters and values that aliases add; people repeat some lines


class LinearLoader(yaml.SafeLoader):
    """Reads in a time that grows with the length of the text alone."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """A text. YAMLError: "\\ud800", half a character, which no file can hold."""
        text = super().construct_scalar(node)
        if isinstance(text, str) and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise yaml.YAMLError("it has half a surrogate pair, which is no text") from None
        return text

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """A whole number; what has colons is a text, as in YAML 1.2."""
        text = self.construct_scalar(node)
        return text if ":" in text else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        """A number; what has colons is a text, as in YAML 1.2."""
        text = self.construct_scalar(node)
        return text if ":" in text else super().construct_yaml_float(node)

    def get_single_node(self) -> Any:
        """The text's values. YAMLError: aliases repeat too much, or a value holds itself."""
        node = super().get_single_node()
        if node is not None:
            _refuse_repetition(node)
        return node


def _refuse_repetition(root: yaml.Node) -> None:
    wholes: dict[int, int] = {}  # of each node: its characters and values, with what it names
    written = 0

    def whole(node: yaml.Node) -> int:
        nonlocal written
        known = wholes.get(id(node))
        if known is None:
            wholes[id(node)] = 0
            own = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            written += own
            known = wholes[id(node)] = own + sum(map(whole, _parts(node)))
        elif known == 0:
            raise yaml.YAMLError("a value of it holds itself")
        return known

    if whole(root) - written > MOST_REPEATED:
        raise yaml.YAMLError(f"its aliases repeat more than {MOST_REPEATED:,} characters")


def _parts(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


for kind in ("int", "float"):
    LinearLoader.add_constructor(
        f"tag:yaml.org,2002:{kind}", getattr(LinearLoader, f"construct_yaml_{kind}")
    )
