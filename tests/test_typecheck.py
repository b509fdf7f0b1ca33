"The run-time checks of the pytest run are on, see what they should, and can be switched off for one test."
import warnings
from typing import Protocol

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from typecheck import checked

from latentlab.cli import has_display
from latentlab.core.settings import Settings


def test_a_wrong_type_is_caught() -> None:
    with pytest.raises(jaxtyping.TypeCheckError): has_display(3, {})


def test_a_wrong_shape_is_caught() -> None:
    @jaxtyping.jaxtyped(typechecker=checked)
    def pair(a: jaxtyping.Float[torch.Tensor, " batch"], b: jaxtyping.Float[torch.Tensor, " batch"]) -> None: pass

    pair(torch.zeros(2), torch.ones(2))
    with pytest.raises(jaxtyping.TypeCheckError): pair(torch.zeros(2), torch.ones(3))


def test_self_is_let_through() -> None:
    assert Settings().replace() == Settings()


@pytest.mark.usefixtures("unchecked")
def test_the_checks_can_be_switched_off() -> None:
    assert has_display(3, {}) is False


def test_one_thread() -> None:
    assert torch.get_num_threads() == 1


def test_a_warning_of_the_package_is_an_error() -> None:
    with pytest.raises(UserWarning): warnings.warn_explicit("planted", UserWarning, "masks.py", 1, module="latentlab.losses.masks")
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn_explicit("planted", UserWarning, "other.py", 1, module="latentlaboratory")
    assert len(seen) == 1


class Loud(Protocol):
    "A protocol that cannot be asked for at run time."
    def shout(self) -> str: ...


def test_an_int_is_a_float_and_a_plain_protocol_is_let_through() -> None:
    @checked
    def half(number: float, one: Loud) -> float: return number / 2

    assert half(3, None) == 1.5
    with pytest.raises(BeartypeCallHintParamViolation): half("3", None)
