r"""COCO and Pascal VOC as multi-label sets, whole or long-tailed, with a pretrained ResNet.

    python launch/train.py --config=configs/coco.py:coco,resnet50,224,plm \
        --config.model.pretrained=resnet50.safetensors --workdir=runs/coco_plm
    python launch/sweep.py --config=configs/coco.py --sweep=all,coco_mlt,resnet50,224 --seeds=3 \
        --set=model.pretrained=resnet50.safetensors --workdir=runs/coco_mlt

After the colon: the set, the network (resnet50, resnet101), the side of the images (224, 448) and
the method. Every object that is annotated in an image is one of its labels. Sets:

======== ==========================================================================================
coco     ``tfds:coco/2017``: 80 classes, 118,287 images less those without a label to train on,
         5,000 to test on, which TFDS calls validation; read while it trains
voc      ``tfds:voc/2007``: 20 classes, the 5,011 images of trainval, less 500 to select on, and
         4,952 to test on; in memory
coco_mlt a Pareto tail of the first, as COCO-MLT has it, but drawn by split_seed
voc_mlt  the same of the second; the published VOC-MLT is of VOC 2012
======== ==========================================================================================

Sets have to be prepared once, as array_record, on a machine with a network and TensorFlow::

    pip install tensorflow && python -c "import tensorflow_datasets as tfds; \
        tfds.builder('coco/2017', data_dir='DIR').download_and_prepare(file_format='array_record')"

and are read, here or wherever the folder is copied to, with ``--config.data.data_dir=DIR``, without
TensorFlow. Weights for ``--config.model.pretrained`` are torchvision's::

    python -c "import torchvision, safetensors.torch; safetensors.torch.save_file( \
        torchvision.models.resnet50(weights='DEFAULT').state_dict(), 'resnet50.safetensors')"

or a ``model.safetensors`` of timm's resnet50 or resnet101; without any the network starts from
random weights, for which this recipe is not meant. Meant for one GPU and some ten cores to decode
photographs; time and scores are not measured yet.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.recipes import MULTI_LABEL_ROWS, multi_label_losses

SETS = ("coco", "voc", "coco_mlt", "voc_mlt")
MODELS = ("resnet50", "resnet101")
BATCH_SIZE = {"224": 64, "448": 32}  # by the side of the images
SWEEPS = {"all": MULTI_LABEL_ROWS}


def get_config(row: str = "coco,resnet50,224,plm") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``set,network,side,method``; a method as `lt_jax.configuration.base_config` takes it
        whose classes do not compete.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    name, model, side, method = (*row.split(",", 3), "", "", "")[:4]
    if name not in SETS or model not in MODELS or side not in BATCH_SIZE or not method:
        raise InputError(f"config string is {row!r}; expected such as 'coco,resnet50,224,plm'")
    config = base_config(method)
    config.name = f"{name}_{model}_{side}_{config.name}"
    _data(config.data, name)
    config.data.image_size = int(side)
    config.model.name = model
    config.model.dtype = "bfloat16"
    config.metrics.groups = "counts" if name.endswith("_mlt") else "thirds"
    config.augment.flip = True
    _training(config, epochs=30 if name == "coco" else 60)
    config.train.batch_size = BATCH_SIZE[side]
    multi_label_losses(config, beta=0.9999 if name == "coco" else 0.999)
    return config


def _data(data: ConfigDict, name: str) -> None:
    coco = name.startswith("coco")
    data.source = "tfds:coco/2017" if coco else "tfds:voc/2007"
    data.train_split = "train" if coco else "train+validation"
    data.test_split = "validation" if coco else "test"  # coco's own test split has no annotations
    data.validation_size = 5000 if coco else 500
    data.drop_unlabelled = True
    data.stream = coco
    data.normalization = "imagenet"
    data.imbalance = 0.0
    if name.endswith("_mlt"):
        data.imbalance_kind = "pareto"
        data.pareto_power = 6.0
        # That of COCO-MLT; for the 800 of VOC-MLT there are too few images: as many as there are.
        data.max_count = 1200 if coco else 0


def _training(config: ConfigDict, epochs: int) -> None:
    """Adam with one cycle of its rate, decoupled decay of the kernels alone.

    As is usual since ASL (Ridnik et al., ICCV 2021) and Query2Label (Liu et al., 2021), without
    their moving average of the weights and stronger augmentation.
    """
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay = "kernels"
    config.optimizer.warmup_epochs = epochs / 5
    config.train.epochs = epochs
    config.train.eval_batch_size = 128
    config.train.eval_every_epochs = 5
    config.train.checkpoint_every_epochs = 5


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: ``all``, then set, network and side: ``"all,coco_mlt,resnet50,224"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    table, _, rest = name.partition(",")
    if table not in SWEEPS or rest.count(",") != 2:
        raise InputError(f"sweep is {name!r}; expected such as 'all,coco_mlt,resnet50,224'")
    return [f"{rest},{method}" for method in SWEEPS[table]]
