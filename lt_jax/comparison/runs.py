"""Which runs a report is of: folders read, seeds joined, names made unique, data kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from lt_jax import workdir
from lt_jax.data.identity import different
from lt_jax.errors import InputError
from lt_jax.files import folder_of, is_remote
from lt_jax.joining import can_join, joined, seed_folders
from lt_jax.summaries import Scores, headline, row_name
from lt_jax.tables import place_of, table_names


class Finished(NamedTuple):
    """A finished run.

    Attributes:
      name: unique among those that it is compared with.
      path: its folder, or the file of its summary.
      summary: it ended with.
      parts: those with other seeds that it was joined of, itself the first; none if it was not.
    """

    name: str
    path: Path
    summary: Scores
    parts: tuple[Finished, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its folder, or those of its parts."""
        return tuple(part.path for part in self.parts) or (self.path,)

    @property
    def stages(self) -> tuple[Path, ...]:
        """Folders that may hold metrics: of both stages if they were trained in one go."""
        if (self.path / workdir.STAGE2).is_dir():
            return (self.path / workdir.STAGE1, self.path / workdir.STAGE2)
        return (self.path,)


class Group(NamedTuple):
    """Runs that can be compared: on the same data, with the same kind of scores.

    Attributes:
      runs: in order.
      baseline: one of them.
    """

    runs: tuple[Finished, ...]
    baseline: Finished

    @property
    def summaries(self) -> list[Scores]:
        """Those of the runs."""
        return [run.summary for run in self.runs]

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels."""
        return bool(self.baseline.summary["data"].get("multi_label"))


def read_runs(names: Iterable[str | Path]) -> list[Finished]:
    """Finished runs, each once; those that are the same but for their seeds are one.

    Args:
      names: of folders of runs; of folders of sweeps, whose rows are taken in the order of their
        table; or of files with a summary, or folders of such.

    Returns:
      Runs, named by their method.

    Raises:
      InputError: for one that is missing, has not finished or is no run; of a folder of several
        runs for one of which none has finished, see `unfinished`.
    """
    found: dict[Path, Finished] = {}
    for name in names:
        for run in _read(folder_of(name)):
            found.setdefault(run.path, run)
    if not found:
        raise InputError("no WORKDIR was given; expected folders of finished runs")
    return _joined(found.values())


def _joined(runs: Iterable[Finished]) -> list[Finished]:
    """Runs as one of all their seeds, in the place of the first."""
    methods: list[list[Finished]] = []
    for run in runs:
        for parts in methods:
            if all(can_join(part.summary, run.summary) for part in parts):
                parts.append(run)
                break
        else:
            methods.append([run])
    return [
        parts[0]._replace(summary=joined([p.summary for p in parts]), parts=tuple(parts))
        if len(parts) > 1
        else parts[0]
        for parts in methods
    ]


def _read(path: Path) -> list[Finished]:
    if not path.exists():
        raise InputError(f"workdir {path} does not exist; expected the folder of a finished run")
    if path.is_file():
        return [_from_file(path)]
    if _is_run(path):
        return [_from_folder(path)]
    folders = sorted((p for p in path.iterdir() if p.is_dir() and _is_run(p)), key=str)
    if folders:
        blocks = [path, *(block for block, _ in seed_folders(path))]
        found = [run for block in blocks for run in _finished_in(block)]
        if not found:
            raise InputError(f"no run in {path} has finished; start one again to go on")
        return found
    files = sorted((p for p in path.iterdir() if p.name.endswith(".json")), key=str)
    if files:
        return _in_order([_from_file(p) for p in files], path)
    raise InputError(f"workdir {path} holds no run; expected the folder of a run or of a sweep")


def _finished_in(folder: Path) -> list[Finished]:
    """Runs of a folder that have finished, those of a table in its order."""
    paths = (p for p in folder.iterdir() if p.is_dir() and _is_run(p) and _has_finished(p))
    return _in_order([_from_folder(path) for path in sorted(paths, key=str)], folder)


def unfinished(names: Iterable[str | Path]) -> list[Path]:
    """Runs in folders of several that are left out, as they have no test scores yet.

    Args:
      names: as for `read_runs`.
    """
    found: list[Path] = []
    for folder in dict.fromkeys(folder_of(name) for name in names):
        if folder.is_dir() and not _is_run(folder):
            found += [p for p in folder.iterdir() if _is_run(p) and not _has_finished(p)]
            found += unfinished(block for block, _ in seed_folders(folder))
    return sorted(found, key=str)


def _has_finished(path: Path) -> bool:
    return (path / workdir.SUMMARY).exists()


def _is_run(path: Path) -> bool:
    return (path / workdir.CONFIG).exists() or (path / workdir.SUMMARY).exists()


def _from_folder(path: Path) -> Finished:
    return _checked(path, path / workdir.SUMMARY, workdir.required_summary(path))


def _from_file(path: Path) -> Finished:
    summary = workdir.finished_summary(path.parent, path.name)
    return _checked(path, path, summary or {})


def _checked(path: Path, file: Path, summary: Scores) -> Finished:
    """A run, if its summary has what everything here reads."""
    try:
        complete = (
            headline(summary) in summary["test"]["last"]["mean"]
            and len(summary["seeds"]) == len(summary["test"]["last"]["replicas"])
            and {"config", "name", "versions", "hardware"} <= summary.keys()
            and {"index_hash", "class_counts"} <= summary["data"].keys()
        )
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise InputError(f"{file} is not the summary of a finished run")
    return Finished(row_name(summary), path, summary)


def _in_order(runs: list[Finished], folder: Path) -> list[Finished]:
    """Rows of a sweep as its table has them, without first stages that are no rows themselves."""
    rows = table_names(folder)
    if not rows:
        return runs
    first = {run.summary["stage1"]["name"] for run in runs if "stage1" in run.summary}
    places = {run.path: place_of(run.summary, rows) for run in runs}
    kept = [r for r in runs if places[r.path] < len(rows) or r.summary["name"] not in first]
    return sorted(kept, key=lambda run: places[run.path])


def grouped(runs: Sequence[Finished], baseline: str = "") -> list[Group]:
    """Runs by what they can be compared with.

    Args:
      runs: from `read_runs`.
      baseline: name of a run, by its method or its folder, or the path of its folder, or the end
        of it; empty for the first of each group. A group without it is compared with its first.

    Returns:
      Groups in the order of their first runs.

    Raises:
      InputError: if no run has that name, or several of a group.
    """
    groups: list[list[Finished]] = []
    for run in runs:
        for group in groups:
            if all(_comparable(run.summary, other.summary) for other in group):
                group.append(run)
                break
        else:
            groups.append([run])
    named = [_with_unique_names(group) for group in groups]
    chosen = [[run for run in group if _is_at(run, baseline)] for group in named]
    if not any(chosen):
        chosen = [[run for run in group if _is_called(run, baseline)] for group in named]
    if baseline and not any(chosen):
        names = dict.fromkeys(run.name for group in named for run in group)
        raise InputError(f"baseline is {baseline!r}; expected one of {', '.join(names)}")
    for several in (found for found in chosen if len(found) > 1):
        names = dict.fromkeys(str(run.path) for run in several)
        raise InputError(
            f"baseline {baseline!r} is the name of several runs, {', '.join(names)}; expected that"
            " of one, or the path of its folder"
        )
    return [
        Group(tuple(group), (found or group)[0]) for group, found in zip(named, chosen, strict=True)
    ]


def _is_at(run: Finished, name: str) -> bool:
    """Whether a path leads to the folder of a run; a name alone may be that of a method."""
    if "/" not in name:
        return False
    place = _resolved(folder_of(name))
    return any(_resolved(path) == place for path in run.paths)


def _resolved(path: Path) -> Path:
    return path if is_remote(path) else path.resolve()


def _is_called(run: Finished, name: str) -> bool:
    end = PurePath(name).parts
    if len(end) > 1 and any(path.parts[-len(end) :] == end for path in run.paths):
        return True
    own = {run.name, row_name(run.summary), run.summary["name"]}
    own |= {name for path in run.paths for name in (path.name, path.stem)}
    return bool(name) and (name in own or folder_of(name) in run.paths)


def _comparable(a: Scores, b: Scores) -> bool:
    """Whether two runs have the same scores and data, as far as both noted what they are."""
    if headline(a) != headline(b):
        return False
    one, other = a["data"], b["data"]
    kinds = {d["multi_label"] for d in (one, other) if "multi_label" in d}
    return len(kinds) < 2 and not different(one, other)


def _with_unique_names(runs: Sequence[Finished]) -> list[Finished]:
    """Names by method; where several runs have the same, with the folder's, or all of its path."""
    ways: tuple[Callable[[Finished], str], ...] = (
        lambda run: run.name,
        lambda run: f"{run.name} ({run.path.name})",
        lambda run: f"{run.name} ({run.path})",
    )
    names = [ways[0](run) for run in runs]
    for way in ways[1:]:
        count = Counter(names)
        names = [
            way(run) if count[name] > 1 else name for run, name in zip(runs, names, strict=True)
        ]
    return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]
