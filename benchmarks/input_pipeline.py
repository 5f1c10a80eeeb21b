r"""Photographs to batches of crops: this pipeline against PyTorch's DataLoader, on the same files.

    python benchmarks/input_pipeline.py

Needs torch beside this project, and takes torchvision's transforms where it is installed, else the
same ones written here. Made JPEG files of 500 x 375 pixels and about
100 kB (or those of --folder) are decoded, cropped at random as torchvision's RandomResizedCrop
does, resized to 224 x 224 and put into batches of 128, uint8. Every measurement is a process of its
own, pinned to the same cores; ways take turns, so that what else the machine does hits all alike.
Two things are compared: images a second and core, which is what counts but suffers from what
else the cores do; and processor time of all processes for an image, which does not.
"""

import io
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from absl import app, flags

SIZE, BATCH, SMALLEST = 224, 128, 0.08
WIDTH, HEIGHT = 500, 375

FILES = flags.DEFINE_integer("files", 2000, "Photographs to make.")
FOLDER = flags.DEFINE_string("folder", "", "Folder of *.jpg to read instead.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each way.")
CORES = flags.DEFINE_list("cores", ["0"], "Which cores all ways are pinned to.")
OUT = flags.DEFINE_string("out", "results/benchmarks/input_pipeline.json", "JSON to write.")
MEASURE = flags.DEFINE_string("measure", "", "One way, in this process: name:workers.")

WAYS = {
    "threads": "lt_jax:0",
    "processes": "lt_jax:{cores}",
    "pytorch, this process": "torch:0",
    "pytorch, workers": "torch:{cores}",
}


def photograph(rng):
    """A JPEG: clouds of all sizes, hard edges and some grain, as photographs have."""
    from PIL import Image

    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for power in range(2, 8):
        noise = rng.integers(0, 256, (2**power, 2**power, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        pixels += np.asarray(layer, np.float64) / 2 ** (power - 1)
    for _ in range(12):
        y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
        h, w = rng.integers(20, 150, 2)
        pixels[y : y + h, x : x + w] += rng.uniform(-80, 80, 3)
    pixels += rng.normal(0, 26, pixels.shape)
    scaled = np.clip(pixels * (200 / pixels.max()) + 10, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(scaled).save(file, "JPEG", quality=90)
    return file.getvalue()


def make(folder, count):
    """Writes the photographs: 100 of them made, the others the same bytes in other files."""
    files = [photograph(np.random.default_rng(i)) for i in range(100)]
    for i in range(count):
        (Path(folder) / f"{i:05d}.jpg").write_bytes(files[i % len(files)])


def ours(folder, names, order, workers):
    """A function that reads all batches with this pipeline."""
    from lt_jax.data.decoding import Decoding
    from lt_jax.data.folder_source import Files
    from lt_jax.data.streamed import StreamedImages
    from lt_jax.data.workers import Workers

    images = StreamedImages(
        Files(Path(folder), names),
        len(names),
        (SIZE, SIZE, 3),
        decoding=Decoding(SIZE, smallest_area=SMALLEST),
        workers=Workers(workers) if workers else None,
    )
    places = np.arange(order.size).reshape(order.shape)
    draws = np.stack([np.zeros_like(places), places], axis=-1)
    return lambda: images.batches(order, draws)


def torchvision_crop():
    """Its transforms, or None."""
    try:
        from torchvision.transforms import v2
    except (ImportError, RuntimeError):  # the latter if it was built for another torch
        return None
    return v2.Compose([v2.RandomResizedCrop(SIZE, (SMALLEST, 1.0)), v2.PILToTensor()])


def pillow_crop(image):
    """The same in the same steps: parameters by torch's generator, crop, resize, to a tensor."""
    import torch
    from PIL import Image

    width, height = image.size
    for _ in range(10):
        area = width * height * torch.empty(1).uniform_(SMALLEST, 1.0).item()
        log_ratio = torch.log(torch.tensor((3 / 4, 4 / 3)))
        ratio = torch.exp(torch.empty(1).uniform_(log_ratio[0], log_ratio[1])).item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, size=(1,)).item()
            left = torch.randint(0, width - w + 1, size=(1,)).item()
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        top, left = (height - h) // 2, (width - w) // 2
    part = image.crop((left, top, left + w, top + h))
    resized = part.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.as_tensor(np.array(resized, copy=True)).permute((2, 0, 1))


def of_pytorch(folder, names, order, workers):
    """A function that reads all batches with a DataLoader, whose workers stay."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    crop = torchvision_crop() or pillow_crop

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return len(names)

        def __getitem__(self, index):
            with Image.open(os.path.join(folder, names[index])) as image:
                return crop(image.convert("RGB"))

    loader = torch.utils.data.DataLoader(
        Photographs(),
        batch_sampler=order.tolist(),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: iter(loader)


def measure(way, folder):
    """Prints images a second of a second pass: workers have started, and nothing is read ahead."""
    name, workers = way.split(":")
    names = sorted(os.listdir(folder))
    rows = max(len(names) // BATCH, 4)
    order = np.random.default_rng(0).permutation(np.resize(np.arange(len(names)), rows * BATCH))
    order = order.reshape(rows, BATCH)
    batches = (ours if name == "lt_jax" else of_pytorch)(folder, names, order, int(workers))
    start = time.perf_counter()
    first = 0.0
    for batch in batches():
        first = first or time.perf_counter() - start
        assert batch.shape in ((BATCH, SIZE, SIZE, 3), (BATCH, 3, SIZE, SIZE))
    start, used = time.perf_counter(), cpu_seconds()
    count = sum(len(batch) for batch in batches())
    rate = count / (time.perf_counter() - start)
    cpu = 1e3 * (cpu_seconds() - used) / count
    print(json.dumps({"rate": rate, "cpu_ms": cpu, "first_batch_seconds": first}))


def cpu_seconds():
    """Processor time of this process and its workers so far."""
    own = os.times()
    total = own.user + own.system
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def run(way, folder):
    """The same in a process of its own, pinned."""
    way = way.format(cores=len(CORES.value))
    command = ["taskset", "-c", ",".join(CORES.value), sys.executable, __file__]
    done = subprocess.run(
        [*command, f"--measure={way}", f"--folder={folder}"],
        check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(folder):
    """All ways in turns, and what they are compared by."""
    found = {name: [] for name in WAYS}
    loads = []
    for _ in range(ROUNDS.value):
        for name, way in WAYS.items():
            loads.append(os.getloadavg()[0])
            found[name].append(run(way, folder))
    cores = len(CORES.value)
    rates = {name: [r["rate"] / cores for r in each] for name, each in found.items()}
    medians = {name: statistics.median(each) for name, each in rates.items()}
    cpu = {name: statistics.median(r["cpu_ms"] for r in each) for name, each in found.items()}
    first = {n: statistics.median(r["first_batch_seconds"] for r in e) for n, e in found.items()}
    ours, theirs = ([n for n in WAYS if ("pytorch" in n) == who] for who in (False, True))
    return {
        "images_per_second_and_core": medians,
        "cpu_ms_per_image": cpu,
        "rounds": rates,
        "times_pytorch": max(medians[n] for n in ours) / max(medians[n] for n in theirs),
        "times_pytorch_by_cpu_time": min(cpu[n] for n in theirs) / min(cpu[n] for n in ours),
        "first_batch_seconds": first,
        "highest_load_average": max(loads),
    }


def main(argv):
    """Makes the files, measures, writes."""
    if MEASURE.value:
        measure(MEASURE.value, FOLDER.value)
        return
    from lt_jax import environment

    with tempfile.TemporaryDirectory() as made:
        folder = FOLDER.value or made
        if not FOLDER.value:
            make(made, FILES.value)
        sizes = [path.stat().st_size for path in Path(folder).iterdir()]
        result = compare(folder)
    facts = {
        **environment.stamp(),
        "cores": CORES.value,
        "beside": {n: version(n) for n in ("torch", "Pillow", "grain")},
        "transforms": "torchvision" if torchvision_crop() else "as torchvision's, written here",
        "files": {"count": len(sizes), "mean_bytes": statistics.mean(sizes)},
    }
    for name, rate in result["images_per_second_and_core"].items():
        cpu = result["cpu_ms_per_image"][name]
        print(f"{name:22s} {rate:7.1f} images/s and core, {cpu:.2f} ms of a core for an image")
    print(f"{result['times_pytorch']:.2f} times PyTorch's best by images/s,", end=" ")
    print(f"{result['times_pytorch_by_cpu_time']:.2f} times by processor time")
    path = Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts | result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
