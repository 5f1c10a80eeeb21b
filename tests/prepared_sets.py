"""Sets of made-up photographs in files as TFDS prepares them, and reading them."""

import io

import numpy as np
import pytest

from lt_jax.data import tfds_source
from lt_jax.data.reading import Reading

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("array_record")
pytest.importorskip("grain")
tfds = pytest.importorskip("tensorflow_datasets")

SIZES = ((30, 40), (21, 17), (9, 50))


def photo(rng, i):
    """A file as photographs are: a JPEG of some size, every fourth one grey."""
    pixels = rng.integers(0, 256, (*SIZES[i % 3], 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if i % 4 == 3 else pixels).save(file, "JPEG")
    return file.getvalue()


def builder_of(name, features, folder, config=None, keys=None):
    """A builder for made-up examples; TFDS does not come to know it."""

    def info(self):
        described = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=described, supervised_keys=keys)

    version = tfds.core.Version("1.1.0")
    configs = [tfds.core.BuilderConfig(name=config, version=version)] if config else []
    members = {
        "VERSION": version,
        "BUILDER_CONFIGS": configs,
        "_info": info,
        "_split_generators": lambda self, manager: {},
        "_generate_examples": lambda self: iter(()),
        "__module__": __name__,
    }
    with tfds.core.registered.skip_registration():
        made = type(name, (tfds.core.GeneratorBasedBuilder,), members)
    return made(config=config, data_dir=folder)


def prepare(builder, examples):
    """Writes ``{split: examples}`` as array_record."""
    builder._split_generators = lambda manager: {k: enumerate(v) for k, v in examples.items()}
    builder.download_and_prepare(file_format="array_record")


def read(name, folder, image_size=8, stream=False, **options):
    options = {"train_split": "train", "test_split": "test", "download": False, **options}
    reading = Reading(image_size, stream=stream)
    found = tfds_source.read(name, data_dir=folder, reading=reading, **options)
    assert found[3] is None
    return found[:3]
