"""Which examples of a set a list means: as comparing all pairs of paths says, but in seconds."""

import os
import re
import time
from pathlib import Path

import numpy as np

from lt_jax.data.lists import Listed, matched
from lt_jax.errors import InputError


def in_common(path, name):
    """Parts at the end, where hyphens separate as slashes do."""
    parts = [re.split("[-/]", p)[::-1] for p in (path, name)]
    count = 0
    while count < min(map(len, parts)) and parts[0][count] == parts[1][count]:
        count += 1
    return count


def closest(path, names):
    """By comparing with every name."""
    file = path.split("/")[-1]
    common = {i: in_common(path, n) for i, n in enumerate(names) if n.split("/")[-1] == file}
    return [i for i, count in common.items() if count == max(common.values())]


def expected(paths, names):
    """The numbers, or what the error is to say first."""
    result = []
    for path in paths:
        found = closest(path, names)
        if len(found) != 1:
            many = f"{len(found)} files of that name" if found else "no files"
            return f"l.txt lists {path}, of which the set has {many}; expected one"
        before = paths[result.index(found[0])] if found[0] in result else path
        if os.path.normpath(before) != os.path.normpath(path):
            return f"l.txt lists {before} and {path}, and the set has"
        result += found
    return result


def got(paths, names):
    listed = Listed(Path("l.txt"), paths, np.zeros(len(paths), np.int32))
    try:
        return matched(listed, names, "the set").tolist()
    except InputError as error:
        return str(error)


def same(paths, names):
    """What both say, if it is the same."""
    wanted, found = expected(paths, names), got(paths, names)
    if isinstance(wanted, str):
        assert isinstance(found, str), (paths, names)
        assert found.startswith(wanted), (paths, names)
        return wanted.split("of which the set has ")[-1]
    assert found == wanted, (paths, names)
    return "found"


def made_up(rng, pieces, folders):
    """A path of a few of these pieces, with hyphens, empty parts and none."""
    path = "".join(rng.choice(pieces) + rng.choice(["/", "-", "/"]) for _ in range(folders))
    return rng.choice(["", "", "/"]) + path + rng.choice(["1.jpg", "2.jpg", "a-1.jpg"])


def test_random_paths_are_matched_as_pair_by_pair():
    """What is found, and of which there are several or none, and which error comes first."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(3000):
        pieces = ["a", "b", "", "a-b"][: rng.integers(2, 5)]
        names = [made_up(rng, pieces, rng.integers(0, 4)) for _ in range(rng.integers(1, 9))]
        paths = [made_up(rng, pieces, rng.integers(0, 4)) for _ in range(rng.integers(1, 4))]
        paths = [str(rng.choice(names)) if rng.random() < 0.5 else path for path in paths]
        seen.add(same(list(map(str, paths)), list(map(str, names))).split(" and ")[0][:12])
    for kind in ("found", "no files; ex", "2 files of t", "3 files of t", "l.txt lists "):
        assert any(kind in one for one in seen), seen


def places(rng, count, numbers):
    """Names as TFDS has them, of classes some of which differ in their last folder alone."""
    inner = [f"scene_{c // 2}/{('indoor', 'outdoor')[c % 2]}" for c in range(count // 3)]
    classes = inner + [f"place_{c}" for c in range(count - len(inner))]
    names = [f"data_256/{c[0]}/{c}/{n:08d}.jpg" for c in classes for n in range(numbers)]
    return [names[i] for i in rng.permutation(len(names))]


def as_listed(name):
    """How the public lists call it: ``train/scene_0-indoor/00000001.jpg``."""
    folders = name.split("/")[2:]
    return f"train/{'-'.join(folders[:-1])}/{folders[-1]}"


def test_names_like_those_of_places_are_matched_as_pair_by_pair():
    rng = np.random.default_rng(1)
    names = places(rng, 30, 8)
    paths = [as_listed(names[i]) for i in rng.permutation(len(names))[:100]]
    assert same(paths, names) == "found"
    assert same([*paths, "train/place_99/00000003.jpg"], names).startswith("30 files of that name")
    assert same([*paths, "train/place_1/00000009.jpg"], names).startswith("no files")


def test_a_large_set_is_matched_in_no_time():
    """73,000 names, 2,500 of them listed: pair by pair that takes seven seconds of a core."""
    rng = np.random.default_rng(2)
    names = places(rng, 365, 200)
    chosen = rng.permutation(len(names))[:2500]
    listed = Listed(Path("l"), [as_listed(names[i]) for i in chosen], np.zeros(2500, np.int32))
    begun = time.process_time()
    np.testing.assert_array_equal(matched(listed, names, "the set"), chosen)
    assert time.process_time() - begun < 1.5
