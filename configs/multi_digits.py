"""Several digits on a canvas, long-tailed (scikit-learn's digits, bundled): needs no download.

    python launch/train.py --config=configs/multi_digits.py:plm --workdir=runs/multi_digits_plm
    python launch/sweep.py --config=configs/multi_digits.py --sweep=all --workdir=runs/multi_digits

After the colon: a method, or several methods and transforms joined by ``+``. 2,000 canvases of
20x20 pixels with two to four digits each, whose frequencies differ by a factor of 50; validation
and test canvases are made of other digits, all equally frequent. Less than a minute for one seed
on 2 CPU cores. The learning rate is that of 0.003, 0.01, 0.02 and 0.04 which was best for plain
cross-entropy on validation (other seeds than the tables').
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.recipes import MULTI_LABEL_ROWS, small_multi_label

SWEEPS = {"all": MULTI_LABEL_ROWS}


def get_config(method: str = "plm") -> ConfigDict:
    """Config of one method on canvases of digits.

    Args:
      method: one of `lt_jax.objectives.METHODS` whose classes do not compete, or names joined by
        ``+``.

    Returns:
      The config.
    """
    config = base_config(method)
    config.name = f"multi_digits_{config.name}"
    config.data.source = "multi_digits"
    config.data.imbalance = 50.0
    config.data.validation_size = 500
    config.data.canvas.images = 2000
    config.data.canvas.test_images = 1000
    small_multi_label(config, epochs=40, learning_rate=0.02)
    return config


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: ``"all"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    if name not in SWEEPS:
        raise InputError(f"sweep is {name!r}; expected {' or '.join(map(repr, SWEEPS))}")
    return list(SWEEPS[name])
