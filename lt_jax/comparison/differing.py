"""What runs have in common and what not: fields of their configs, and how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lt_jax.comparison.runs import Finished
from lt_jax.matching import flatten
from lt_jax.summaries import Scores

ABSENT = "-"
LONGEST = 24  # entries of a list that is shown
_FACTS = ("finished", "commit", "seeds", "versions", "hardware", "training", "data")


def fields_of(tree: Mapping[str, Any]) -> dict[str, str]:
    """Fields by dotted name, as text.

    Example:
      >>> fields_of({"a": {"b": 0.1, "c": "x"}, "d": [1, 2], "e": {}, "f": None})
      {'a.b': '0.1', 'a.c': 'x', 'd': '[1, 2]', 'e': '{}', 'f': 'null'}
    """
    return {name: _text(value) for name, value in flatten(tree)}


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONGEST:
        return f"{len(value)} entries"
    return value if isinstance(value, str) and value else json.dumps(value)


def separated(each: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Fields that all runs share, and those that differ.

    Args:
      each: fields of each run.

    Returns:
      Values by field, and values of each run by field, in the order in which they are first found;
      a dash where a run lacks one.

    Example:
      >>> separated([{"a": "1", "b": "2"}, {"a": "1", "c": "3"}])
      ({'a': '1'}, {'b': ['2', '-'], 'c': ['-', '3']})
    """
    names = dict.fromkeys(name for fields in each for name in fields)
    values = {name: [fields.get(name, ABSENT) for fields in each] for name in names}
    same = {name: v[0] for name, v in values.items() if len(set(v)) == 1}
    return same, {name: v for name, v in values.items() if name not in same}


def facts_of(run: Finished) -> dict[str, str]:
    """How a run was made, and of what: commit, versions, hardware, training, data."""
    summary: Scores = run.summary
    return fields_of({name: summary[name] for name in _FACTS if name in summary})
