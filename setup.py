"""Packaging of lt_jax; every dependency with the reason it is there."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lt_jax/__init__.py").read_text())[1]

# Bounded to what was tested: the lower bounds on Python 3.11, the upper ones on 3.12.
REQUIRED = [
    "jax>=0.10.2,<0.13",  # the arrays, gradients and compiler under everything
    "flax>=0.12.8,<0.13",  # NNX modules of the networks
    "optax>=0.2.8,<0.3",  # optimizers and learning-rate schedules
    "orbax-checkpoint>=0.12.8,<0.13",  # checkpoints that are whole or absent
    "filelock>=4.3,<5",  # two processes do not write to one folder
    "etils[epath]>=1.15,<2",  # paths of folders in a bucket, as Orbax takes them
    "ml_collections>=1.1,<2",  # configs with command-line overrides
    "absl-py>=2.3,<3",  # flags of the launch scripts
    "numpy>=2.0,<3",  # class counts and scores in float64
    "scikit-learn>=1.7,<2",  # the bundled digits; average precision
    "scipy>=1.15,<2",  # the t interval of paired differences
    "rich>=14,<16",  # progress bar and tables in the terminal
    "matplotlib>=3.10,<4",  # the picture of every run
    "Jinja2>=3.1,<4",  # the page that compares runs
    "MarkupSafe>=2.1,<4",  # text of that page that is HTML already
]
EXTRAS = {
    "tfds": [
        "tensorflow-datasets>=4.9.9,<5",  # CIFAR, MNIST and the other image sets
        "array_record>=0.8,<0.9",  # their files, read without TensorFlow
        "importlib_resources>=6",  # TFDS imports it without requiring it
    ],
    "images": [
        "grain>=0.2.18,<0.3",  # reads images ahead of the step that needs them
        "Pillow>=11,<14",  # decodes them
    ],
    "gcs": ["etils[epath-gcs]>=1.15,<2"],  # runs in a bucket of Google Cloud Storage
    "tensorboard": ["tensorboardX>=2.6.4,<3"],  # event files without TensorFlow
    "dlsa": ["h5py>=3.12,<4"],  # features in .h5 files, as released features are
    "pretrained": ["safetensors>=0.8,<1"],  # weights of trained backbones, without pickle
    "export": ["flatbuffers>=25.12,<26"],  # jax.export reads and writes programs with it
    "docs": [
        "sphinx>=9,<10",  # the site, and the reference from docstrings
        "myst-nb>=1.4,<2",  # pages in Markdown, and notebooks as pages
        "furo>=2025.12.19",  # the theme
        "sphinx-copybutton>=0.5.2,<1",  # commands that can be copied by a click
        "sphinx-design>=0.8,<1",  # cards and tabs
    ],
}
EXTRAS["tfds"] += EXTRAS["images"]
EXTRAS["notebooks"] = [
    *EXTRAS["tfds"],
    "jupyterlab>=4.4,<5",  # opens and runs them
]
# Not in dev: PyTorch takes gigabytes. The lower bounds are what was tested, the upper ones the next
# version that may move names or numbers.
EXTRAS["torch"] = [
    *EXTRAS["pretrained"],
    "torch>=2.14,<3",  # computes what our networks are held to
    "torchvision>=0.29,<1",  # its ResNets, ResNeXts and Vision Transformers, and their names
    "timm>=1.0.31,<2",  # its own of the same
    "pytest>=8,<10",  # runs the comparison
]
EXTRAS["dev"] = [
    *EXTRAS["tfds"],
    *EXTRAS["gcs"],
    *EXTRAS["tensorboard"],
    *EXTRAS["dlsa"],
    *EXTRAS["pretrained"],
    *EXTRAS["export"],
    *EXTRAS["docs"],
    "nbformat>=5.10,<6",  # reads the notebooks that tests run
    "pytest>=8,<10",  # the tests
    "pytest-xdist>=3.7,<4",  # on both cores
    "PyYAML>=6,<7",  # reads CITATION.cff and the hooks, for a test
    "setuptools>=77",  # reads this file, for a test
    "build>=1.2,<2",  # wheel and sdist
    "ruff==0.17.6",  # lint and format
    "mypy==2.4.1",  # types
]

setup(
    name="lt_jax",
    version=VERSION,
    description="Long-tailed image recognition in JAX: losses, objectives and training runs",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="The lt_jax authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "jax",
        "flax",
        "long-tailed recognition",
        "class imbalance",
        "class-balanced loss",
        "logit adjustment",
        "multi-label classification",
        "image classification",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["lt_jax", "lt_jax.*"]),
    package_data={"lt_jax": ["py.typed"], "lt_jax.comparison": ["page.*"]},
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
