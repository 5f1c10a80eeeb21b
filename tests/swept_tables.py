"""What tests of the folder of a table share: sweeps over rows of one epoch."""

from pathlib import Path

from tiny_runs import tiny

from lt_jax.sweep import run_sweep, write_table
from lt_jax.tables import table_names


def swept(folder: Path, *methods: str, **fields) -> list[str]:
    """The names in the table after a sweep; fields of a second stage are for those that have it."""
    configs = {}
    for name in methods:
        fitting = {k: v for k, v in fields.items() if not k.startswith("retrain__")}
        config = tiny(name, **{"train__epochs": 1, **fitting})
        if config.retrain.method in ("crt", "lws"):
            config.retrain.update(epochs=2, batch_size=64)
            if "retrain__learning_rate" in fields:
                config.retrain.optimizer.learning_rate = fields["retrain__learning_rate"]
        configs[config.name] = config
    run_sweep(configs, folder, lambda summaries: write_table(summaries, folder))
    return table_names(folder)
