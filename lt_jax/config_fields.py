"""What each field of a config means, in one place: the documentation's reference is made of it.

Fields of ``retrain.cascade``, ``flow`` and ``heads`` are described by `lt_jax.dlsa.CascadeOptions`,
`lt_jax.dlsa.FlowOptions` and `lt_jax.dlsa.HeadOptions`, options of transforms and bases by their
factories in `lt_jax.objectives`.
"""

from __future__ import annotations

RUN = {
    "name": "label in tables; by default the method's name",
    "seed": "the first seed",
    "replicas": "how many seeds, ``seed`` to ``seed + replicas - 1``, are trained in one run",
    "replica_mode": "``vmap`` (side by side), ``sequential``, or ``auto``: whichever pays, which is"
    " ``vmap`` on GPU and TPU",
}
DATA = {
    "source": "``digits``, ``tfds:NAME``, ``folder:PATH``, ``arrays:FILE.npz``, ``features:DIR``,"
    " ``made_features:MODES``, ``multi_digits`` or ``multi_mnist``",
    "data_dir": "where TFDS sets are, and what names of folders and list files are relative to",
    "download": "whether to fetch and prepare a TFDS set that is missing",
    "num_classes": "0: from the data",
    "train_split": "TFDS split, or sub-folder, that is trained on, such as ``train+validation``;"
    " the validation split is cut from it",
    "test_split": "TFDS split, or sub-folder, that is tested on; folders without ``test`` are"
    " tested on ``val`` or ``validation``",
    "validation_split": "TFDS split, or sub-folder, that is selected on; empty:"
    " ``data.validation_size`` images are cut from train",
    "train_list": "list file (``.txt``, ``.txt.xz``) of lines ``path label``: what is in train",
    "test_list": "the same of test",
    "validation_list": "the same of validation",
    "image_size": "side to which photographs are brought, in pixels; 0: as they are",
    "resize": "how, where nothing is random: ``stretch`` to the square, or ``crop``: the shorter"
    " side to ``image_size`` / 0.875, then the middle, as ImageNet is tested",
    "stream": "whether images are read while training instead of being held in memory",
    "workers": "processes that decode streamed images; 0: threads of this one. Results are the"
    " same",
    "on_corrupt": "``refuse``: an image that cannot be decoded ends the run, naming it; ``skip``:"
    " it is named once and replaced by the next one with its labels",
    "normalization": "by mean and deviation of train (``data``), or those of ``imagenet``, which"
    " pretrained weights expect",
    "imbalance": "largest / smallest class that train is cut to; 0 leaves train as it is",
    "imbalance_kind": "shape of the tail: ``exponential``, ``step`` or ``pareto``, see"
    " `lt_jax.longtail.long_tailed_profile`",
    "pareto_power": "of ``pareto``, whose imbalance of 0 is that of COCO-MLT",
    "max_count": "images of class 0; 0: as many as every class allows",
    "class_counts": "explicit counts, one for each class, instead of ``imbalance``,"
    " ``imbalance_kind`` and ``max_count``",
    "drop_unlabelled": "whether to leave out training examples without any label",
    "split_seed": "which images are kept and which validate; apart from ``seed``",
    "validation_size": "about how many images are cut from train first, if no validation split or"
    " list is named: as many of each class if all have twice that, otherwise its share, at least 1"
    " and never its last, which of many rare classes is far more. 0: none",
}
CANVAS = {
    "images": "training canvases of ``multi_digits`` and ``multi_mnist``",
    "test_images": "test canvases",
    "size": "side of a canvas in pixels; 0: 2.5 digits",
    "min_digits": "fewest digits on a canvas",
    "max_digits": "most digits on a canvas",
    "overlap": "the most of a digit's box that another one may cover",
}
SAMPLING = {
    "scheme": "which images an epoch trains on: ``instance`` (all, once), or drawn by ``class``,"
    " ``square_root``, ``progressive``, ``effective_number``, ``class_based_effective_number``,"
    " ``power``; see `lt_jax.longtail.sampling_probabilities`",
    "beta": "of the effective-number schemes",
    "beta_spread": "what is added to ``beta`` for the rarest class, of"
    " ``class_based_effective_number``",
    "power": "of ``power``: classes are drawn in proportion to their counts to this power; 1 as in"
    " ``instance``, 0 in ``class``, 0.5 in ``square_root``, below 0 rare ones more often",
}
AUGMENT = {
    "random_resized_crop": "of streamed images: the smallest share of the area that a random crop"
    " keeps, usually 0.08; its sides are 3:4 to 4:3. 0: off",
    "crop_padding": "pixels of padding before a random crop; 0: off",
    "flip": "random mirror",
    "color_jitter": "brightness, contrast and saturation of colour images by factors in"
    " [1 - it, 1 + it], in random order, as torchvision's; 0: off",
    "autoaugment": "AutoAugment's CIFAR policy, for colour images",
    "cutout_size": "side of the square that is blanked; 0: off",
    "mixup_alpha": "parameter of the Beta distribution that images are mixed by; the losses of"
    " both label sets are mixed, not the labels. 0: off",
}
MODEL = {
    "name": "a network of `lt_jax.models.create_model`",
    "head": "``linear``, ``cosine``, or ``auto``: the one that the objective needs",
    "sigmoid_prior": "sigmoid losses: biases start at -log(C - 1), or at the log odds of the mean"
    " label",
    "dtype": "``bfloat16`` computes in it; weights, statistics and losses stay float32",
    "fused": "of ``resnet20`` to ``resnet110``, in ``bfloat16`` on one GPU: steps run in kernels"
    " made for these networks; the same function, up to rounding. May differ when a run goes on",
    "pretrained": "``.safetensors`` or ``.npz`` of the weights of a ResNet, ResNeXt or Vision"
    " Transformer in torchvision's or timm's names; the head stays fresh. Empty: random weights",
}
OBJECTIVE = {
    "base": "``softmax``, ``sigmoid``, ``asymmetric`` or ``negative_tolerant``",
    "base_options": "options of the base, a group",
    "transforms": "the transforms by name, each a group of its options and of ``start_epoch``,"
    " the epoch from which it acts (0: from the start; below 1: a share of the training)",
}
OPTIMIZER = {
    "name": "``sgd`` or ``adam``",
    "learning_rate": "the highest of the schedule",
    "momentum": "of SGD, or Adam's first",
    "nesterov": "whether SGD looks ahead",
    "weight_decay": "coefficient; for SGD added to the gradient, for Adam decoupled",
    "decay": "on which weights: ``all``, ``kernels``, ``all_but_head_bias``",
    "schedule": "``constant``, ``cosine``, or ``step``",
    "warmup_epochs": "of linear warm-up",
    "milestones": "of ``step``: epochs",
    "factors": "of ``step``: what the rate is multiplied by at each milestone",
}
METRICS = {
    "threshold": "several labels: the probability above which a positive is predicted",
    "groups": "several labels: head, medium and tail are ``thirds`` of the classes by frequency,"
    " or by ``counts``: more than 100, 20 to 100, fewer than 20",
}
TRAIN = {
    "epochs": "how many",
    "batch_size": "of all devices together; the incomplete last batch of an epoch is left out",
    "eval_batch_size": "of validation and test, where every image counts, also in the last batch",
    "eval_every_epochs": "epochs between validations",
    "checkpoint_every_epochs": "epochs between checkpoints",
    "keep_checkpoints": "how many are kept, at least 2",
    "log_every_steps": "a row of metrics at the end of the call that reaches a multiple",
    "steps_per_call": "updates in one program; 0: 1 on CPU and of streamed images, elsewhere about"
    " 20, the last one of an epoch makes what is left",
    "num_devices": "over which batches are split; 0: all. May differ when a run goes on",
    "fsdp": "weights, momenta and best weights are split over the devices too, for networks that"
    " do not fit on one; one replica. May differ when a run goes on",
    "tensorboard": "whether to write events for TensorBoard",
    "progress": "whether to draw a progress bar",
    "picture": "whether to draw ``picture.png``",
}
RETRAIN = {
    "method": "``crt``, ``finetune``, ``lws``, ``tau_norm``, ``ncm``, ``logit_adjustment``,"
    " ``dlsa``, or empty for no second stage",
    "weights": "of stage 1: ``last`` or ``best_on_validation``",
    "epochs": "of ``crt``, ``finetune`` and ``lws``",
    "batch_size": "likewise",
    "objective": "likewise, a group with the fields of ``objective``",
    "sampling": "likewise, a group with the fields of ``sampling``",
    "augment": "likewise, a group with the fields of ``augment``; all off, features are computed"
    " once",
    "optimizer": "likewise, a group with the fields of ``optimizer``",
    "tau": "of ``tau_norm`` and ``logit_adjustment``: values among which validation chooses",
    "features": "of ``ncm``, likewise: ``plain``, ``unit`` (length 1), ``centred_unit`` (less"
    " their mean, then length 1)",
    "cascade": "of ``dlsa``: how the set is divided, a group",
    "flow": "of ``dlsa``: the flows and their training, a group",
    "heads": "of ``dlsa``: the classifiers of the parts, a group",
}

# Descriptions by group; "" has the fields of the config itself.
FIELDS: dict[str, dict[str, str]] = {
    "": RUN,
    "data": DATA,
    "data.canvas": CANVAS,
    "sampling": SAMPLING,
    "augment": AUGMENT,
    "model": MODEL,
    "objective": OBJECTIVE,
    "optimizer": OPTIMIZER,
    "metrics": METRICS,
    "train": TRAIN,
    "retrain": RETRAIN,
}
