"""A table with more seeds than it had: the further ones are trained in a folder beside its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.assembly import seeds_of
from lt_jax.configuration import read_config
from lt_jax.errors import InputError
from lt_jax.files import folder_of
from lt_jax.joining import called, joined, seed_folder, seed_folders
from lt_jax.summaries import Scores
from lt_jax.sweep import run_sweep
from lt_jax.sweep_plan import check_first_stages, plan
from lt_jax.sweep_tables import kept_rows
from lt_jax.writers import say

_MADE = ("seeds", "command", "commit", "versions", "hardware")

Configs = Mapping[str, ConfigDict]


class Block(NamedTuple):
    """Seeds of a table that are trained together, in a folder of their own."""

    folder: Path
    seeds: range

    def of(self, configs: Configs) -> dict[str, ConfigDict]:
        """The configs with these seeds."""
        found = {name: config.copy_and_resolve_references() for name, config in configs.items()}
        for config in found.values():
            config.update(seed=self.seeds.start, replicas=len(self.seeds))
        return found


@workdir.until_done()
def run_table(
    configs: Configs, folder: str | Path, write: Callable[[list[Scores], Path], None]
) -> dict[str, str]:
    """Runs all rows of a table as `run_sweep` does, of a finished one only the seeds it lacks.

    A run has its seeds side by side and does not get more of them: those that came later lie in
    ``seeds_3-4`` beside the rows, as a table of their own. The table in `folder` is of all seeds.

    Args:
      configs: by row, in the order of the table, all with the same seeds.
      folder: of the table.
      write: called after each row with the summaries so far and the folder that they belong to.

    Returns:
      Rows that failed, with the reason: their loss was not finite.

    Raises:
      InputError: as `run_sweep`; or if the table has more seeds than these.
      InterruptedError: as `run_sweep`.
    """
    folder = folder_of(folder)
    blocks = _blocks(configs, folder)
    if len(blocks) == 1:
        return run_sweep(configs, folder, lambda found: write(found, folder))
    for block in blocks:  # before the first of them is trained
        check_first_stages(plan(block.of(configs), block.folder), block.folder)
    workdir.hold(folder)
    parts = [list(kept_rows(block.folder, {}).values()) for block in blocks]
    failed: dict[str, str] = {}
    for number, block in enumerate(blocks):
        say(f"{called(block.seeds)}, in {block.folder}.")

        def after_each(found: list[Scores], number: int = number, block: Block = block) -> None:
            parts[number] = found
            if number:
                write(found, block.folder)
            write(_by_row(parts), folder)

        same = {f"{s['name']} of the first seeds": s for s in parts[0]} if number else {}
        failed_now = run_sweep(block.of(configs), block.folder, after_each, same)
        if failed_now and any(parts):  # told in the table also where no row of the block is
            write(_by_row(parts), folder)
        failed |= failed_now
    return failed


def _blocks(configs: Configs, folder: Path) -> list[Block]:
    """What there is of a table, and what is to come; one block of all seeds if there is none."""
    all_seeds, *others = {_range_of(config) for config in configs.values()}
    one = [Block(folder, all_seeds)]
    if others:
        return one  # and no table
    begun = _row_folders(configs, folder)
    known = {_range_of(read_config(path / workdir.CONFIG)) for path in begun}
    further = seed_folders(folder) if folder.is_dir() else []
    if not known and further:  # the last of the rows before them has been removed
        known = {range(all_seeds.start, further[0][1].start)}
    if len(known) != 1:
        return one
    (first,) = known
    if first.start != all_seeds.start:
        return one  # whose rows are others
    blocks = [Block(folder, first)]
    for path, seeds in further:
        if seeds.start == blocks[-1].seeds.stop:
            blocks.append(Block(path, seeds))
    end = blocks[-1].seeds.stop
    if len(blocks) > 1 and all_seeds.stop < end:
        raise InputError(
            f"the table in {folder} has the seeds {first.start} to {end - 1}, and those asked for"
            f" end with {all_seeds[-1]}; expected --seeds={end - first.start} or more"
        )
    if all_seeds.stop > end:
        lacking = range(end, all_seeds.stop)
        blocks.append(Block(seed_folder(folder, lacking), lacking))
    return blocks


def _row_folders(configs: Configs, folder: Path) -> list[Path]:
    """Folders of rows, of the command or of the table so far; else of first stages of rows."""
    rows = {*configs, *kept_rows(folder, {})} if folder.is_dir() else set()
    first = {f"{name}_stage1" for name in configs}
    kinds = ([folder / name for name in names] for names in (rows, first))
    begun = ([path for path in kind if (path / workdir.CONFIG).exists()] for kind in kinds)
    return next((paths for paths in begun if paths), [])


def _range_of(config: ConfigDict) -> range:
    seeds = seeds_of(config)
    return range(seeds[0], seeds[-1] + 1)


def _by_row(parts: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Each row with all its seeds, in the order of the first part."""
    rows: dict[str, list[Scores]] = {}
    for part in parts:
        for summary in part:
            rows.setdefault(summary["name"], []).append(summary)
    return [_with_origins(row) for row in rows.values()]


def _with_origins(row: Sequence[Scores]) -> Scores:
    """A row of all seeds, with what made each part of them, which tables tell."""
    made = [{name: part[name] for name in _MADE if name in part} for part in row]
    return {**joined(row), **({"made": made} if len(row) > 1 else {})}
