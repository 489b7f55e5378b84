"""Measure how fast everything is, as ratios, in one run on this machine.

    python tests/benchmark.py                 all rows of the table; draws docs/speed.png
    python tests/benchmark.py --only WORD     the rows whose name has that word
    python tests/benchmark.py --float32       as on a processor without bfloat16

It needs the data set in data/processed/ and the archive that it came from (--archive FILE), the
packages of requirements-dev.txt and, for the rows against it, PyTorch (pip install torch==2.13.0).
Leave the machine alone meanwhile. Each contender has a process of its own; those of a row take
turns, and the row shows the medians of their rates and the median of the turns' ratios.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from data_preprocessing import ARCHIVE_PATH, DATA_DIR, IMAGE_SIZE, write_arrays  # noqa: E402
from shell import read_picture, segment_picture  # noqa: E402
from utils.command import run  # noqa: E402
from utils.data.dataset import load_split, load_summary  # noqa: E402
from utils.data.sources import archive_source  # noqa: E402
from utils.drawing import FIRST, SECOND  # noqa: E402
from utils.files import file_sha256, write_beside  # noqa: E402
from utils.prediction.networks import load_unet  # noqa: E402
from utils.prediction.predictors import make_predictor  # noqa: E402

DATA = ROOT / DATA_DIR
CHART_PATH = ROOT / "docs/speed.png"
BATCH_SIZE = 32
FILTERS = (16, 24, 32, 64)
SHIPPED_FILTERS = 32
STEPS = {16: 22, 24: 12, 32: 6, 64: 2}  # of one measurement, by filters: a few seconds
REPETITIONS = 5
SCORES = {0.80: (5, 120), 0.83: (8, 300)}  # validation Dice: epochs to get there, and the goal
SCORE_FILTERS = 24  # of the network that is to get there


# The contenders: each sets itself up and returns a function that does some work and tells how many
# pictures it took, and in how many seconds if that is not all the time that passed


def network(filters, precision):
    """Return the compiled network of train.py."""
    return compiled(settings_of_train(), filters, precision)


def original_network(filters, precision):
    """Return the compiled network of train.py --original, but in colour: the plain U-Net."""
    return compiled(settings_of_train("--original"), filters, precision)


def settings_of_train(*arguments):
    """Return the settings of `train.py` with these arguments."""
    import train

    sys.argv[1:] = arguments
    return train.collect_settings(train.parse_arguments(), load_summary(DATA))


def compiled(settings, filters, precision):
    """Return the compiled network of a training's settings."""
    import keras
    import tensorflow as tf

    import model
    import train
    from utils.training.kernels import to_train

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(train.SEED)
    plain = model.build_unet(filters=filters, dropped=settings["dropped"])
    unet = to_train(plain, settings["kernels"], precision)
    optimizer = train.make_optimizer(settings, 1, 10_000)
    train.compile_unet(unet, keras.losses.binary_crossentropy, optimizer, train.THRESHOLD)
    return unet


def training_pairs(colours=True):
    """Return train.py's augmented training pairs; colours: whether they change too."""
    import cv2

    import train

    cv2.setNumThreads(1)
    from utils.training.augmentation import Pairs, make_generator

    generator = make_generator(train.AUGMENTATION)
    split = load_split("train", DATA)
    colours = train.COLOURS if colours else {}
    return Pairs(split, BATCH_SIZE, train.WORKERS, generator, colours, (0, 0))


def end_to_end(filters, precision):
    """Train as train.py does."""
    unet, batches = network(filters, precision), training_pairs().dataset().take(STEPS[filters])

    def work():
        unet.fit(batches, shuffle=False, verbose=0)
        return STEPS[filters] * BATCH_SIZE

    return work


def bare_step(filters, precision, way=network):
    """Train the same network on one constant batch: no input work at all."""
    import tensorflow as tf

    unet, pairs = way(filters, precision), training_pairs()
    batches = tf.data.Dataset.from_tensors(pairs.batch(0)).repeat(STEPS[filters])
    batches = batches.with_options(pairs.dataset().options())

    def work():
        unet.fit(batches, shuffle=False, verbose=0)
        return STEPS[filters] * BATCH_SIZE

    return work


def plain_step(filters, precision):
    """Train the plain network with Adam on one constant batch."""
    return bare_step(filters, precision, original_network)


def stock_pairs(augmentation):
    """Yield batches as the original does: two stock generators with one seed, zipped."""
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    split = load_split("train", DATA)
    flows = [
        ImageDataGenerator(**augmentation).flow(array, batch_size=BATCH_SIZE, seed=1)
        for array in (split.images[:].astype(np.float32), split.masks[:].astype(np.float32))
    ]
    while True:
        yield tuple(next(flow) for flow in flows)


def original_way(filters):
    """Train as the original does: float32, two stock generators.

    Its clock runs from the end of the first step to that of the last: the original's long epochs
    have few beginnings and ends, and this is to be fair to it.
    """
    import keras

    import train

    unet = original_network(filters, "float32")
    pairs = stock_pairs(train.ORIGINAL["augmentation"])
    steps, ends = 1 + STEPS[filters], []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: ends.append(time.perf_counter())
    )

    def work():
        ends.clear()
        unet.fit(pairs, steps_per_epoch=steps, callbacks=[clock], verbose=0)
        return (steps - 1) * BATCH_SIZE, ends[-1] - ends[0]

    return work


def augmentation():
    """Make augmented batches, with nobody to use them; stock generators leave colours alone."""
    batches = training_pairs(colours=False).dataset()

    def work():
        return sum(len(images) for _ in range(5) for images, _ in batches)

    return work


def stock_augmentation():
    """Make the same augmented batches with two stock generators."""
    import train

    pairs = stock_pairs(train.AUGMENTATION)
    return lambda: sum(len(next(pairs)[0]) for _ in range(20))


def prediction(filters, precision):
    """Predict batches as evaluation.py does."""
    predict, images = predictor(filters, precision), training_pairs().batch(0)[0]

    def work():
        return sum(len(predict(images)) for _ in range(STEPS[filters]))

    return work


def predictor(filters, precision):
    """Return the function that evaluation.py predicts with."""
    import model

    path = Path(tempfile.mkdtemp()) / "unet.keras"
    model.build_unet(filters=filters).save(path)
    return make_predictor(load_unet(path, precision))


def one_picture(filters, precision, archive):
    """Segment the archive's pictures as they are, file to mask, one after the other."""
    import cv2

    import evaluation

    predict, files = predictor(filters, precision), []
    source, folder = archive_source(archive), Path(tempfile.mkdtemp())
    for name in source.names[:50]:
        files.append(folder / f"{name}.jpg")
        cv2.imwrite(str(files[-1]), source.decode(name)[0][..., ::-1])

    def segment(file):
        segment_picture(predict, read_picture(file), IMAGE_SIZE, evaluation.THRESHOLD)
        return 1

    return lambda: (1, 1 / statistics.median(rate_of(lambda f=f: segment(f)) for f in files))


def own_files(archive):
    """Return 612 pictures of 384 x 288, as JPEG files by their names, made of the archive's."""
    import cv2

    source, folder = archive_source(archive), Path(tempfile.mkdtemp())
    files = {}
    for name in source.names[:612]:
        files[name] = folder / f"{name}.jpg"
        picture = cv2.resize(source.decode(name)[0], (384, 288), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(files[name]), picture[..., ::-1])
    return files


def own_pictures(precision, archive):
    """Segment the pictures of a folder as evaluation.py does, files to files."""
    import evaluation

    predict, files = shipped_predictor(precision), own_files(archive)
    segmenter = evaluation.Segmenter(
        predict, IMAGE_SIZE, evaluation.THRESHOLD, 0, evaluation.BATCH_SIZE
    )

    def work():
        results = evaluation.Results(tempfile.mkdtemp())
        with results.begin([]):
            evaluation.segment_pictures(files, segmenter, results, False)
        return len(files)

    return work


def own_pictures_one_by_one(precision, archive):
    """Leave the same masks and outlines in a plain loop, one picture after the other, in PNG."""
    import cv2

    import evaluation
    from utils.data.pictures import decode_image, read_bytes
    from utils.drawing import PREDICTION, outline

    predict, files = shipped_predictor(precision), own_files(archive)

    def work():
        folder = Path(tempfile.mkdtemp())
        for name, file in files.items():
            picture = decode_image(read_bytes(file), file, cv2.IMREAD_COLOR_RGB)
            mask = segment_picture(predict, picture, IMAGE_SIZE, evaluation.THRESHOLD)
            drawn = outline(picture, [(mask[..., None] // 255, PREDICTION)], scale=1)
            cv2.imwrite(str(folder / f"{name}.mask.png"), mask)
            cv2.imwrite(str(folder / f"{name}.png"), drawn[..., ::-1])
        return len(files)

    return work


def film(precision, archive):
    """Outline a film of 300 frames of 720 x 576 as evaluation.py does, film to film."""
    import cv2

    import evaluation

    predict, source = shipped_predictor(precision), archive_source(archive)
    path, names = Path(tempfile.mkdtemp()) / "film.mp4", source.names[:300]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (720, 576))
    for name in names:
        picture = cv2.resize(source.decode(name)[0], (720, 576), interpolation=cv2.INTER_AREA)
        writer.write(picture[..., ::-1])
    writer.release()
    segmenter = evaluation.Segmenter(
        predict, IMAGE_SIZE, evaluation.THRESHOLD, 0, evaluation.BATCH_SIZE
    )

    def work():
        results = evaluation.Results(tempfile.mkdtemp())
        watch = evaluation.Watch(evaluation.ALARM_BEGINS, evaluation.ALARM_ENDS)
        with results.begin([]):
            evaluation.segment_film(path, "film", segmenter, watch, results)
        return len(names)

    return work


def shipped_predictor(precision):
    """Return the predictor of the shipped network, whose masks are those of polyps."""
    import evaluation

    folder = ROOT / evaluation.SHIPPED_FOR_PICTURES
    network = load_unet(folder / "unet.keras", precision)
    assert network.get_layer("encoder1_a").filters == SHIPPED_FILTERS
    return make_predictor(network)


def preparation(archive):
    """Make arrays of 1,000 pairs from the archive as data_preprocessing.py does."""
    source, folder = archive_source(archive), Path(tempfile.mkdtemp())

    def work():
        write_arrays(source, folder, describe=False)
        return len(source.names)

    return work


def plain_preparation(archive):
    """Make the same arrays in a plain loop of one thread."""
    import cv2

    source, folder = archive_source(archive), Path(tempfile.mkdtemp())
    cv2.setNumThreads(1)
    size = (IMAGE_SIZE, IMAGE_SIZE)

    def work():
        images, masks = [], []
        for name in source.names:
            picture, mask = source.decode(name)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
            images.append(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
            masks.append((mask >= 128).astype(np.uint8)[..., None])
        np.save(folder / "images.npy", np.stack(images))
        np.save(folder / "masks.npy", np.stack(masks))
        return len(images)

    return work


def torch_unet(filters):
    """Return the same network in PyTorch, channels last."""
    import torch
    from torch import nn

    def two_convolutions(before, after):
        return nn.Sequential(
            *(nn.Conv2d(before, after, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(after, after, 3, padding=1), nn.ReLU()),
        )

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [filters * 2**block for block in range(5)]
            self.encoder = nn.ModuleList(map(two_convolutions, [3, *widths[:3]], widths[:4]))
            self.bridge = two_convolutions(widths[3], widths[4])
            self.up = nn.ModuleList(
                nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[3::-1]
            )
            self.decoder = nn.ModuleList(two_convolutions(2 * w, w) for w in widths[3::-1])
            self.polyp = nn.Conv2d(filters, 1, 1)

        def forward(self, x):
            skips = []
            for block in self.encoder:
                skips.append(block(x))
                x = nn.functional.max_pool2d(skips[-1], 2)
            x = self.bridge(x)
            for up, block in zip(self.up, self.decoder, strict=True):
                x = block(torch.cat([up(x), skips.pop()], dim=1))
            return self.polyp(x)

    torch.manual_seed(0)
    return UNet().to(memory_format=torch.channels_last)


def torch_batch():
    """Return a batch of pictures and masks as PyTorch tensors, channels last."""
    import torch

    split = load_split("train", DATA)
    images = torch.from_numpy(split.images[:BATCH_SIZE]).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = torch.from_numpy(split.masks[:BATCH_SIZE]).permute(0, 3, 1, 2).float()
    return images.contiguous(memory_format=torch.channels_last), masks


def torch_step(filters, precision, way):
    """Train it on one constant batch. way: "eager" or "compiled"."""
    import torch

    unet = torch_unet(filters)
    forward = torch.compile(unet) if way == "compiled" else unet
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3, fused=True)
    images, masks = torch_batch()

    def work():
        for _ in range(STEPS[filters]):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
                logits = forward(images)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), masks)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
        return STEPS[filters] * len(images)

    return work


def torch_prediction(filters, precision, way):
    """Predict batches with it."""
    import torch

    unet = torch_unet(filters).eval()
    forward = torch.compile(unet) if way == "compiled" else unet
    images, _ = torch_batch()

    def work():
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"),
        ):
            for _ in range(STEPS[filters]):
                torch.sigmoid(forward(images).float()).numpy()
        return STEPS[filters] * len(images)

    return work


# The processes that the contenders work in


def serve(contender, *arguments):
    """Measure a contender for each line on stdin; print its rate and peak memory in MB."""
    with contextlib.redirect_stdout(sys.stderr):
        work = globals()[contender](*arguments)
        work()  # warm up
    for _ in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            rate = rate_of(work)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([rate, peak]), flush=True)


def rate_of(work):
    """Return the pictures per second of one call of a contender's function."""
    begin = time.perf_counter()
    done = work()
    pictures, seconds = done if isinstance(done, tuple) else (done, time.perf_counter() - begin)
    return pictures / seconds


class Contender:
    """A process that measures on demand."""

    def __init__(self, *call):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", json.dumps(call)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | {"TMPDIR": self.folder.name},
        )

    def measure(self):
        """Return the rate in pictures per second, and the process's peak memory in MB."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise RuntimeError(f"a contender failed:\n{self.errors.read()[-2000:]}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def compare(ours, *others, repetitions=REPETITIONS):
    """Let contenders take turns; return ours against the fastest other.

    Each is a tuple of a function's name and its arguments. Returns a dict of the medians of
    `rate` and `other_rate`, the median `ratio` of the turns, and the peaks of memory.
    """
    contenders = [Contender(*call) for call in (ours, *others)]
    for contender in contenders:
        contender.measure()  # one after the other through its setting up
    turns = [[contender.measure() for contender in contenders] for _ in range(repetitions)]
    for contender in contenders:
        contender.close()
    rates = np.array(turns)[..., 0]
    medians = np.median(rates, axis=0)
    best = 1 + int(np.argmax(medians[1:])) if others else 0
    return {
        "rate": medians[0],
        "other_rate": medians[best],
        "ratio": statistics.median(rates[:, 0] / rates[:, best]),
        "peak": turns[-1][0][1],
        "other_peak": turns[-1][best][1],
    }


# What is not a rate


def start_up():
    """Return the seconds from `python train.py` to the first step, all and after the import."""
    code = """
import sys, time
import tensorflow
imported = time.time()
import train
def first_step(self, batch, logs=None):
    print("first step", time.time(), imported, flush=True)
    sys.exit()
import keras
keras.callbacks.LambdaCallback.on_train_batch_end = first_step
train.run(train.main)
"""
    seconds = []
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.time()
            arguments = ["--data", str(DATA), "--checkpoints", folder]
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments, "--batch-size", str(BATCH_SIZE)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        line = next(line for line in done.stdout.splitlines() if line.startswith("first step"))
        first, imported = map(float, line.split()[2:])
        seconds.append((first - begin, first - imported))
    return np.median(seconds, axis=0)


def time_to_score(score, epochs):
    """Return after how many seconds and pictures SCORE_FILTERS get to a validation Dice.

    epochs: of the first phase, over which the learning rate falls. The pictures are None if it does
    not get there.
    """
    from utils.training.history import read_history

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--filters", str(SCORE_FILTERS), "--epochs", str(epochs), "0"]
        arguments += ["--data", str(DATA), "--checkpoints", folder]
        begin = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        reached = []
        while not reached and process.poll() is None:
            time.sleep(0.2)
            rows = read_history(Path(folder) / "history.csv")
            reached = [row["epoch"] for row in rows if row["val_dice_score"] >= score]
        seconds = time.monotonic() - begin
        process.kill()
        process.wait()
    return seconds, reached[0] * len(load_split("train", DATA).names) if reached else None


def memory_of_an_epoch(pairs):
    """Return train.py's peak memory in MB in an epoch over a made-up data set of `pairs` pairs."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make_up_data_set(data, pairs)
        arguments = ["--filters", "8", "--epochs", "1", "0", "--batch-size", str(BATCH_SIZE)]
        arguments += ["--data", str(data), "--checkpoints", str(Path(folder) / "checkpoints")]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"train.py failed on {pairs} pairs")
        return usage.ru_maxrss / 1024


def make_up_data_set(folder, pairs):
    """Write a data set of random pictures; a twentieth is for validation, one pair for testing."""
    folder.mkdir()
    random = np.random.default_rng(0)
    shape = (pairs, IMAGE_SIZE, IMAGE_SIZE)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, 3))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (*shape, 1))
    for begin in range(0, pairs, 500):
        images[begin : begin + 500] = random.integers(0, 256, images[:500].shape, np.uint8)
        masks[begin : begin + 500] = images[begin : begin + 500, ..., :1] < 40
    splits = ["train"] * (pairs - pairs // 20 - 1) + ["validation"] * (pairs // 20) + ["test"]
    lines = [f"{row},{row},{split},0\n" for row, split in enumerate(splits)]
    splits = folder / "splits.csv"
    splits.write_text("name,group,split,fold\n" + "".join(lines))
    counts = {"all": pairs} | {split: splits.count(split) for split in set(splits)}
    summary = {"source": "made up", "image_size": IMAGE_SIZE, "pairs": counts}
    summary |= {"polyp_fraction": dict.fromkeys(counts, 0.16), "sha256": str(pairs)}
    summary["splits_sha256"] = file_sha256(splits)
    (folder / "dataset.json").write_text(json.dumps(summary))


# The table


def describe_processor():
    """Return the processor's name, its cores and its flags for bfloat16."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    bfloat16 = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return f"{os.cpu_count()} x {name}, {', '.join(bfloat16) or 'no bfloat16'}"


def rows_of_rates(archive, precision, torch):
    """Return the rows that compare rates: name, our contender, the others, and the goal."""
    fast = precision != "float32"
    ways = [(way,) for way in ("eager", "compiled")] if torch else []
    rows = []
    for filters in (64,) if fast else (16, 64):
        name = f"training end to end, {filters} filters / the original's way"
        ours, goal = ("end_to_end", filters, precision), 6.5 if fast else 1.15
        rows.append((name, ours, [("original_way", filters)], goal))
    for filters, goal in zip(FILTERS, (0.95, 0.96, 0.97, 0.98), strict=True):
        ours, bare = ("end_to_end", filters, precision), ("bare_step", filters, precision)
        rows.append((f"training end to end, {filters} filters / its bare step", ours, [bare], goal))
    for filters in FILTERS:
        ours, plain = ("bare_step", filters, precision), ("plain_step", filters, precision)
        rows.append((f"training step, {filters} filters / the plain U-Net's", ours, [plain], 0.95))
    for kind, ours, goal in (("step", "plain_step", 1.15), ("prediction", "prediction", 1.0)):
        for filters in FILTERS if torch else ():
            others = [(f"torch_{kind}", filters, precision, *way) for way in ways]
            what = "plain training step" if kind == "step" else kind
            name = f"{what}, {filters} filters / PyTorch"
            rows.append((name, (ours, filters, precision), others, goal if fast else 1.0))
    rows.append(
        ("augmented pairs / two stock generators", ("augmentation",), [("stock_augmentation",)], 8)
    )
    own, what = ("own_pictures", precision, archive), f"612 own pictures, {SHIPPED_FILTERS} filters"
    loop = [("own_pictures_one_by_one", precision, archive)]
    rows.append((f"{what}, to files / a plain loop", own, loop, 3))
    bare = [("prediction", SHIPPED_FILTERS, precision)]
    rows.append((f"{what}, to files / bare prediction", own, bare, 0.6))
    prepared = ("preparation", archive), [("plain_preparation", archive)]
    rows.append(("preparing 1,000 pairs, archive to arrays / a plain loop", *prepared, 1.7))
    return rows


def measure(archive, precision, torch, only):
    """Measure the rows whose name has `only` in it, print each, and return the ratios by name."""
    ratios, peaks = {}, {}

    def show(name, text, goal):
        print(f"{name:56} {text:36} {goal}", flush=True)

    for name, ours, others, goal in rows_of_rates(archive, precision, torch):
        if only in name:
            result = compare(ours, *others)
            ratios[name] = result["ratio"], goal
            rates = f"{result['rate']:,.1f} / {result['other_rate']:,.1f} per s"
            show(name, f"{rates:26} = {result['ratio']:.2f}", f"at least {goal}")
            if ours[1:2] == (64,):
                peaks[ours[0]], peaks[others[0][0]] = result["peak"], result["other_peak"]
    if {"end_to_end", "torch_step"} <= peaks.keys():
        ours, theirs = peaks["end_to_end"], peaks["torch_step"]
        text = f"{ours:,.0f} / {theirs:,.0f} MB"
        show(
            "peak memory, training, 64 filters / PyTorch's",
            f"{text:26} = {ours / theirs:.2f}",
            "at most 1.4, and 3,000 MB",
        )
    name = "one picture, 64 filters, file to mask"
    if only in name:
        rate = compare(("one_picture", 64, precision, archive))["rate"]
        show(name, f"{1000 / rate:.0f} ms", "under 40 ms")
    name = f"a film of 720 x 576, {SHIPPED_FILTERS} filters, film to film"
    if only in name:
        rate = compare(("film", precision, archive))["rate"]
        show(name, f"{rate:.0f} frames per s", "at least 25")
    name = "from python train.py to the first step"
    if only in name:
        whole, after_import = start_up()
        show(name, f"{whole:.1f} s, {after_import:.1f} s after the import", "under 15 s, 9 s")
    for score, (epochs, goal) in SCORES.items():
        command = f"python train.py --filters {SCORE_FILTERS} --epochs {epochs} 0"
        name = f"from {command} to validation Dice {score:.2f}"
        if only in name:
            seconds, pictures = time_to_score(score, epochs)
            seen = f"{pictures:,} pictures seen" if pictures else "and not there"
            show(name, f"{seconds:.0f} s, {seen}", f"under {goal} s")
    name = "memory that 20,000 pairs take more than 1,000"
    if only in name:
        grown = memory_of_an_epoch(20_000) - memory_of_an_epoch(1_000)
        arrays = 19_000 * IMAGE_SIZE**2 * 4 / 2**20
        show(name, f"{grown:,.0f} of {arrays:,.0f} MB", "under 10 %")
    return ratios


def draw_chart(ratios, processor):
    """Draw docs/speed.png: how many times as fast each row is as what it is compared with."""
    figure = Figure((9, 0.36 * len(ratios) + 1.5), layout="constrained")
    axes = figure.subplots()
    names = list(ratios)[::-1]
    values, goals = np.array([ratios[name] for name in names]).T
    axes.barh(names, values - 1, left=1, color=FIRST)
    axes.plot(goals, names, "D", color=SECOND, label="goal, on a processor with AMX")
    for row, value in enumerate(values):
        axes.text(1.01, row, f"{value:.2f}", va="center", transform=axes.get_yaxis_transform())
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.8, max(*values, *goals) * 1.15)
    axes.set_xticks([1, 2, 5, 10], labels=["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_xlabel("times as fast (log scale)")
    axes.legend(loc="center right")
    figure.suptitle(processor)
    with write_beside(CHART_PATH) as beside:
        figure.savefig(beside, dpi=100)


def main():
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", metavar="FILE", default=ARCHIVE_PATH)
    parser.add_argument("--only", metavar="WORD", default="")
    parser.add_argument("--float32", action="store_true", help="as on a CPU without bfloat16")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve))
        return
    load_split("train", DATA)
    archive_source(arguments.archive)
    from utils.devices import choose_precision

    precision = "float32" if arguments.float32 else choose_precision()
    processor = f"{describe_processor()}; network in {precision}, batch {BATCH_SIZE}"
    torch = importlib.util.find_spec("torch") is not None
    print(f"{processor}; medians of {REPETITIONS} turns")
    if not torch:
        print("PyTorch is not installed: the rows against it are left out")
    ratios = measure(arguments.archive, precision, torch, arguments.only)
    if not arguments.only and not arguments.float32:
        draw_chart(ratios, processor)


if __name__ == "__main__":
    run(main)
