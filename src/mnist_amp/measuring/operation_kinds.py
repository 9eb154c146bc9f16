"""Kinds of ATen operations, by their name: matrix products, casts, and the rest. No torch here."""

import re

# the operations that mixed precision makes faster: their time grows with the product of three sizes
PRODUCTS = re.compile(
    r"(^|_)(mm|addmm|bmm|baddbmm|addbmm|mv|addmv|matmul|linear|conv(olution)?([123]d)?|attention\w*|lstm|gru|rnn\w*)(_|$)"
)
RECURRENT = re.compile(r"(^|_)(lstm|gru|rnn\w*)(_|$)")  # layers whose products are one operation
CAST = "aten::_to_copy"
OPTIMIZER = "Optimizer.step#"  # the range in which torch's profiler sees each optimizer
KINDS = ("matrix products", "casts", "optimizer", "other operations")


def kind_of(name: str) -> str | None:
    """Return what an event of torch's profiler does; None if its time is that of the events within it.

    >>> [kind_of(name) for name in ("aten::addmm", "aten::_to_copy", "aten::relu", "AddmmBackward0")]
    ['matrix products', 'casts', 'other operations', None]
    """
    if name.startswith(OPTIMIZER):
        return "optimizer"
    if not name.startswith("aten::"):
        return None
    if name == CAST:
        return "casts"
    return "matrix products" if PRODUCTS.search(name.removeprefix("aten::")) else "other operations"
