"""What holds the project together: imports, the README's commands, what git keeps."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data_preprocessing import DEMO_TRAINING

ROOT = Path(__file__).parents[1]
PACKAGES = {"tensorflow", "keras", "numpy", "cv2", "sklearn", "matplotlib", "requests"}
SCRIPTS = {
    "data_preprocessing": {"utils"},
    "model": set(),
    "train": {"model", "utils"},
    "evaluation": {"model", "utils"},
}
# The rooms of utils/, and those that each may use; "" is the ground floor, the files beside them
FLOORS = {
    "": [],
    "data": [""],
    "training": ["", "data"],
    "prediction": ["", "data"],
    "scoring": ["", "data", "prediction"],
    "reporting": ["", "data", "prediction", "scoring"],
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTION = re.compile(r"--[a-z][a-z-]*")
MASK_OPTIONS = (ROOT / "utils/data/sources.py").read_text()  # of two scripts
ROOMS = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "utils").rglob("*.py")
)


def imported_modules(module):
    """Yield the whole names that a module imports; for model.py, but for what it does when run."""
    tree = ast.parse((ROOT / f"{module}.py").read_text())
    if module == "model":
        command = [
            n for n in tree.body if isinstance(n, ast.If) or getattr(n, "name", "") == "main"
        ]
        tree.body = [node for node in tree.body if node not in command]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def imports_of(module):
    """Return the packages that a module imports, but for Python's own."""
    packages = {name.split(".")[0] for name in imported_modules(module)}
    return packages - set(sys.stdlib_module_names)


def floor_of(module):
    """Return the room of a module of the project, such as "data" for utils/data/pictures."""
    parts = module.replace("/", ".").split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_the_six_packages_and_downwards_only(script):
    assert imports_of(script) - PACKAGES == SCRIPTS[script]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_the_six_packages_and_downwards_only(room):
    assert imports_of(room) - PACKAGES <= {"utils"}
    floors = {floor_of(name) for name in imported_modules(room) if name.startswith("utils")}
    assert floors <= {floor_of(room), *FLOORS[floor_of(room)]}


def test_the_checks_of_the_readme_are_those_of_ci():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    line = "ruff check && ruff format --check && pytest"
    assert line in readme
    assert line in ci


def anchors_of(page):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_pictures_files_and_sections_exist(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text())
    for file, anchor in targets:
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors_of(target), anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_commands_take_the_options_that_they_name(page):
    for script, rest in re.findall(r"python (\w+)\.py\b([^`|\n]*)", page.read_text()):
        taken = set(OPTION.findall((ROOT / f"{script}.py").read_text() + MASK_OPTIONS))
        assert set(OPTION.findall(f"{rest} ")) <= taken, rest


def test_the_demo_of_the_readme_is_the_one_that_the_script_tells():
    words = " ".join(map(str, DEMO_TRAINING)).partition(" --checkpoints")[0]
    assert f"python train.py {words} --data data/demo" in (ROOT / "README.md").read_text()


def test_the_places_that_the_readme_names_are_there():
    section = (ROOT / "README.md").read_text().split("## Change things")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [^`|]+ \|([^|]*)\| (`.+`) \|$", section, re.MULTILINE)
    assert len(rows) >= 15
    for names, files in rows:
        paths, folder = [], ROOT
        for file in re.findall(r"`([^`]+)`", files):
            paths.append(ROOT / file if "/" in file else folder / file)
            folder = paths[-1].parent
        assert [path for path in paths if not path.exists()] == []
        for name in re.findall(r"`([^`]+)`", names):
            defined = rf"^(def |class )?{name}\b|^[A-Z_, ]*\b{name}\b.* = "
            assert any(re.search(defined, p.read_text(), re.MULTILINE) for p in paths), name


def test_every_requirement_is_pinned():
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith(("#", "-r"))]
        assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", pin) for pin in pins)


def test_git_keeps_no_data_and_no_large_file():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [f for f in files if f.suffix in {".jpg", ".npy", ".zip"}] == []
    assert [f for f in files if f.exists() and f.stat().st_size >= 40_000_000] == []


def messages_of(module):
    """Yield the texts in a module, with {} for what is filled in."""
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_lines_that_the_readme_explains_are_those_that_appear():
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## When something goes wrong")[1].split("\n## ")[0]
    lines = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
    assert len(lines) == 5
    messages = [text for module in [*SCRIPTS, *ROOMS] for text in messages_of(module)]
    for line in lines:
        for piece in re.split(r" ?\(?\.\.\.\)?", line.replace(" 5 times", " ... times")):
            assert any(piece.strip(" ,") in text for text in messages), piece
