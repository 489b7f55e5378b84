"""The folder of results: it holds those of one run, and a list of what that run wrote."""

import json
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from utils.command import InputError, in_all
from utils.files import (
    PART,
    cannot_write,
    check_places,
    file_sha256,
    lock_folder,
    read_file,
    write_beside,
)

LIST = "written.jsonl"  # a line for each file, of its SHA-256 and its name
MAX_LIST = 1_000_000_000  # bytes: what a run over some millions of pictures writes


class Results:
    """A folder whose earlier results give place to those of a run when all of these are there.

    Only files go that stand in the earlier run's list with the bytes that it wrote: a mask that was
    corrected by hand, or any other file, stays. inputs: files and folders that the run reads.
    Raises InputError if any of them would go.
    """

    def __init__(self, folder, inputs=()):
        self.folder, self.written = Path(folder), []
        self.part = self.folder / PART  # where this run's are until all are there
        read = {Path(path).resolve() for path in inputs}

        def is_read(name):
            path = (self.folder / name).resolve()
            return path in read or path.parent in read

        for name in sorted(self.unchanged(is_read)):
            raise InputError(
                f"{self.folder / name}: is a result of an earlier run, which this one would"
                f" remove from {self.folder}; choose another place with --results"
            )

    def earlier(self):
        """Return digest and name of each file that the earlier run's list has and that is there."""
        pairs = []
        for line in self.listed():
            try:
                digest, name = json.loads(line)
                inside = PurePosixPath(name)
            except (ValueError, TypeError):  # a line that somebody has damaged
                continue
            if not inside.is_absolute() and ".." not in inside.parts:
                pairs += [(digest, name)] if (self.folder / name).is_file() else []
        return pairs

    def unchanged(self, chosen=lambda name: True):
        """Return the names of the files that the earlier run's list has, as it wrote them.

        chosen: tells of a name whether the file is looked at, which reads it whole.
        """
        pairs = [(digest, name) for digest, name in self.earlier() if chosen(name)]
        return {name for digest, name in pairs if file_sha256(self.folder / name) == digest}

    @contextmanager
    def begin(self, names):
        """Within the block a run writes its results, `names`, which then replace the earlier ones.

        If the block fails or writes nothing, the earlier ones stay as they were. Prints a line if
        any have gone, and if any stay, since they were changed. Raises InputError if this run would
        write over a file that was changed or that no run wrote, or if another is at work there.
        """
        with lock_folder(self.folder):
            there = {name for name in names if (self.folder / name).is_file()}
            if changed := there - self.unchanged(there.__contains__):
                raise InputError(
                    f"{self.folder / min(changed)}: was changed since a run wrote it, or is none of"
                    " the last run's; move it away, or choose another place with"
                    f" --results{in_all(len(changed))}"
                )
            check_places(self.folder, names)
            shutil.rmtree(self.part, ignore_errors=True)  # of a run that was killed
            try:
                self.part.mkdir()
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            try:
                yield
                try:
                    replaced, changed = self.take_place() if self.written else (0, ())
                except OSError as error:
                    raise cannot_write(self.folder, error) from error
            finally:
                shutil.rmtree(self.part, ignore_errors=True)
        if replaced:
            print(f"{self.folder}: {replaced:,} of an earlier run's files are replaced")
        if changed:
            print(
                f"Beware: {self.folder / min(changed)} stays, but is none of this run's"
                f" results{in_all(len(changed))}"
            )

    def take_place(self):
        """Let what was written take the place of the earlier run's results.

        Returns how many those were, and the set of those that stay, since somebody has changed
        them, or made a file of that name while this run was at work.
        """
        earlier = self.unchanged()
        there = {
            name for _, name in self.earlier() + self.written if (self.folder / name).is_file()
        }
        changed = there - earlier
        lines = sorted(line for line in self.written if line[1] not in changed)
        names, ours = [name for _, name in lines], [json.dumps(line) + "\n" for line in lines]
        # Both lists, until all is in place: no kill leaves a file that is not listed
        self.save_list([*self.listed(), *ours])
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.part / name, self.folder / name)  # a folder may be a link elsewhere
        for name in earlier - set(names):
            path = self.folder / name
            path.unlink()
            with suppress(OSError):  # of one that holds something, or is a link
                while (path := path.parent) != self.folder:
                    path.rmdir()
        self.save_list(ours)
        return len(earlier), changed

    def listed(self):
        """Return the lines of the list that the folder holds, each with its end, if there is one.

        Raises InputError if it cannot be read.
        """
        path = self.folder / LIST
        if not path.is_file():
            return []
        data = read_file(path, "move it away, with the results that it lists", MAX_LIST)
        return data.decode(errors="replace").splitlines(True)

    def save_list(self, lines):
        """Write the list; lines: of JSON, each with its end."""
        with write_beside(self.folder / LIST) as beside:
            beside.write_text("".join(lines), encoding="utf-8")

    @contextmanager
    def write(self, name):
        """Yield a path to write to, for the file `name`; nothing is kept if the block fails."""
        beside = self.part / name
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield beside
                self.written.append([file_sha256(beside), name])
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise cannot_write(self.folder / name, error) from error

    def discard(self, name):
        """Take back the file `name`, which this run has written."""
        (self.part / name).unlink()
        self.written = [line for line in self.written if line[1] != name]
