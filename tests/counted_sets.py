"""Class counts of data sets that advice is given for: real, made-up and extreme ones."""

import numpy as np

from lt_jax import longtail

TAIL = longtail.long_tailed_counts
# name -> counts, and of multi-label sets the number of examples.
SETS = {
    "balanced": (np.full(10, 500), None),
    "two classes": ([9_000, 90], None),
    "two images": ([1, 1], None),
    "tiny": ([5, 2, 1], None),
    "digits": (TAIL(113, 10, 50), None),
    "small": (TAIL(1000, 10, 100), None),
    "mild": (TAIL(1000, 10, 10), None),
    "CIFAR-10-LT": (TAIL(5000, 10, 1000), None),
    "few of many classes": (TAIL(350, 100, 50), None),
    "CIFAR-100-LT": (TAIL(500, 100, 100), None),
    "ImageNet-LT": (TAIL(1280, 1000, 256), None),
    "iNaturalist 2018": (TAIL(1000, 8142, 500), None),
    "Places-LT": (TAIL(4980, 365, 996), None),
    "absent classes": ([900, 0, 90, 9, 0], None),
    "canvases": ([2147, 1594, 1110, 779, 562, 399, 234, 145, 98, 67], 3000),
    "even labels": ([171, 124, 148, 147, 208, 169], 907),
    "never and always": ([300, 120, 30, 2, 0], 300),
    "many labels": (TAIL(60_000, 80, 300), 118_000),
}
