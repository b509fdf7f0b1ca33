"The run-time type checker of the pytest run: beartype, told what our signatures mean."
from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

NUMBERS = BeartypeConf(is_pep484_tower=True)  # Where a float is asked for, an int is as good


def unknowable(hint: object) -> bool:
    """Whether no value can be asked if it is one: `Self` outside its class (the hook decorates methods one by one), a
    protocol not for run time.
    """
    return hint is Self or (getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False))


def checked(function: Callable) -> Callable:
    "Beartype for one function; a parameter whose type is unknowable stays unchecked."
    hints = getattr(function, "__annotations__", {})
    for name, hint in hints.items():
        if unknowable(hint): hints[name] = Any
    return beartype(function, conf=NUMBERS)
