r"""Long-tailed sets of photographs, one config for each row of the papers' tables.

    python launch/train.py --config=configs/photographs.py:imagenet_lt,resnet50,224,gcl \
        --config.data.data_dir=DIR --workdir=runs/imagenet_lt_gcl
    python launch/train.py --config=configs/photographs.py:inat2018,resnet50,224,cb_focal \
        --config.data.data_dir=DIR --workdir=gs://BUCKET/inat2018_cb_focal --distributed
    python launch/sweep.py --config=configs/photographs.py --sweep=cb_table,inat2018,224 \
        --seeds=1 --set=data.data_dir=DIR --reported=results/reported.csv --workdir=runs/inat2018_cb

After the colon: the set, the network, the side of the images and the method, as
`lt_jax.configuration.base_config` takes it. The README tells how to prepare each set; the lists of
Places-LT are in the folder data/Places_LT of github.com/facebookresearch/classifier-balancing.

=========== ======= ============ ===========================================================
imagenet_lt 1,000   115,846      validates on its own 20,000 images, tests on 50,000
places_lt   365     62,500       by these lists, also on its own validation images; with GCL's
                                 recipe from ImageNet's weights, see below
inat2017    5,089   579,184      tests on what TFDS calls validation; nothing to select on
inat2018    8,142   437,513      the same
ilsvrc2012  1,000   1,281,167    the same
=========== ======= ============ ===========================================================

The class-balanced loss: ResNet-50, 101 and 152 at 224 or 320 pixels, 90 epochs, beta 0.999, gamma
0.5, and `softmax` beside it. GCL: both stages, 200 epochs, then 30; ResNet-50, and ResNet-152 for
Places-LT. DLSA: ``cross_entropy/dlsa`` divides the features of a run of 90 epochs; the settings of
the release are for features in files (configs/dlsa_imagenet_lt.py and its like).

GCL's recipe starts on Places-LT from weights of ImageNet, as in the paper: a file such as
``resnet152.safetensors`` (the network's name), or the one of ``--config.model.pretrained``, without
which no run begins; ``--config.model.pretrained=`` starts from random weights.

Where the papers say no more than the schedule, batches are as usual for these sets: 1,024 with a
rate of 0.4 for 90 epochs (divide both by what your devices cannot hold), 256 with 0.1 for GCL.
None of these rows has been trained here: the tests check them all, load the sets as TFDS describes
them with made images, and run GCL on lists of Places-LT for a step.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.recipes import class_balanced_photographs, gcl_photographs
from lt_jax.two_stage import knob_values

NETWORKS = ("resnet10", "resnet50", "resnet101", "resnet152", "resnext50", "vit_b16")
SIDES = ("224", "320")
# Fields of `config.data` of each set.
SETS = {
    "imagenet_lt": {"source": "tfds:imagenet_lt", "validation_split": "validation"},
    "places_lt": {
        "source": "tfds:places365_small",
        "test_split": "validation",  # of TFDS, which has the images of all three lists
        "train_list": "Places_LT_train.txt",
        "validation_list": "Places_LT_val.txt",
        "test_list": "Places_LT_test.txt",
    },
    "inat2017": {"source": "tfds:i_naturalist2017", "test_split": "validation"},
    "inat2018": {"source": "tfds:i_naturalist2018", "test_split": "validation"},
    "ilsvrc2012": {"source": "tfds:imagenet2012", "test_split": "validation"},
}
LONG = "_long"  # ends methods that are trained by the recipe of GCL, to stand beside it
PRETRAINED = ("places_lt",)  # with GCL's recipe, as in its paper
CB_NETWORKS = ("resnet50", "resnet101", "resnet152")
GCL_NETWORK = {"imagenet_lt": "resnet50", "inat2018": "resnet50", "places_lt": "resnet152"}


def get_config(row: str = "imagenet_lt,resnet50,224,gcl") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``set,network,side,method``; ``_long`` after the method trains it by GCL's recipe.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    name, network, side, method = (*row.split(",", 3), "", "", "")[:4]
    if name not in SETS or network not in NETWORKS or side not in SIDES or not method:
        raise InputError(
            f"config string is {row!r}; expected set, network, side and method, such as"
            f" 'imagenet_lt,resnet50,224,gcl', with a set of {', '.join(SETS)}, a network of"
            f" {', '.join(NETWORKS)} and a side of {' or '.join(SIDES)}"
        )
    long = method.endswith(LONG)
    method = method.removesuffix(LONG)
    config = base_config({"softmax": "cross_entropy"}.get(method, method))
    config.name = f"{name}_{network}_{side}_{method}{LONG if long else ''}".replace("/", "_")
    config.data.update(SETS[name])
    config.data.image_size = int(side)
    config.model.name = network
    if long or "gaussian_cloud" in config.objective.transforms:
        gcl_photographs(config)
        if name in PRETRAINED:  # a file of the user's: without it no run starts
            config.model.pretrained = f"{network}.safetensors"
    else:
        class_balanced_photographs(config)
    if config.data.validation_split or config.data.validation_list:
        config.retrain.update(knob_values(config.retrain))
    return config


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: ``cb_table``, the set and the side, or ``gcl_table`` and the set:
        ``"cb_table,inat2018,224"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    parts = [*name.split(","), "", ""]
    table, data_set, side = parts[:3]
    methods: tuple[str, ...]
    if table == "cb_table" and data_set in SETS and side in SIDES:
        methods = ("softmax", "cb_focal") if side == "224" else ("cb_focal",)
        return [f"{data_set},{net},{side},{m}" for m in methods for net in CB_NETWORKS]
    if table == "gcl_table" and data_set in GCL_NETWORK and not side:
        network = GCL_NETWORK[data_set]
        methods = (f"softmax{LONG}", f"crt{LONG}", f"tau_norm{LONG}", "gcl_stage1", "gcl")
        return [f"{data_set},{network},224,{method}" for method in methods]
    raise InputError(
        f"sweep is {name!r}; expected 'cb_table', one of {', '.join(SETS)} and a side of"
        f" {' or '.join(SIDES)}, such as 'cb_table,inat2018,224', or 'gcl_table' and one of"
        f" {', '.join(GCL_NETWORK)}"
    )
