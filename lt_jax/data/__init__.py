"""Image sets: where they come from, how they are split, how batches are drawn on the device."""

from lt_jax.data.canvas import Canvas, Composition, compose
from lt_jax.data.dataset import Dataset, load_dataset
from lt_jax.data.device import epoch_order, eval_order, shared_order
from lt_jax.data.options import DEFAULTS
from lt_jax.data.sampling import Members, cumulative, draw, make_order, members_of, one_of_each
from lt_jax.data.sources import Source, load_source
from lt_jax.data.splits import validation_counts, validation_indices
from lt_jax.data.statistics import index_hash, pixel_statistics
from lt_jax.data.streamed import StreamedImages

__all__ = [
    "DEFAULTS",
    "Canvas",
    "Composition",
    "Dataset",
    "Members",
    "Source",
    "StreamedImages",
    "compose",
    "cumulative",
    "draw",
    "epoch_order",
    "eval_order",
    "index_hash",
    "load_dataset",
    "load_source",
    "make_order",
    "members_of",
    "one_of_each",
    "pixel_statistics",
    "shared_order",
    "validation_counts",
    "validation_indices",
]
