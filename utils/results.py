"""The folder of results: it holds those of one run, and a list of what that run wrote."""

import json
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from utils.files import InputError, cannot_write, file_sha256, in_all, lock_folder, write_beside

LIST = "written.jsonl"  # a line for each file, of its SHA-256 and its name
FOLDERS = ("masks", "overlays", "probabilities", "films", "gallery")
SCORES = (
    *("metrics.json", "metrics.md", "per_image.csv", "predictions.png", "precision_recall.png"),
    *("dice_histogram.png", "dice_by_size.png", "sensitivity_by_size.png", "reliability.png"),
    *("failures.png", "worst.png", "index.html"),
)
OWN_TABLE = "pictures.csv"


class Results:
    """A folder whose earlier results go when a run begins to write its own.

    Only files go that stand in the earlier run's list with the bytes that it wrote: a mask that was
    corrected by hand, or any other file, stays. inputs: files and folders that the run reads.
    Raises InputError if any of them would go.
    """

    def __init__(self, folder, inputs=()):
        self.folder = Path(folder)
        self.earlier = self.unchanged()
        read = {Path(path).resolve() for path in inputs}
        for name in self.earlier:
            path = (self.folder / name).resolve()
            if path in read or path.parent in read:
                raise InputError(
                    f"{self.folder / name}: is a result of an earlier run, which this one would"
                    f" remove from {self.folder}; choose another place with --results"
                )

    def unchanged(self):
        """Return the names of the files that the earlier run's list has, as it wrote them."""
        path, names = self.folder / LIST, []
        if not path.is_file():
            return names
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                digest, name = json.loads(line)
                inside = PurePosixPath(name)
            except (ValueError, TypeError):  # the end of a list whose writer was killed
                continue
            file = self.folder / name
            here = not inside.is_absolute() and ".." not in inside.parts
            if here and file.is_file() and file_sha256(file) == digest:
                names.append(name)
        return list(dict.fromkeys(names))

    @contextmanager
    def begin(self, names):
        """Remove the earlier run's results; within the block this run writes its own, `names`.

        Prints a line if anything goes, and if results stay that no list has: of an earlier version
        of the scripts, or changed by hand. Raises InputError if this run would write over these.
        """
        with lock_folder(self.folder):
            earlier = self.unchanged()
            changed = (self.held() & set(names)) - set(earlier)
            if changed:
                raise InputError(
                    f"{self.folder / min(changed)}: was changed since a run wrote it, or is none of"
                    " the last run's; move it away, or choose another place with"
                    f" --results{in_all(len(changed))}"
                )
            try:
                for name in earlier:
                    path = self.folder / name
                    path.unlink()
                    while (path := path.parent) != self.folder and not any(path.iterdir()):
                        path.rmdir()
                (self.folder / LIST).unlink(missing_ok=True)
                strangers = self.held() - set(names)
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            if earlier:
                print(f"{self.folder}: {len(earlier):,} of an earlier run's files are replaced")
            if strangers:
                print(
                    f"Beware: {self.folder / min(strangers)} stays, but is none of this run's"
                    f" results{in_all(len(strangers))}"
                )
            yield

    def held(self):
        """Return the set of the names of results that the folder holds."""
        names = {name for name in (*SCORES, OWN_TABLE) if (self.folder / name).is_file()}
        for folder in FOLDERS:
            entries = (self.folder / folder).rglob("*")
            found = (entry.relative_to(self.folder) for entry in entries if entry.is_file())
            names |= {path.as_posix() for path in found}
        return names

    @contextmanager
    def write(self, name):
        """Yield a path to write to, which becomes the file `name`, as `write_beside` does."""
        with write_beside(self.folder / name) as beside:
            yield beside
            # Before the file is there, so that no interruption leaves one that is not listed
            with open(self.folder / LIST, "a", encoding="utf-8") as file:
                file.write(json.dumps([file_sha256(beside), name]) + "\n")
