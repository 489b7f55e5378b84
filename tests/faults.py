"""Faults at random: kills, full disks and damaged files, and whether all comes right again.

    python tests/faults.py                          60 cases
    python tests/faults.py --cases 1000 --seed 7    others, for an hour or two

Each case lets a script meet one fault, on drawn pictures of 32 x 32 and a network of one filter.
It may then end well, or with one line that says what to do. Where nothing was damaged, the same
command must go on, to the very files that it leaves undisturbed, bit for bit, and to no other.
The status is 1 if a case fails.
"""

import argparse
import collections
import csv
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
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from server import serve
from utils.files import InputError, file_sha256

SIGNALS = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}
PATIENCE = 300  # seconds until a child counts as hanging; nothing here takes ten on an idle machine
SMALL = {"data_preprocessing": {"IMAGE_SIZE": 32, "DEMO_PAIRS": 20}}
TRAIN = ["--filters", "1", "--epochs", "3", "2"]


class FaultError(Exception):
    """What a script must not do; its text says what it did."""


class Ended(NamedTuple):
    """How a script ended: its status, negative for a signal, and what it wrote to stderr."""

    status: int
    errors: str
    seconds: float


def child(script, arguments, constants, limit, log):
    """Run a script as the shell would, in a process that has loaded TensorFlow before it forked.

    constants: of modules, changed; limit: the bytes to which files may grow, as on a full disk.
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
        module.main()

    module.run(main)


def break_off(rows, phase):
    """Take the place of train.check_health, and end the training in its second phase."""
    if len(rows) == 5:
        raise InputError("broken off")


class Bench:
    """A folder to work in, and what each script leaves there undisturbed."""

    def __init__(self, folder, heavy=True):
        self.folder, self.log = Path(folder), Path(folder) / "log"
        self.context = multiprocessing.get_context("forkserver")
        preloaded = ["data_preprocessing", "utils.figures", "sklearn.cluster"]
        preloaded += ["sklearn.neighbors", "sklearn.model_selection"]
        preloaded += ["train", "evaluation", "model", "tensorflow"] if heavy else []
        self.context.set_forkserver_preload(preloaded)
        self.seconds = {}
        self.undisturbed(self.prepare(self.folder / "data"))
        if heavy:
            self.undisturbed(self.train(self.folder / "trained"))
            self.undisturbed(self.evaluate(self.folder / "scored"))
            broken = {"train": {"check_health": break_off}}
            self.run(*self.train(self.folder / "midway")[:2], broken)

    def undisturbed(self, command):
        ended = self.run(*command)
        if ended.status:
            raise FaultError(f"{command[0]} fails undisturbed: {ended.errors}")
        self.seconds[command[0]] = ended.seconds

    def prepare(self, folder):
        return "data_preprocessing", ["--demo", "--data", folder], SMALL

    def fetch(self, folder, server):
        here = {"ARCHIVE_URL": server.url, "ARCHIVE_BYTES": len(server.content)}
        here |= {"ARCHIVE_SHA256": server.sha256, "ARCHIVE_PATH": str(folder / "archive.zip")}
        constants = {"data_preprocessing": SMALL["data_preprocessing"] | here}
        constants["utils.download"] = {"BACKOFF": 0.01, "TIMEOUT": (2, 0.5)}
        return "data_preprocessing", ["--data", folder / "data"], constants

    def train(self, folder, data=None, start=None):
        data = data or self.folder / "data"
        options = ["--from", start] if start else []
        return "train", [*TRAIN, "--data", data, "--checkpoints", folder, *options], {}

    def evaluate(self, folder, data=None, network=None):
        data, network = data or self.folder / "data", network or self.folder / "trained"
        options = ["--data", data, "--checkpoints", network, "--results", folder]
        return "evaluation", options, {}

    def run(self, script, arguments, constants, limit=None, stop=None):
        """Run a script to its end; stop: a signal, and seconds after its beginning to send it."""
        begun = Path(f"{self.log}.begun")
        begun.unlink(missing_ok=True)
        start = time.monotonic()
        task = (script, arguments, constants, limit, self.log)
        process = self.context.Process(target=child, args=task)
        process.start()
        if stop:
            number, seconds = stop
            while process.is_alive() and not begun.exists():
                time.sleep(0.01)
            process.join(seconds)
            if process.is_alive():
                os.kill(process.pid, number)
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            raise FaultError(f"{script} hangs")
        errors = Path(f"{self.log}.err").read_text(errors="replace")
        ended = Ended(process.exitcode, errors, time.monotonic() - start)
        allowed = {0, 2} | ({130, 143, 129, -signal.SIGKILL} if stop else set())
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


# The faults


def scene(bench, draw, kinds):
    """Return a command at random, the folder that it fills, and what that holds undisturbed."""
    script, folder = draw.choice(kinds), bench.folder / "case"
    if script == "train" and draw.random() < 0.5:
        shutil.copytree(bench.folder / "midway", folder)
    command, reference = {
        "data_preprocessing": (bench.prepare, "data"),
        "train": (bench.train, "trained"),
        "evaluation": (bench.evaluate, "scored"),
    }[script]
    return command(folder), folder, bench.folder / reference


def kill(bench, draw, kinds):
    """Stop a script, some of them several times, and let it go on."""
    command, folder, reference = scene(bench, draw, kinds)
    names = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        names.append(draw.choice(list(SIGNALS)))
        seconds = draw.uniform(0, bench.seconds[command[0]])
        bench.run(*command, stop=(SIGNALS[names[-1]], seconds))
    bench.undisturbed(command)
    same(folder, reference)
    return f"{command[0]}, {names[0]}", "went on to the same"


def fill(bench, draw, kinds):
    """Let the files of a script grow to a random size only, and then as they like."""
    command, folder, reference = scene(bench, draw, kinds)
    largest = max(path.stat().st_size for path in reference.rglob("*"))
    limit = int(10 ** draw.uniform(3.5, np.log10(1.2 * largest)))
    ended = bench.run(*command, limit=limit)
    if ended.status and not ("File too large" in ended.errors and str(folder) in ended.errors):
        raise FaultError(f"{command[0]} names no place: {ended.errors}")
    bench.undisturbed(command)
    same(folder, reference)
    return command[0], "went on to the same" if ended.status else "had room enough"


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
            (bench.evaluate(case / "new", data=case / where), scored),
        ],
        "trained": [
            (bench.evaluate(case / "new", network=case / where), scored),
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
FAULTS = {fault.__name__: fault for fault in (kill, fill, fetch, damage)}
SCRIPTS = ["data_preprocessing", "train", "evaluation"]


def run_cases(folder, cases, seed, faults=tuple(FAULTS), scripts=SCRIPTS, show=print):
    """Run cases in an empty folder; return their count by fault and outcome, and the failures.

    faults: of FAULTS, in turn; scripts: those that are killed or meet a full disk.
    """
    bench = Bench(folder, heavy=scripts == SCRIPTS)
    counts, failures = collections.Counter(), []
    for number in range(cases):
        draw, fault = random.Random(f"{seed} {number}"), faults[number % len(faults)]
        try:
            what, outcome = FAULTS[fault](bench, draw, scripts)
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = run_cases(folder, arguments.cases, arguments.seed)
    print(f"\n{arguments.cases} cases, seed {arguments.seed}")
    for (fault, outcome), count in sorted(counts.items()):
        print(f"  {fault:8} {outcome:20} {count:5}")
    print(*failures, f"failed: {len(failures)}", sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    main()
