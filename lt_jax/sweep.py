"""Many rows of a table in one go: finished ones are skipped, common first stages trained once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.assembly import seeds_of
from lt_jax.configuration import first_stage, plain
from lt_jax.data import Dataset
from lt_jax.data.identity import check_can_move
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.files import folder_of
from lt_jax.masking_pictures import save_masking_of_table
from lt_jax.pictures import dispensable
from lt_jax.prepare import check_pretrained, load, prepare
from lt_jax.retrain import check_second_stage, retrain
from lt_jax.sweep_plan import Row, check_first_stages, config_of_stage, plan
from lt_jax.sweep_tables import (
    check_one_set,
    failed_rows,
    in_order,
    kept_rows,
    note_failure,
)
from lt_jax.table_pictures import save_ranking
from lt_jax.tables import table_names, write_tables
from lt_jax.train import train
from lt_jax.writers import say

Summary = dict[str, Any]


def check(
    rows: Sequence[Row],
    folder: Path,
    kept: Mapping[str, Summary] = MappingProxyType({}),
    same: Mapping[str, Summary] = MappingProxyType({}),
) -> Dataset | None:
    """Refuses rows that could not run, before the first of them does.

    Those that have finished need neither the data nor a device on which they would run.

    Args:
      rows: from `plan`.
      folder: of the sweep.
      kept: from `kept_rows`.
      same: finished rows of the same images, with other seeds.

    Returns:
      The data set of all rows; None if all have finished.

    Raises:
      InputError: naming the row, or two that make no table, as they are on different data or have
        other seeds; or a first stage of which the weights are gone.
    """
    _check_one_table(rows, kept)
    for row in rows:
        workdir.check_config_matches(row.config, folder / row.name)
    done = {**check_first_stages(rows, folder), **finished(rows, folder)}
    known = {*done, *(row.name for row in rows)}
    to_run = [row for row in rows if row.name not in done and row.same_as not in known]
    moved = _check_moved(rows, folder, done)
    if not to_run and not moved:
        check_one_set({**same, **done, **kept})
        return None
    for row in to_run:
        with _named(row):
            check_pretrained(row.config)
    dataset = load(plain(rows[0].config))
    check_one_set({**same, **done, **kept}, dataset.info())
    if not to_run:
        return None
    for row in to_run:
        with _named(row):
            prepare(first_stage(row.config), folder, dataset)
            if row.stage1:
                check_second_stage(row.config, dataset)
    return dataset


def _check_moved(rows: Sequence[Row], folder: Path, done: Mapping[str, Summary]) -> bool:
    """Whether the data of a finished row are said to lie elsewhere now."""
    moved = False
    for row in rows:
        if row.name in done and (before := workdir.moved_from(row.config, folder / row.name)):
            check_can_move(done[row.name]["data"], before, f"row {row.name!r}")
            moved = True
    return moved


@contextlib.contextmanager
def _named(row: Row) -> Iterator[None]:
    """What is refused inside is of that row."""
    try:
        yield
    except InputError as error:
        raise InputError(f"row {row.name!r}: {error}") from error


def finished(rows: Sequence[Row], folder: Path) -> dict[str, Summary]:
    """Summaries of those rows that have finished, by row."""
    found = {row.name: workdir.finished_summary(folder / row.name) for row in rows}
    return {name: summary for name, summary in found.items() if summary is not None}


def _check_one_table(rows: Sequence[Row], kept: Mapping[str, Summary]) -> None:
    """Refuses rows that are on different data, or have other seeds, by their configs."""
    data = plain(rows[0].config)["data"]
    for row in rows:
        if plain(row.config)["data"] != data:
            raise InputError(
                f"rows {rows[0].name!r} and {row.name!r} are on different data; expected one table"
                " for each"
            )
        if seeds_of(row.config) != seeds_of(rows[0].config):
            raise InputError(
                f"rows {rows[0].name!r} and {row.name!r} have the seeds"
                f" {list(seeds_of(rows[0].config))} and {list(seeds_of(row.config))}; expected the"
                " same, as rows are compared seed by seed"
            )
    for name, summary in kept.items():
        if tuple(summary["seeds"]) != seeds_of(rows[0].config):
            raise InputError(
                f"the table has the row {name!r} of seeds {summary['seeds']}, and row"
                f" {rows[0].name!r} has {list(seeds_of(rows[0].config))}; expected the same, or"
                " another workdir"
            )


def _same_run(row: Row, folder: Path, summary: Summary) -> Summary:
    """A row that is another one's run, with a summary in a folder of its own."""
    path = folder / row.name
    done = workdir.finished_summary(path) or workdir.claim(row.config, path)
    if done is not None:
        return done
    trained = summary.get("same_as", row.same_as)  # the other one may be such a row itself
    same = {**summary, "name": row.name, "same_as": trained}
    say(f"{row.name} is the same run as {trained}; its weights are there.")
    workdir.write_json(path / workdir.SUMMARY, same)
    return same


def run_row(row: Row, folder: Path, dataset: Dataset | None) -> Summary | None:
    """Runs a row, or what is missing of it.

    Args:
      row: from `plan`.
      folder: of the sweep.
      dataset: of the row; None to load it where it is needed.

    Returns:
      Its summary; None if a signal stopped it.
    """
    path = folder / row.name
    done = workdir.told_finished(path)
    if done is not None:  # whose images `check` has compared; it needs no first stage any more
        return done
    if not row.stage1:
        return train(row.config, path, dataset=dataset)
    if workdir.finished_summary(folder / row.stage1) is not None:
        say(f"{row.name} starts from {row.stage1}, which has finished.")
    if _run_of_one_stage(row, row.stage1, folder, dataset) is None:
        return None
    return retrain(row.config, path, folder / row.stage1, dataset=dataset)


def _run_of_one_stage(row: Row, name: str, folder: Path, dataset: Dataset | None) -> Summary | None:
    """The summary of a run that a row needs, which is trained, or what is missing of it."""
    path = folder / name
    done = workdir.finished_summary(path)
    return done or train(config_of_stage(row.config, path), path, dataset=dataset)


@workdir.until_done()
def run_sweep(
    configs: Mapping[str, ConfigDict],
    folder: Path,
    after_each: Callable[[list[Summary]], Any],
    same: Mapping[str, Summary] = MappingProxyType({}),
) -> dict[str, str]:
    """Runs all rows.

    Rows of a table that is in the folder stay in it, also if they are none of these. Those that
    fail are noted in the folder.

    Args:
      configs: by row, in the order of the table.
      folder: one folder for each row is made in it.
      after_each: called with the summaries so far, if there are any, in the order of the table.
      same: finished rows that must be of the same images, with other seeds.

    Returns:
      Rows that failed, with the reason: their loss was not finite.

    Raises:
      InputError: for configs or folders that cannot be used.
      InterruptedError: if a signal stopped a run; it goes on when called again.
    """
    folder = folder_of(folder)
    rows = plan(configs, folder)
    dataset = check(rows, folder, kept_rows(folder, configs), same)
    if dataset is not None:  # what has finished may be read by several
        workdir.hold(folder)
        rows = plan(configs, folder)  # another process may have been at it until now
    kept, before, done = kept_rows(folder, configs), table_names(folder), finished(rows, folder)
    if kept:
        say(f"the table keeps the finished rows {', '.join(kept)}.")
    failed: dict[str, str] = {}  # by folder, also of first stages
    for number, row in enumerate(rows, 1):
        say(f"row {number} of {len(rows)}: {row.name}")
        try:
            summary = _checked_run(row, folder, dataset, done, failed)
        except NonFiniteError as error:
            say(str(error))
            note_failure(folder, row.name, _failed_in(row, folder), str(error))
            failed[_failed_in(row, folder)] = failed[row.name] = str(error)
        else:
            if summary is None:
                raise InterruptedError
            done[row.name] = summary
        ordered = {name: done[name] for name in configs if name in done}
        if ordered or kept:
            after_each(in_order(ordered, kept, before))
    return {row.name: failed[row.name] for row in rows if row.name in failed}


def _checked_run(
    row: Row,
    folder: Path,
    dataset: Dataset | None,
    done: Mapping[str, Summary],
    failed: Mapping[str, str],
) -> Summary | None:
    """As `run_row`, unless the row is a run that was done, or needs one that failed."""
    for name in filter(None, (row.name, row.same_as, row.stage1)):
        if name in failed:
            raise NonFiniteError(failed[name])
    if not row.same_as:
        return run_row(row, folder, dataset)
    trained = done.get(row.same_as) or _run_of_one_stage(row, row.same_as, folder, dataset)
    return trained and _same_run(row, folder, trained)


def _failed_in(row: Row, folder: Path) -> str:
    """Name of the run in which a row failed: rows that share it fail with it."""
    before = row.stage1 or row.same_as
    return before if before and workdir.finished_summary(folder / before) is None else row.name


def write_table(
    summaries: Sequence[Summary], folder: Path, *, reported: Sequence[Mapping[str, str]] = ()
) -> None:
    """Writes ``table.md``, ``table.csv``, ``table.png`` and, where masks are, ``masking.png``.

    Args:
      summaries: of the rows so far.
      folder: of the sweep.
      reported: from `lt_jax.reported.read_reported`, to stand beside what was measured.

    Raises:
      StorageError: if there is no room for the table; a picture that finds none is told.
    """
    write_tables(summaries, folder, reported=reported, failed=failed_rows(folder))
    with dispensable():
        save_ranking(summaries, folder / "table.png", reported=reported)
        save_masking_of_table(summaries, folder, folder / "masking.png")
