"""Merkle trees: one hash that stands for a list and its order.

    tree = Tree()
    for sample in shard: tree.add(sample_leaf(key, sha256_of_image, caption))
    tree.root()          # 32 bytes

As in RFC 6962, 2.1: a leaf is hashed behind a byte 0, a node behind a byte 1, so that no node can
be passed off as a leaf; a list that is no power of two is cut at the largest power below its size.
The memory is one hash for each bit of the count.
"""

import hashlib


class Tree:
    """Takes leaves one after the other."""

    def __init__(self) -> None:
        self.count = 0
        self._whole: list[bytes] = []  # roots of whole trees, the largest first

    def add(self, leaf: bytes) -> None:
        """The next leaf, of any bytes."""
        node = hashlib.sha256(b"\0" + leaf).digest()
        self.count += 1
        count = self.count
        while not count & 1:  # two trees of one size become one
            node = _node(self._whole.pop(), node)
            count >>= 1
        self._whole.append(node)

    def root(self) -> bytes:
        """The hash of all leaves so far; of none that of nothing."""
        if not self._whole:
            return hashlib.sha256().digest()
        *rest, root = self._whole
        for left in reversed(rest):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def sample_leaf(key: str, image: bytes, caption: str) -> bytes:
    """The leaf of a sample; image: sha256 of its bytes.

    The same in a tar and in parquet, so that both forms of the same rows have the same root.
    """
    return key.encode() + b"\0" + image + hashlib.sha256(caption.encode()).digest()


def file_leaf(path: str, size: int, sha256: str) -> bytes:
    """The leaf of a file of a manifest."""
    return f"{path}\0{size}\0{sha256}".encode()
