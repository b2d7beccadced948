"""The documentation is complete and correct as far as a program can tell; none of this needs mkdocs."""

import ast
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

from recon import modalities

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = ("operators", "samplers", "recon")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
#: The functions behind the subcommands, and the insides of a modality, whose public names `recon.io` has.
INTERNAL = ("recon.commands", "recon.modalities", "recon.train")
#: Packages whose docstrings have been freed from Sphinx roles.
ROLE_FREE = ("operators", "recon", "samplers")
#: Pages still to be edited.
UNEDITED: tuple[str, ...] = ()
#: Phrases that are not the field's English, and what to write instead.
BANNED = {
    r"\b(?:that|what|which|it|and) came\b|, came\b": "got",
    r"\b(?:every )?so many\b": "the number: N, every N-th, a factor R",
    r"\bshares? of\b": "fraction of",
    r"\b(?:is|are|was|were) told\b": "is conditioned on, is given",
    r"\b(?:leave|take) (?:it|them) away\b": "leave out, remove",
    r"\b(?:how|too) sure\b": "calibration, overconfident",
    r"\bis none of\b": "is not a",
    r"\bof its own\b": "its own, a separate",
    r"\bof others\b": "third-party",
    r"\b(?:tells|knows) nothing\b": "the fact itself",
}
#: The same for the words of the sources: messages, help and docstrings.
IDIOMS = {
    r", came\b|\b(?:that|what|which|it|and|expected .*) came (?!from|with)": "got",
    r"\b(?:every )?so many (?!that\b)": "the number: N, every N-th, a factor R",
    r"\b(?:is|are|was|were|what is) told\b": "is given, is conditioned on",
    r"\bhold next to nothing\b": "carry no signal",
    r"\bthere is none called\b": "unknown ..., choose one of ...",
    r"\bshares? of\b": "fraction of",
    r"\b(?:of|memory of) (?:its|their) own\b": "its own, a separate",
    r"\b(?:networks?|files?|formats?|those) of others\b": "third-party",
    r"\bis none of\b": "is not a",
    r"\b(?:as they|as it) came\b": "original, unchanged",
}


def name(path):
    return str(path.relative_to(ROOT))


def text_of(path):
    return path.read_text(encoding="utf-8")


def promised():
    """Each name of each public `__all__`, as `module.name`."""
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if module.startswith(INTERNAL):
            continue
        for node in ast.parse(text_of(path)).body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                yield from (f"{module}.{name}" for name in ast.literal_eval(node.value) if not name.startswith("__"))


def test_every_public_name_is_in_the_reference():
    entries = [entry for page in PAGES for entry in re.findall(r"^::: (\S+)$", text_of(page), flags=re.MULTILINE)]
    assert len(entries) == len(set(entries)), "a name has two entries"
    shown = {id(pkgutil.resolve_name(entry)) for entry in entries}  # a name may have a second address
    names = list(promised())
    assert len(names) > 120
    missing = [address for address in names if id(pkgutil.resolve_name(address)) not in shown]
    assert not missing, f"not on any page: {missing}"


def test_docstrings_hold_no_sphinx_role():
    # mkdocs shows them literally.
    sources = [path for path in SOURCES if name(path).startswith(ROLE_FREE)]
    assert len(sources) > 200
    assert not [f"{name(path)}: {role}" for path in sources for role in re.findall(r":[a-z]+:`[^`]*`", text_of(path))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_and_files_on_a_page_exist(page):
    text = text_of(page)
    for address in re.findall(r"`((?:operators|samplers|recon)(?:\.[A-Za-z_]\w*)+)\b(?!\.\.\.)", text):
        pkgutil.resolve_name(address)
    for module in re.findall(r"python -m ((?:operators|samplers|recon)[\w.]*)", text):
        pkgutil.resolve_name(module)
    for file in re.findall(r"\b((?:operators|samplers|recon|benchmarks|tests|notebooks|docs)/[\w/.-]*\w)", text):
        assert (ROOT / file).exists(), file
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [page for page in PAGES if name(page) not in UNEDITED], ids=name)
def test_pages_speak_the_english_of_the_field(page):
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for pattern, better in BANNED.items():
        found = [text[max(match.start() - 30, 0) : match.end() + 30] for match in re.finditer(pattern, text, re.I)]
        assert not found, f"{found}; write: {better}"


def words_of(source):
    """Each string of a source, docstrings included, on one line; an f-string with {} for its values."""
    inside = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in node.values)
            words = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            words = node.value
        else:
            continue
        yield " ".join(words.split())


def idioms_in(source):
    """What a source says in words that are not the field's, with the better ones."""
    return [
        f"{words[max(match.start() - 30, 0) : match.end() + 30]!r}; write: {better}"
        for words in words_of(source)
        for pattern, better in IDIOMS.items()
        for match in re.finditer(pattern, words, re.IGNORECASE)
    ]


def test_sources_speak_the_english_of_the_field():
    found = [f"{name(path)}: {idiom}" for path in SOURCES for idiom in idioms_in(text_of(path))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        'raise InputError(f"steps: expected an integer >= 1, came {steps}")',
        'option(1, int, "projections: use every so many of them")',
        'def f():\n    """What a progress callback is told after each step."""',
        'notes.append(f"element(s) {names} hold next to nothing and are left out")',
        """raise InputError(f"sampler: there is none called {name!r}; expected "\n"one of these")""",
        'def f():\n    """Return the share\n    of the energy."""',
        'help="describe, convert or fetch networks of others"',
        'def f():\n    """Return the numbers, each from a stream of its own."""',
        'def f():\n    """Of the coils as they came."""',
    ],
)
def test_an_idiom_in_a_source_is_found(source):
    assert len(idioms_in(source)) == 1


def test_pre_commit_runs_the_pinned_tools():
    pins = set(text_of(ROOT / "constraints.txt").split())
    used = re.findall(r"additional_dependencies: \[(\S+)\]", text_of(ROOT / ".pre-commit-config.yaml"))
    assert len(used) == 3 and set(used) <= pins


def test_tables_are_those_of_the_classes_and_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    told = "\n".join(text_of(page) for page in PAGES)
    found = {name for _, name in re.findall(r"(<!-- options: (\w+) -->)", told)}
    assert found == {"run", "verdicts", *modalities.names()}
    old = [name(page) for page in PAGES if tables.updated(text_of(page)) != text_of(page)]
    assert not old, f"run python docs/tables.py: {old}"
