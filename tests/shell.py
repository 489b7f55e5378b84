"""How the tests run the scripts as a user does."""

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(script, *arguments):
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run_script(script, *arguments, **options):
    return subprocess.run(
        command(script, *arguments), capture_output=True, text=True, check=False, **options
    )


def assert_mistake(done, *words):
    """One line of the script's own, after whatever TensorFlow says when it starts; status 2."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert all(word in line for word in words), line


def read_rows(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
