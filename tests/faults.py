"""Faults at random: kills, full disks, damaged files, and whether all comes right again.

    python tests/faults.py                          60 cases
    python tests/faults.py --cases 1000 --seed 7    others, for an hour or two
    python tests/faults.py --faults kill            of one kind alone

Each case lets a command meet one fault, on drawn pictures of 32 x 32 and a network of one filter:
signals, a full disk, a folder without the right to write, a second process beside it, bad servers,
damaged files, weights that are no numbers. It may then end well, or with one line that says what to
do. Where nothing was damaged, the same command must go on, to the very files that it leaves
undisturbed, bit for bit, and to no other. The status is 1 if a case fails.
"""

import argparse
import collections
import csv
import ctypes
import importlib
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from server import serve
from utils.command import InputError
from utils.data.demo import draw_demo_pair
from utils.files import file_sha256

SIGNALS = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}
PATIENCE = 300  # seconds until a child counts as hanging; nothing here takes ten on an idle machine
SMALL = {"data_preprocessing": {"IMAGE_SIZE": 32, "DEMO_PAIRS": 20}}
TRAIN = ["--filters", "8", "--epochs", "3", "2"]


class FaultError(Exception):
    """What a script must not do; its text says what it did."""


class Ended(NamedTuple):
    """How a script ended: its status, negative for a signal, and what it wrote to stderr."""

    status: int
    errors: str
    seconds: float


def bind_root():
    """Let files' rights hold for this process even if it is root: it gives up CAP_DAC_OVERRIDE."""
    libc, header = ctypes.CDLL(None, use_errno=True), struct.pack("Ii", 0x20080522, 0)
    capabilities = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; low, high
    libc.capget(header, capabilities)
    effective, *others = struct.unpack("6I", capabilities.raw)
    if libc.capset(header, struct.pack("6I", effective & ~(1 << 1), *others)):
        raise OSError(ctypes.get_errno(), "capset")


def child(script, arguments, constants, limit, bound, log):
    """Run a script as the shell would, in a process that has loaded TensorFlow before it forked.

    constants: of modules, changed; limit: the bytes to which files may grow, as on a full disk;
    bound: whether by files' rights, which root is not otherwise.
    """
    for number, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [f"{script}.py", *map(str, arguments)]
    module = importlib.import_module(script)
    for name, changed in constants.items():
        for constant, value in changed.items():
            setattr(importlib.import_module(name), constant, value)

    def main():
        Path(f"{log}.begun").touch()  # from here on a signal is answered with a line
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if bound:
            bind_root()
        module.main()

    module.run(main)


def break_off(rows, steps):
    """Take the place of check_health, and end the training in its second phase."""
    if len(rows) == 5:
        raise InputError("broken off")


def poison(after, save_backup, folder, phase, epoch, model, optimizer):
    """Take the place of save_backup, and make the weights no numbers after some epoch."""
    save_backup(folder, phase, epoch, model, optimizer)
    if (phase, epoch) == after:
        model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])


class Bench:
    """A folder to work in, and what each command leaves there undisturbed."""

    def __init__(self, folder, heavy=True):
        self.folder = Path(folder)
        self.context = multiprocessing.get_context("forkserver")
        preloaded = ["data_preprocessing", "utils.drawing", "sklearn.cluster"]
        preloaded += ["sklearn.neighbors", "sklearn.model_selection"]
        preloaded += ["train", "evaluation", "model", "tensorflow"] if heavy else []
        self.context.set_forkserver_preload(preloaded)
        self.seconds = {}
        draw_own(self.folder / "own")
        for command, name in COMMANDS.items() if heavy else [("prepare", "data")]:
            if command == "choose":
                shutil.copytree(self.folder / "trained", self.folder / name)
            self.seconds[name] = self.undisturbed(getattr(self, command)(self.folder / name))
        if heavy:
            broken = {"utils.training.epochs": {"check_health": break_off}}
            self.run(*self.train(self.folder / "midway")[:2], broken)

    def undisturbed(self, command):
        ended = self.run(*command)
        if ended.status:
            raise FaultError(f"{command[0]} fails undisturbed: {ended.errors}")
        return ended.seconds

    def prepare(self, folder):
        return "data_preprocessing", ["--demo", "--data", folder], SMALL

    def fetch(self, folder, server):
        here = {"ARCHIVE_URL": server.url, "ARCHIVE_BYTES": len(server.content)}
        here |= {"ARCHIVE_SHA256": server.sha256, "ARCHIVE_PATH": str(folder / "archive.zip")}
        constants = {"data_preprocessing": SMALL["data_preprocessing"] | here}
        constants["utils.data.download"] = {"BACKOFF": 0.01, "TIMEOUT": (2, 0.5)}
        return "data_preprocessing", ["--data", folder / "data"], constants

    def train(self, folder, data=None, start=None):
        data = data or self.folder / "data"
        options = ["--from", start] if start else []
        return "train", [*TRAIN, "--data", data, "--checkpoints", folder, *options], {}

    def score(self, folder, data=None, network=None):
        data, network = data or self.folder / "data", network or self.folder / "trained"
        options = ["--data", data, "--checkpoints", network, "--results", folder]
        return "evaluation", options, {}

    def choose(self, network):
        options = ["--thresholds", "--data", self.folder / "data", "--checkpoints", network]
        return "evaluation", options, {}

    def segment(self, folder):
        options = ["--checkpoints", self.folder / "trained", "--results", folder]
        return "evaluation", [self.folder / "own", *options], {}

    def start(self, script, arguments, constants, limit=None, bound=False, log="log"):
        """Begin to run a script, and return its process and log."""
        log = self.folder / log
        Path(f"{log}.begun").unlink(missing_ok=True)
        task = (script, arguments, constants, limit, bound, log)
        process = self.context.Process(target=child, args=task)
        process.start()
        return process, log

    def await_start(self, process, log):
        while process.is_alive() and not Path(f"{log}.begun").exists():
            time.sleep(0.01)

    def run(self, script, arguments, constants, stop=None, allowed=(0, 2), **options):
        """Run a script to its end; stop: a signal, and seconds after its beginning to send it."""
        start = time.monotonic()
        process, log = self.start(script, arguments, constants, **options)
        if stop:
            number, seconds = stop
            self.await_start(process, log)
            process.join(seconds)
            if process.is_alive():
                os.kill(process.pid, number)
            allowed = (*allowed, 130, 143, 129, -signal.SIGKILL)
        return self.end(script, process, log, start, allowed)

    def end(self, script, process, log, start, allowed=(0, 2)):
        """Wait for the end of a process, and return how it ended; it may by these statuses."""
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            raise FaultError(f"{script} hangs")
        errors = Path(f"{log}.err").read_text(errors="replace")
        ended = Ended(process.exitcode, errors, time.monotonic() - start)
        lines = errors.splitlines()
        if ended.status not in allowed or len(lines) != (ended.status > 0):
            raise FaultError(f"{script} ends with status {ended.status}: {errors!r}")
        return ended


def same(folder, reference):
    """Raise FaultError unless two folders hold the same, but for durations and threads' order."""
    names, expected = (
        {str(path.relative_to(each)) for path in each.rglob("*") if path.is_file()}
        for each in (folder, reference)
    )
    if names != expected:
        raise FaultError(f"{folder.name} holds {sorted(names ^ expected)} besides or not at all")
    for name in sorted(names):
        ours, theirs = (content(each / name) for each in (folder, reference))
        if ours != theirs:
            raise FaultError(f"{folder.name}/{name} is another one")


def content(path):
    """Return what has to be the same in a file after a fault."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read("model.weights.h5")
    if path.name == "history.csv":
        with open(path, newline="") as file:
            return [row | {"seconds": None} for row in csv.DictReader(file)]
    if path.name == "written.jsonl":
        return sorted(path.read_text().splitlines())
    if path.name == "metrics.json":
        return json.loads(path.read_text())["metrics"]
    return path.read_bytes()


def draw_own(folder):
    """Leave three pictures and a film of ten frames to segment."""
    folder.mkdir()
    film = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for number in range(10):
        picture, _ = draw_demo_pair(f"demo_{number:03d}")
        picture = cv2.resize(picture[..., ::-1], (64, 48))
        film.write(picture)
        if number < 3:
            (folder / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1])
    film.release()


# The faults


def scene(bench, draw, kinds):
    """Return a command at random, the folder that it fills, and what that holds undisturbed."""
    kind, folder = draw.choice(kinds), bench.folder / "case"
    if kind == "train" and draw.random() < 0.5:
        shutil.copytree(bench.folder / "midway", folder)
    if kind == "choose":
        shutil.copytree(bench.folder / "trained", folder)
    return getattr(bench, kind)(folder), folder, bench.folder / COMMANDS[kind]


def kill(bench, draw, kinds):
    """Stop a command, some of them several times, and let it go on."""
    command, folder, reference = scene(bench, draw, kinds)
    names = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        names.append(draw.choice(list(SIGNALS)))
        seconds = draw.uniform(0, bench.seconds[reference.name])
        bench.run(*command, stop=(SIGNALS[names[-1]], seconds))
    bench.undisturbed(command)
    same(folder, reference)
    return f"{reference.name}, {names[0]}", "went on to the same"


def fill(bench, draw, kinds):
    """Let the files of a command grow to a random size only, and then as they like."""
    command, folder, reference = scene(bench, draw, kinds)
    largest = max(path.stat().st_size for path in reference.rglob("*"))
    limit = int(10 ** draw.uniform(3.5, np.log10(1.2 * largest)))
    ended = bench.run(*command, limit=limit)
    if ended.status and not ("File too large" in ended.errors and str(folder) in ended.errors):
        raise FaultError(f"{command[0]} names no place: {ended.errors}")
    bench.undisturbed(command)
    same(folder, reference)
    return reference.name, "went on to the same" if ended.status else "had room enough"


def forbid(bench, draw, kinds):
    """Let a command write where nobody may, and then where it may."""
    command, folder, reference = scene(bench, draw, kinds)
    folder.mkdir(exist_ok=True)
    inside = [path for path in folder.rglob("*") if path.is_dir()]
    for each in (folder, *inside):
        each.chmod(0o555)
    ended = bench.run(*command, bound=True)
    for each in (folder, *inside):
        each.chmod(0o755)
    if ended.status != 2 or not (
        "Permission denied" in ended.errors and str(folder) in ended.errors
    ):
        raise FaultError(f"{command[0]} ends with {ended.status}: {ended.errors}")
    bench.undisturbed(command)
    same(folder, reference)
    return reference.name, "went on to the same"


def beside(bench, draw, kinds):
    """Run a command twice at once, the second a moment after the first."""
    command, folder, reference = scene(bench, draw, kinds)
    start = time.monotonic()
    process, log = bench.start(*command, log="first")
    bench.await_start(process, log)
    process.join(draw.uniform(0, bench.seconds[reference.name]))
    second = bench.run(*command)
    first = bench.end(command[0], process, log, start)
    refused = [ended for ended in (first, second) if ended.status]
    if len(refused) == 2 or any("another process is at" not in each.errors for each in refused):
        raise FaultError(f"{first} beside {second}")
    same(folder, reference)
    return reference.name, "one was refused" if refused else "one after the other"


def explode(bench, draw, kinds):
    """Make all weights NaN after some epoch, or the learning rate 1, and then let it go on."""
    folder, trained = bench.folder / "case", bench.folder / "trained"
    script, arguments, _ = bench.train(folder)
    if draw.random() < 0.5:
        after = draw.choice([(1, 1), (1, 2), (2, 1)])
        epochs = importlib.import_module("utils.training.epochs")
        changed = {"save_backup": partial(poison, after, epochs.save_backup)}
        ended = bench.run(script, arguments, {"utils.training.epochs": changed}, allowed=(1,))
        if "not finite" not in ended.errors or "--fresh" not in ended.errors:
            raise FaultError(f"says no way out: {ended.errors}")
        bench.undisturbed((script, arguments, {}))
        same(folder, trained)
        return f"NaN after epoch {after[1]} of phase {after[0]}", "went on to the same"
    rate = draw.choice([1.0, 1e3, 1e30])
    phases = [phase | {"learning_rate": rate} for phase in importlib.import_module("train").PHASES]
    ended = bench.run(script, arguments, {"train": {"PHASES": phases}}, allowed=(0, 1))
    if ended.status and not ("--fresh" in ended.errors and "lower learning rate" in ended.errors):
        raise FaultError(f"says no way out: {ended.errors}")
    if (folder / "unet.keras").exists():
        bench.undisturbed(bench.score(bench.folder / "case/results", network=folder))
    return "learning rate", "stopped in a line" if ended.status else "ended well"


def fetch(bench, draw, kinds):
    """Let a server be bad, and a kill or a full disk come on top of it; then it is a good one."""
    folder, archive = bench.folder / "case", bench.folder / "archive.zip"
    if not archive.exists():
        make_archive(archive)
        with serve(archive.read_bytes()) as server:
            server.sha256 = file_sha256(archive)
            bench.undisturbed(bench.fetch(bench.folder / "fetched", server))
    bad = ["no ranges", "short", "no length", "gzip", "stall", "announces more", "announces less"]
    bad += ["another range", "page", "endless", "file:///etc/passwd", 404, 503, 200_000, 700_000]
    with serve(archive.read_bytes()) as server:
        server.sha256, command = file_sha256(archive), None
        command = bench.fetch(folder, server)
        for _ in range(draw.choice([1, 2])):
            server.plan = [*draw.choices(bad, k=draw.choice([1, 2, 3])), "whole"]
            first, on_top = server.plan[0], draw.choice(["nothing", "a kill", "no room"])
            stop = (draw.choice(list(SIGNALS.values())), draw.uniform(0, 1))
            limit = draw.randrange(50_000, 1_500_000)
            bench.run(
                *command,
                limit=limit if on_top == "no room" else None,
                stop=stop if on_top == "a kill" else None,
            )
            (folder / "archive.unverified.zip").unlink(missing_ok=True)  # which is told of
        server.plan = []
        bench.undisturbed(command)
    same(folder / "data", bench.folder / "fetched/data")
    return f"{first}, {on_top}", "went on to the same"


def make_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):
            noise = np.random.default_rng(number)
            mask = np.zeros((40, 50), np.uint8)
            mask[10:25, 10 + number : 30] = 255
            for kind, image in (
                ("images", noise.integers(0, 256, (40, 50, 3), np.uint8)),
                ("masks", mask),
            ):
                archive.writestr(
                    f"{kind}/{number:02d}.png", cv2.imencode(".png", image)[1].tobytes()
                )
        archive.writestr("notes.bin", np.random.default_rng(0).bytes(1_000_000))


class Bomb:
    """What makes a folder named burst if it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(BURST),)


BURST = Path(tempfile.gettempdir()) / f"burst-{os.getpid()}"


def array_of(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def damage(bench, draw, kinds):
    """Damage a piece that a script reads: it is refused in a line, or does without."""
    folder, case = bench.folder, bench.folder / "case"
    where = draw.choice(["data", "trained", "midway"])
    shutil.copytree(folder / where, case / where)
    files = sorted(path for path in (case / where).rglob("*") if path.is_file())
    read = [path for path in files if path.suffix != ".png" and path.parent.name != ".part.resume"]
    path = draw.choice(read)
    whole, how = path.read_bytes(), draw.choice(list(DAMAGES))
    if how == "flipped" and path.suffix not in (".keras", ".npz"):
        how = "cut"  # a digit of a table, a pixel that has changed: nobody can tell
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(DAMAGES[how](whole, draw))
    scored = folder / "scored/per_image.csv"  # the report names the data and the network
    command, reference = {
        "data": [
            (bench.train(case / "new", data=case / where), folder / "trained"),
            (bench.score(case / "new", data=case / where), scored),
        ],
        "trained": [
            (bench.score(case / "new", network=case / where), scored),
            (bench.train(case / "new", start=case / where), None),
        ],
        "midway": [(bench.train(case / where), folder / "trained")],
    }[where][draw.randrange(2 if where != "midway" else 1)]
    ended = bench.run(*command)
    if BURST.exists():
        BURST.rmdir()
        raise FaultError("Python objects were unpickled")
    if ended.status and path.name not in ended.errors and path.parent.name not in ended.errors:
        raise FaultError(f"{path.name} is not named: {ended.errors}")
    if not ended.status and reference == scored:
        if content(case / "new" / scored.name) != content(scored):
            raise FaultError("other scores than undisturbed")
    elif not ended.status and reference:
        same(case / where if where == "midway" else case / "new", reference)
    return f"{where}/{path.name}, {how}", "refused in a line" if ended.status else "did without"


DAMAGES = {
    "empty": lambda whole, draw: b"",
    "cut": lambda whole, draw: whole[: draw.randrange(len(whole))],
    "flipped": lambda whole, draw: bytes(b ^ (draw.random() < 5 / len(whole)) for b in whole),
    "a pickle": lambda whole, draw: pickle.dumps(Bomb()),
    "objects": lambda whole, draw: array_of(np.array([Bomb()], object)),
    "floats": lambda whole, draw: array_of(np.zeros((20, 32, 32, 3))),
    "another JSON": lambda whole, draw: b'{"settings": [], "pairs": 3}\n',
    "a folder": None,
    "gone": None,
}
FAULTS = {fault.__name__: fault for fault in (kill, fill, fetch, damage, beside, forbid, explode)}
# Methods of Bench, and the folder of what each leaves undisturbed
COMMANDS = {
    "prepare": "data",
    "train": "trained",
    "score": "scored",
    "segment": "segmented",
    "choose": "chosen",
}


def run_cases(folder, cases, seed, faults=tuple(FAULTS), commands=tuple(COMMANDS), show=print):
    """Run cases in an empty folder; return their count by fault and outcome, and the failures.

    faults: of FAULTS, in turn; commands: of COMMANDS, those that meet a fault other than `fetch`.
    """
    bench = Bench(folder, heavy=commands == tuple(COMMANDS))
    counts, failures = collections.Counter(), []
    for number in range(cases):
        draw, fault = random.Random(f"{seed} {number}"), faults[number % len(faults)]
        try:
            what, outcome = FAULTS[fault](bench, draw, commands)
        except FaultError as failure:
            what, outcome = str(failure), "FAILED"
            failures.append(f"case {number}, {fault}: {failure}")
        counts[fault, outcome] += 1
        show(f"{number + 1}: {fault}: {what}: {outcome}", flush=True)
        shutil.rmtree(bench.folder / "case", ignore_errors=True)
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=tuple(FAULTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = run_cases(folder, arguments.cases, arguments.seed, arguments.faults)
    print(f"\n{arguments.cases} cases, seed {arguments.seed}")
    for (fault, outcome), count in sorted(counts.items()):
        print(f"  {fault:8} {outcome:20} {count:5}")
    print(*failures, f"failed: {len(failures)}", sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    main()
