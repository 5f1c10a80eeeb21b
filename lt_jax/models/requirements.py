"""What a network must have to be trained: checked when it is made, as anyone may add one."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable
from functools import partial
from typing import Any

from lt_jax.errors import InputError

NEEDS = (
    "a network is a class with num_features, made by (num_channels, *, head, dtype, rngs), that"
    " keeps the head as self.head, gives logits by __call__(images, *, train) and, for a second"
    " stage, what the head takes by features(images, *, train)"
)


def network_of(constructor: Callable[..., Any]) -> Any:
    """The class, or the function, of which a constructor may be a `functools.partial`."""
    return constructor.func if isinstance(constructor, partial) else constructor


def num_features_of(name: str, constructor: Callable[..., Any], num_inputs: int) -> int:
    """Width of the features that the head of a network takes.

    Args:
      name: of the model.
      constructor: its entry in ``MODELS``.
      num_inputs: channels of an image, or width of a feature vector.

    Returns:
      ``num_features`` of the class; where that is None, `num_inputs`.

    Raises:
      InputError: if it has no such number.
    """
    network = network_of(constructor)
    if not hasattr(network, "num_features"):
        raise InputError(f"model {name!r} has no num_features: {NEEDS}.")
    width = network.num_features
    if width is None:
        return num_inputs
    if not isinstance(width, numbers.Integral) or width < 1:
        raise InputError(
            f"model {name!r} has num_features {width!r}; expected the number of its features, an"
            " attribute of the class that is at least 1."
        )
    return int(width)


def check_constructor(name: str, constructor: Callable[..., Any], given: dict[str, Any]) -> None:
    """Refuses a network that cannot be made of what it is given.

    Args:
      name: of the model.
      constructor: its entry in ``MODELS``.
      given: the keywords that it is called with, beside the number of channels.

    Raises:
      InputError: with what it does not take, or takes beside them.
    """
    network = network_of(constructor)
    before, also = [None], {}
    if isinstance(constructor, partial):
        before, also = [*constructor.args, None], constructor.keywords
    if inspect.isclass(network):  # the signature of a class of Flax is that of its metaclass
        network, before = network.__init__, [None, *before]
    _check_call(f"model {name!r} cannot be made", network, *before, **{**also, **given})


def check_module(name: str, module: Any) -> None:
    """Refuses a network that cannot be trained.

    Args:
      name: of the model.
      module: of Flax.

    Raises:
      InputError: with what it lacks.
    """
    if not callable(module):
        raise InputError(f"model {name!r} gives no logits: {NEEDS}.")
    if not hasattr(module, "head"):
        raise InputError(f"model {name!r} keeps no head: {NEEDS}.")
    _check_call(f"model {name!r} cannot be called", module.__call__, None, train=True)


def check_features_of(module: Any) -> None:
    """Refuses a network that is needed for its features, and gives none.

    Args:
      module: of Flax.

    Raises:
      InputError: naming its class.
    """
    what = f"the network {type(module).__name__} gives no features"
    if not callable(getattr(module, "features", None)):
        raise InputError(f"{what}: {NEEDS}.")
    _check_call(what, module.features, None, train=False)


def _check_call(what: str, function: Callable[..., Any], *given: Any, **named: Any) -> None:
    """Refuses arguments that a function does not take."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        raise InputError(f"{what} ({error}): {NEEDS}.") from error
