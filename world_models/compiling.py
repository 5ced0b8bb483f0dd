"""Functions that torch.compile compiles for fixed shapes."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call, as one graph.

    It has a code object of its own: dynamo allows few compilations per code object, over all agents.
    """
    own = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return torch.compile(own, dynamic=False, fullgraph=True)
