"""Training: from a config and a folder to a summary, resumable at any step.

Read from the top: `train` checks everything, `prepare` builds what a run consists of
(`lt_jax.prepare`), `carry_out` goes through the steps (`lt_jax.loop`) and reads the test set, once
(`lt_jax.finish`). A config with a second stage is trained in two folders, one after the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lt_jax import workdir as workdirs
from lt_jax.configuration import check_config, first_stage
from lt_jax.data import Dataset
from lt_jax.files import folder_of
from lt_jax.finish import carry_out
from lt_jax.prepare import check_pretrained, load, prepare, told_finished
from lt_jax.retrain import check_second_stage, retrain
from lt_jax.run import Config
from lt_jax.second_run import Ahead


@workdirs.until_done()
def train(
    config: Config, workdir: str | Path, *, dataset: Dataset | None = None
) -> dict[str, Any] | None:
    """Trains what a config describes, or goes on where an earlier call stopped.

    Args:
      config: from `lt_jax.configuration.base_config`, with fields changed.
      workdir: folder of the run: checkpoints, metrics, summary and picture. One that already
        holds the finished run of this config is left as it is. A run of two stages has them in the
        folders ``stage1`` and ``stage2`` of it.
      dataset: of ``config.data``, if it has been loaded already.

    Returns:
      The summary, as in ``summary.json``, of the last stage with the scores of the first under
      ``"stage1"``; None if a signal (SIGTERM, Ctrl-C) stopped the run, which
      has then been saved and goes on when `train` is called again.

    Raises:
      InputError: for anything in the config, the data or the folder that cannot be used, before
        anything is trained or overwritten.
      NonFiniteError: if the loss or the weights stop being finite; names the step.
      StorageError: if something cannot be saved; the same call goes on from what was saved before.

    Example::

        from lt_jax.configuration import base_config
        from lt_jax.train import train

        config = base_config("cb_focal")
        summary = train(config, "runs/digits_cb_focal")
    """
    workdirs.check_alike(config)  # first, so that what only one would refuse ends all
    check_config(config)
    path = folder_of(workdir)
    workdirs.check_config_matches(config, path)
    done = told_finished(config, path, dataset)
    if done is not None:
        return done
    if config["retrain"]["method"]:
        return _two_stages(config, path, dataset)
    run = prepare(config, path, dataset)
    return workdirs.claim(config, path) or carry_out(run)


def _two_stages(config: Config, path: Path, dataset: Dataset | None) -> dict[str, Any] | None:
    """Both stages, each resumable; the summary is that of the second."""
    first, folder = first_stage(config), path / workdirs.STAGE1
    to_train, ahead = workdirs.finished_summary(folder) is None, None
    if to_train:
        check_pretrained(config)
    dataset = load(config, dataset)
    check_second_stage(config, dataset)
    if to_train:
        workdirs.check_config_matches(first, folder)
        run = prepare(first, folder, dataset)
        ahead = Ahead(config, path / workdirs.STAGE2, dataset, run.splits)
        done = workdirs.claim(config, path)
        if done is not None:
            return done
        run = run._replace(later=ahead.programs)
        if workdirs.claim(first, folder) is None and carry_out(run) is None:
            return None
    done = workdirs.claim(config, path)
    if done is not None:
        return done
    summary = retrain(config, path / workdirs.STAGE2, folder, dataset=dataset, ahead=ahead)
    if summary is not None:
        workdirs.note_place(config, path)
        workdirs.write_json(path / workdirs.SUMMARY, summary)
    return summary
