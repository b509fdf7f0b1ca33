"The run-time type checker of the pytest run: beartype, on functions that may return `Self`."
from collections.abc import Callable
from typing import Any, Self

from beartype import beartype


def checked(function: Callable) -> Callable:
    "Beartype for one function. The import hook decorates methods one by one, where beartype cannot know what `Self` is: those stay unchecked."
    hints = getattr(function, "__annotations__", {})
    for name, hint in hints.items():
        if hint is Self: hints[name] = Any
    return beartype(function)
