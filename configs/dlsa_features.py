r"""DLSA, and the classifiers it is compared with, on features from files.

    python launch/dlsa.py --config=configs/dlsa_features.py:DIR,dlsa --workdir=runs/dlsa_mine
    python launch/sweep.py --config=configs/dlsa_features.py --sweep=all,DIR --workdir=runs/mine

DIR has train and test, maybe validation: each a file of ``features`` [N, D] and ``labels`` [N],
.npz or .h5, or the parts that `launch/extract_features.py` writes. Without validation some are cut
from train by ``--config.data.validation_size``; features that are not long-tailed become so by
``--config.data.imbalance``.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.two_stage import KNOB_VALUES

SWEEPS = {"all": ("cross_entropy", "balanced_softmax", "crt", "tau_norm", "dlsa")}


def get_config(row: str = "features,dlsa") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``folder,method``; a method as `lt_jax.configuration.base_config` takes it.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    folder, _, method = row.rpartition(",")
    if not folder or not method:
        raise InputError(f"config string is {row!r}; expected such as 'features/mine,dlsa'")
    config = base_config(method)
    config.name = f"{Path(folder).name}_{config.name}"
    config.data.source = f"features:{folder}"
    config.data.imbalance = 0.0  # as they are
    config.data.validation_size = 1000
    config.model.name = "linear"
    config.train.epochs = 60
    config.train.batch_size = 128
    if "tau" in config.retrain:
        config.retrain.tau = KNOB_VALUES["tau"]
    elif "cascade" not in config.retrain and config.retrain.method:
        config.retrain.epochs = 30
    return config


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: ``all``, then the folder: ``"all,features/mine"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    table, _, folder = name.partition(",")
    if table not in SWEEPS or not folder:
        raise InputError(f"sweep is {name!r}; expected such as 'all,features/mine'")
    return [f"{folder},{method}" for method in SWEEPS[table]]
