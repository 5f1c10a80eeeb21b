r"""Multi-label sets of feature vectors, with a small network of one hidden layer.

    python launch/train.py --config=configs/multi_features.py:yeast,plm \
        --config.data.data_dir=DIR --workdir=runs/yeast_plm
    python launch/sweep.py --config=configs/multi_features.py --sweep=all,yeast --seeds=5 \
        --set=data.data_dir=DIR --workdir=runs/yeast

After the colon: a file of ``x_train``, ``x_test`` (floats ``[N, D]``), ``y_train``, ``y_test`` (0
and 1, ``[N, C]``) and maybe ``label_names``, or its name without ``.npz`` in the folder DIR; and
the method. A fifth of about 1,500 examples is cut from train for validation. Seconds for a seed.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.recipes import MULTI_LABEL_ROWS, small_multi_label

SWEEPS = {"all": MULTI_LABEL_ROWS}


def get_config(row: str = "yeast,plm") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``file,method``; a method as `lt_jax.configuration.base_config` takes it whose classes
        do not compete.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    file, _, method = row.rpartition(",")
    if not file or not method:
        raise InputError(f"config string is {row!r}; expected such as 'yeast,plm'")
    config = base_config(method)
    config.name = f"{Path(file).stem}_{config.name}"
    config.data.source = f"arrays:{file if file.endswith('.npz') else f'{file}.npz'}"
    config.data.imbalance = 0.0  # as it is: such sets are long-tailed already
    config.data.validation_size = 300
    config.model.name = "mlp"
    small_multi_label(config, epochs=60, learning_rate=0.001)
    return config


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: ``all``, then the file: ``"all,yeast"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    table, _, file = name.partition(",")
    if table not in SWEEPS or not file:
        raise InputError(f"sweep is {name!r}; expected such as 'all,yeast'")
    return [f"{file},{method}" for method in SWEEPS[table]]
