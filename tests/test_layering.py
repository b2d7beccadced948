"""Who may import whom: operators <- samplers <- recon, and each optional library in the one place that wraps it."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("operators", "samplers", "recon")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

# What each package may import beside the standard library; optional engines are named with their one file.
ALLOWED = {
    "operators": {"operators", "torch", "numpy", "scipy", "numba"},
    "samplers": {"operators.arrays", "operators.base", "operators.solve", "operators.errors"}
    | {"samplers", "torch", "numpy", "numba"},
    "recon": {"operators", "samplers", "recon", "torch", "numpy", "scipy", "skimage", "sigpy", "h5py", "tqdm"}
    | {"safetensors", "tomli", "matplotlib", "nibabel", "pydicom", "dask", "distributed", "dask_jobqueue"},
}
# Libraries that are not installed with the core: one file each may import them, inside a function.
OPTIONAL = {
    "matplotlib": {"recon/figure.py", "recon/training/pictures.py"},
    "nibabel": {"recon/files/nifti.py", "recon/files/nifti_read.py"},
    "pydicom": {"recon/files/dicom.py"},
    "dask": {"recon/study/queue_jobs.py"},
    "distributed": {"recon/study/cluster.py", "recon/study/queue_jobs.py", "recon/study/remote.py"},
    "dask_jobqueue": {"recon/study/queue_jobs.py"},
    "numba": {
        *("operators/ultrasound/delays/numba_engine.py", "operators/ultrasound/delays/numba_kernels.py"),
        "samplers/philox_numba.py",
    },
}
# Written in the language of a library, and imported as a whole inside a function.
WRITTEN_FOR = {"operators/ultrasound/delays/numba_kernels.py", "samplers/philox_numba.py"}
# The command line answers before torch is loaded.
TORCH_FREE = (
    "recon/plugins.py",
    "recon/__init__.py",
    "recon/siblings.py",
    "recon/arguments.py",
    "recon/cli.py",
    "recon/printable.py",
    "recon/terminal.py",
    "recon/options.py",
    "recon/run_options.py",
    "recon/modalities/__init__.py",
    *(f"recon/modalities/{path.parent.name}/options.py" for path in sorted(ROOT.glob("recon/modalities/*/options.py"))),
)
#: Shared rooms: everything but the folders of the modalities, the demonstration, and the tables of published networks.
MODALITIES = sorted(path.parent.name for path in ROOT.glob("recon/modalities/*/modality.py"))
OWN = re.compile(rf"(recon/modalities|operators)/({'|'.join(MODALITIES)})/")
SHARED = [
    path
    for path in FILES
    if not OWN.match(path.relative_to(ROOT).as_posix())
    and not path.relative_to(ROOT).as_posix().startswith(("recon/demo.py", "recon/priors/", "operators/__init__.py"))
]
#: Names of published methods, challenges and priors, which no reader takes for a case distinction.
PROPER_NAMES = re.compile(
    r"score.?mri|brain-mri|fastmri|to_fastmri|accelerated MRI|compressed sensing MRI", re.IGNORECASE
)
WORDS = re.compile(
    r"\b(mri|k-?space|coils?|espirit|sinograms?|ct|hounsfield|hu|ultrasound|plane.?waves?|speckle|transducers?|"
    r"beamform\w*|picmus|bart|dicom_write|uff)\b",
    re.IGNORECASE,
)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once for all rules; nobody changes it."""
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def imports_of(path: Path) -> tuple[tuple[str, ast.AST], ...]:
    return tuple(imports(tree_of(path)))


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield node.module or "", node


def permitted(name: str, package: str) -> bool:
    if name.split(".")[0] in sys.stdlib_module_names:
        return True
    return any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[package])


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_arrows_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    wrong = sorted({name for name, _ in imports_of(path) if not permitted(name, package)})
    assert not wrong, f"{path.relative_to(ROOT)} must not import {', '.join(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_optional_libraries_stay_in_their_file_and_in_functions(path: Path) -> None:
    tree = tree_of(path)
    own = path.relative_to(ROOT).as_posix()
    late = {id(node) for scope in ast.walk(tree) if isinstance(scope, ast.FunctionDef) for node in ast.walk(scope)}
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    for name, node in imports_of(path):
        library = name.split(".")[0]
        if library in OPTIONAL and id(node) not in typing_only:
            assert own in OPTIONAL[library], f"{own} imports {library}; that belongs to {OPTIONAL[library]}"
            inside = own in WRITTEN_FOR or id(node) in late
            assert inside, f"{own}: {library} is optional, import it inside the function that needs it"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_command_line_starts_without_heavy_imports(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text("utf-8"))
    light = {"recon", *(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in TORCH_FREE)}
    heavy = [
        found
        for node in tree.body
        for found, _ in imports(node)
        if not isinstance(node, ast.If | ast.FunctionDef | ast.ClassDef)
        and found not in light
        and found.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not heavy


@pytest.mark.parametrize("path", SHARED, ids=[str(path.relative_to(ROOT)) for path in SHARED])
def test_shared_rooms_know_no_modality(path: Path) -> None:
    lines = enumerate(PROPER_NAMES.sub("", path.read_text("utf-8")).splitlines(), 1)
    found = [f"{number}: {line.strip()}" for number, line in lines if WORDS.search(line)]
    assert not found, f"{path.relative_to(ROOT)} names a modality; that belongs to its folder:\n" + "\n".join(found)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_modality_imports_another(path: Path) -> None:
    own = OWN.match(path.relative_to(ROOT).as_posix())
    for name, _ in imports_of(path):
        other = OWN.match(name.replace(".", "/") + "/")
        if own and other:
            assert other[2] == own[2], f"{path.relative_to(ROOT)} imports {name}"


def test_files_do_not_import_each_other_in_a_circle() -> None:
    """Also where the import waits in a function; what only type checkers read does not count."""
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    known = {name.removesuffix(".__init__"): path for name, path in known.items()}
    arrows = {name: _arrows(name, path, known) for name, path in known.items()}
    alive = set(arrows)
    while free := {name for name in alive if not arrows[name] & alive}:
        alive -= free
    assert not alive, f"a circle among {sorted(alive)}"


def _arrows(own: str, path: Path, known: dict[str, Path]) -> set[str]:
    tree = tree_of(path)
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & set(known)) or {str(node.module)}
    return (found & set(known)) - {own}


def test_no_init_file_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), "it would shadow the packages"


def test_the_rule_can_fail() -> None:
    assert not permitted("recon.io", "samplers")
    assert not permitted("samplers", "operators")
    assert not permitted("operators.mri.cartesian", "samplers")
    assert not permitted("operators_of_others", "operators")
    assert permitted("operators.base", "samplers")
