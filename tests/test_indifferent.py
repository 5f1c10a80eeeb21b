"""Fields that change nothing of what is computed: a run goes on with others, and ends the same."""

import numpy as np
import pytest
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import StopAfter, leaves, rows, tiny

from lt_jax.errors import InputError
from lt_jax.matching import INDIFFERENT
from lt_jax.sweep import plan
from lt_jax.train import train


def config(every, checkpoints, **fields):
    counts = {"train__log_every_steps": every, "train__checkpoint_every_epochs": checkpoints}
    return tiny("plm", train__epochs=4, replicas=2, **counts, **fields)


def training_rows(folder):
    return [(row["step"], row["loss"]) for row in rows(folder) if row["split"] == "train"]


@pytest.mark.parametrize(("before", "after"), [((4, 4), (2, 1)), ((2, 1), (4, 4))])
def test_checkpoints_and_rows_may_be_more_or_fewer(before, after, tmp_path, monkeypatch):
    """As on a cluster that preempts more than one thought; losses since the last row are kept."""
    whole = train(config(1, 4), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        patch.setattr(StopAfter, "step", 7)
        assert train(config(*before), tmp_path / "run") is None
    stopped = max(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir())
    assert 3 < stopped < 6
    assert training_rows(tmp_path / "run")[-1][0] < stopped  # so that some losses are pending
    summary = train(config(*after), tmp_path / "run")
    assert summary["test"] == whole["test"]
    for one, other in zip(leaves(tmp_path / "whole"), leaves(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(one, other)
    each = np.array([loss for _, loss in training_rows(tmp_path / "whole")])
    found = training_rows(tmp_path / "run")
    steps = [0, *(step for step, _ in found)]
    multiples = [*range(before[0], stopped + 1, before[0])]
    multiples += [step for step in range(stopped + 1, 13) if step % after[0] == 0 or step == 12]
    assert steps[1:] == multiples
    for first, last, (_, loss) in zip(steps, steps[1:], found, strict=False):
        np.testing.assert_array_equal(loss, each[first:last].astype(float).mean(axis=0))
    others = [row for row in rows(tmp_path / "run") if row["split"] != "train"]
    assert others == [row for row in rows(tmp_path / "whole") if row["split"] != "train"]


def test_rows_that_differ_in_them_alone_are_one_run():
    found = plan({"a": config(5, 4, name="a"), "b": config(2, 1, name="b")})
    assert [row.same_as for row in found] == ["", "a"]


def test_what_is_computed_and_names_stay_decisive(tmp_path):
    """The best weights depend on how often validation is read; tables know rows by their names."""
    assert not INDIFFERENT & {"train.eval_every_epochs", "train.eval_batch_size", "name"}
    train(config(5, 4), tmp_path)
    for field in ({"train__eval_every_epochs": 2}, {"name": "other"}):
        with pytest.raises(InputError, match=next(iter(field)).replace("__", ".")):
            train(config(5, 4, **field), tmp_path)
