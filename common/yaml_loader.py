"""PyYAML's safe loader without what makes some kilobytes take minutes.

    yaml.load(text, Loader=LinearLoader)

Numbers to the base of 60 (1:59:59, of YAML 1.1) take time that grows with the square of their
length. Mappings that are merged into each other (`<<: [*a, *a]`) double with each level.
"""

from typing import Any

import yaml

MOST_PAIRS = 1_000_000  # of all mappings together; a file of 1 MB has 250,000


class LinearLoader(yaml.SafeLoader):
    """Reads in a time that grows with the length of the text alone."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.pairs = 0

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """A whole number; what has colons is a text, as in YAML 1.2."""
        text = self.construct_scalar(node)
        return text if ":" in text else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        """A number; what has colons is a text, as in YAML 1.2."""
        text = self.construct_scalar(node)
        return text if ":" in text else super().construct_yaml_float(node)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what the mapping names by `<<`. YAMLError: more than MOST_PAIRS in all."""
        super().flatten_mapping(node)
        self.pairs += len(node.value)
        if self.pairs > MOST_PAIRS:
            raise yaml.YAMLError(f"its merged mappings have more than {MOST_PAIRS:,} pairs")


for kind in ("int", "float"):
    LinearLoader.add_constructor(
        f"tag:yaml.org,2002:{kind}", getattr(LinearLoader, f"construct_yaml_{kind}")
    )
