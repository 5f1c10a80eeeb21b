"""A second implementation of everything in `lt_jax.losses`: NumPy, float64, entry by entry.

Written from the papers, in their notation, for the eye and not for speed: no function here shares a
trick with the library. Meant for logits of moderate size.
"""

import math

import numpy as np


def one_hot(labels, num_classes):
    """Targets ``[B, C]`` of integers, or the targets that were given."""
    labels = np.asarray(labels)
    return np.eye(num_classes)[labels] if labels.ndim == 1 else labels.astype(np.float64)


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / e.sum()


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-np.asarray(z, np.float64)))


def rows(function):
    """From a loss of one example ``(logits [C], targets [C], ...)`` to one of a batch."""

    def batch(logits, labels, *args, **kwargs):
        logits = np.asarray(logits, np.float64)
        targets = one_hot(labels, logits.shape[1])
        return np.array(
            [function(z, t, *args, **kwargs) for z, t in zip(logits, targets, strict=True)]
        )

    return batch


# Per-class vectors


def effective_number(n, beta):
    return math.fsum(beta**k for k in range(int(n)))


def class_balanced_weights(counts, beta):
    inverse = [1.0 / effective_number(n, beta) for n in counts]
    return np.array([len(counts) * i / math.fsum(inverse) for i in inverse])


def multi_label_weights(counts, beta):
    """A class without positives weighs 1 and takes no part in the others' weights."""
    others = iter(class_balanced_weights([n for n in counts if n], beta))
    return np.array([next(others) if n else 1.0 for n in counts])


def cloud_sizes(counts):
    gaps = [math.log(max(counts)) - math.log(n) for n in counts]
    return np.array([g / max(gaps) if max(gaps) else 0.0 for g in gaps])


def ldam_margins(counts, max_margin):
    unscaled = np.array([1.0 / math.sqrt(math.sqrt(n)) for n in counts])
    return unscaled * max_margin / unscaled.max()


# Base losses and focal modulation


@rows
def softmax_cross_entropy(z, t):
    return -sum(t[c] * math.log(softmax(z)[c]) for c in range(len(z)))


@rows
def sigmoid_cross_entropy(z, t):
    p = sigmoid(z)
    return -sum(t[c] * math.log(p[c]) + (1 - t[c]) * math.log(1 - p[c]) for c in range(len(z)))


@rows
def weighted_sigmoid(z, t, counts, num_examples, power):
    """Soft targets: the weight is the mean of the two weights."""
    total = 0.0
    for c, p in enumerate(sigmoid(z)):
        positives, negatives = counts[c], num_examples - counts[c]
        weight = (negatives / positives) ** power if positives and negatives else 1.0
        entropy = -(t[c] * math.log(p) + (1 - t[c]) * math.log(1 - p))
        total += (t[c] * weight + (1 - t[c])) * entropy
    return total


@rows
def softmax_focal(z, t, gamma):
    p = softmax(z)
    others = [sum(p[j] for j in range(len(z)) if j != c) for c in range(len(z))]
    return -sum(t[c] * others[c] ** gamma * math.log(p[c]) for c in range(len(z)))


@rows
def sigmoid_focal(z, t, gamma):
    """Soft targets: the factor is the mean of the two factors."""
    total = 0.0
    for c, p in enumerate(sigmoid(z)):
        entropy = -(t[c] * math.log(p) + (1 - t[c]) * math.log(1 - p))
        total += (t[c] * (1 - p) ** gamma + (1 - t[c]) * p**gamma) * entropy
    return total


# Class-balanced losses


def class_balanced_softmax(logits, labels, counts, beta):
    weights = class_balanced_weights(counts, beta)
    return rows(
        lambda z, t: -sum(t[c] * weights[c] * math.log(softmax(z)[c]) for c in range(len(z)))
    )(logits, labels)


def class_balanced_focal(logits, labels, counts, beta, gamma):
    """Integers: the label's weight on the whole example. Targets: each class's on its entries."""
    weights = multi_label_weights(counts, beta)
    if np.ndim(labels) == 1:
        return weights[np.asarray(labels)] * sigmoid_focal(logits, labels, gamma)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    by_class = [
        weights[c] * sigmoid_focal(logits[:, c : c + 1], labels[:, c : c + 1], gamma)
        for c in range(logits.shape[1])
    ]
    return np.sum(by_class, axis=0)


# Clouds, margins, priors


def clouded_logits(cosines, labels, counts, cloud, noise, margin, scale, angular=False):
    cosines = np.asarray(cosines, np.float64)
    targets, sizes = one_hot(labels, cosines.shape[1]), cloud_sizes(counts)
    z = np.empty_like(cosines)
    for i, j in np.ndindex(*cosines.shape):
        own_margin = margin * targets[i, j]
        amplitude = noise * abs(cloud[i][j]) * sizes[j]
        if angular:
            angle = math.acos(cosines[i, j]) + math.pi / 2 * amplitude + own_margin
            z[i, j] = scale * math.cos(min(angle, math.pi))
        else:
            z[i, j] = scale * (cosines[i, j] - amplitude - own_margin)
    return z


def gaussian_clouded(cosines, labels, counts, cloud, noise, margin, scale, angular=False):
    z = clouded_logits(cosines, labels, counts, cloud, noise, margin, scale, angular)
    return softmax_cross_entropy(z, labels)


@rows
def ldam(f, t, counts, max_margin, scale):
    margins = ldam_margins(counts, max_margin)
    z = [scale * (f[c] - t[c] * margins[c]) for c in range(len(f))]
    return -sum(t[c] * math.log(softmax(z)[c]) for c in range(len(f)))


@rows
def logit_adjusted(z, t, counts, tau):
    powers = [math.exp(z[c]) * (counts[c] / sum(counts)) ** tau for c in range(len(z))]
    return -sum(t[c] * math.log(powers[c] / sum(powers)) for c in range(len(z)))


@rows
def seesaw(z, t, counts, p, q):
    """One-hot targets only, as in the paper."""
    y, sigma, denominator = int(np.argmax(t)), softmax(z), math.exp(z[np.argmax(t)])
    for j in range(len(z)):
        if j != y:
            mitigation = (counts[j] / counts[y]) ** p if counts[j] < counts[y] else 1.0
            ratio = sigma[j] / max(sigma[y], 1e-2)
            compensation = ratio**q if ratio > 1 else 1.0
            denominator += mitigation * compensation * math.exp(z[j])
    return -math.log(math.exp(z[y]) / denominator)


# Weighed and dropped entries


def equalization(logits, labels, counts, drop, threshold, base, num_examples=None):
    """``drop`` [B, C]: which draws leave out a negative of a rare class."""
    num_examples = sum(counts) if num_examples is None else num_examples
    logits = np.asarray(logits, np.float64)
    targets, total = one_hot(labels, logits.shape[1]), []
    for z, t, d in zip(logits, targets, drop, strict=True):
        kept = [
            t[j] >= 0.5 or not (d[j] and counts[j] / num_examples < threshold)
            for j in range(len(z))
        ]
        if base == "softmax":
            normaliser = sum(math.exp(z[j]) for j in range(len(z)) if kept[j])
            terms = (t[j] * (z[j] - math.log(normaliser)) for j in range(len(z)) if kept[j])
            total.append(-sum(terms))
        else:
            p = sigmoid(z)
            total.append(
                -sum(
                    t[j] * math.log(p[j]) + (1 - t[j]) * math.log(1 - p[j])
                    for j in range(len(z))
                    if kept[j]
                )
            )
    return np.array(total)


@rows
def asymmetric(z, t, gamma_positive, gamma_negative, clip):
    total = 0.0
    for c, p in enumerate(sigmoid(z)):
        shifted = max(p - clip, 0.0)
        total -= t[c] * (1 - p) ** gamma_positive * math.log(p)
        total -= (1 - t[c]) * shifted**gamma_negative * math.log(1 - shifted)
    return total


@rows
def distribution_balanced(z, t, counts, num_examples, alpha, beta, mu, kappa, scale):
    """A class that none or all have: no bias; one that none has: weights of a single positive."""
    total = 0.0
    constant = [n in (0, num_examples) for n in counts]
    counts = [max(n, 1) for n in counts]
    image_level = sum(t[c] / counts[c] for c in range(len(z)))
    for c in range(len(z)):
        ratio = (1.0 / counts[c]) / image_level if image_level else math.inf
        weight = alpha + sigmoid(beta * (ratio - mu))
        prior = counts[c] / num_examples
        nu = 0.0 if constant[c] else -kappa * -math.log(1.0 / prior - 1.0)
        positive = math.log(1 + math.exp(-(z[c] - nu)))
        negative = math.log(1 + math.exp(scale * (z[c] - nu))) / scale
        total += weight * (t[c] * positive + (1 - t[c]) * negative)
    return total


# Partial label masking


def keep_probabilities(targets, ratio, ideal):
    out = np.ones(np.shape(targets))
    for i, c in np.ndindex(*out.shape):
        if targets[i][c] == 1 and ratio[c] > ideal[c]:
            out[i, c] = ideal[c] / ratio[c]
        if targets[i][c] == 0 and ratio[c] < ideal[c]:
            out[i, c] = ratio[c] / ideal[c]
    return out


def masked_sigmoid(logits, targets, keep):
    """Sigmoid cross-entropy of the kept entries."""
    p = sigmoid(logits)
    entries = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    return np.array([row[k].sum() for row, k in zip(entries, keep, strict=True)])


def masked_softmax(logits, targets, keep):
    """Softmax cross-entropy: dropped positives lose their term, dropped negatives their place."""
    out = []
    for z, t, k in zip(np.asarray(logits, np.float64), targets, keep, strict=True):
        normaliser = sum(math.exp(z[j]) for j in range(len(z)) if k[j] or t[j] >= 0.5)
        out.append(sum(t[j] * (math.log(normaliser) - z[j]) for j in range(len(z)) if k[j]))
    return np.array(out)


def probability_histograms(probabilities, targets, bins=10):
    """Of the positives and of the negatives, each ``[C, bins]``."""
    probabilities, present = np.asarray(probabilities, np.float64), np.asarray(targets) >= 0.5
    return tuple(
        np.array(
            [
                np.histogram(probabilities[chosen[:, c], c], bins=bins, range=(0.0, 1.0))[0]
                for c in range(probabilities.shape[1])
            ]
        )
        for chosen in (present, ~present)
    )


def divergence(histogram, certain_bin):
    """KL(predicted || truth) of one class, the truth all in one bin, its empty bins at 1e-7."""
    total = 0.0
    for b, n in enumerate(histogram):
        if n:
            truth = 1.0 if b == certain_bin % len(histogram) else 1e-7
            total += n / sum(histogram) * math.log(n / sum(histogram) / truth)
    return total


def updated_ideal_ratio(ideal, ratio, positives, negatives, rate, bound=100.0):
    ideal = np.array(ideal, np.float64)
    usable = [
        c
        for c in range(len(ideal))
        if sum(positives[c]) and sum(negatives[c]) and not math.isnan(ratio[c])
    ]

    def standardised(values):
        values = np.array(values)
        return (values - values.mean()) / values.std() if np.ptp(values) > 1e-12 else 0 * values

    if usable:
        excess = standardised([divergence(positives[c], -1) for c in usable])
        excess = excess - standardised([divergence(negatives[c], 0) for c in usable])
        for c, e in zip(usable, excess, strict=True):
            moved = ideal[c] * math.exp(rate * e)
            ideal[c] = min(max(moved, ratio[c] / bound), ratio[c] * bound)
    return ideal
