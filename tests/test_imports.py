"""What may import what (FLOORS), and what an import costs a stranger's pytest run."""

import ast
import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import pytest_llmprobe

PACKAGE = Path(pytest_llmprobe.__file__).parent
NAME = "pytest_llmprobe"
MODULES = {
    ".".join((NAME, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

FLOORS = (  # from the ground up: a folder may import what stands below it, and itself
    {"vocabulary"},
    {"data", "statistics", "figures"},
    {"experiments", "report"},
    {"models"},
    {"whitebox"},
    {"engine"},
    {"search"},
    {"plugin"},
    {"cli"},
)
VOCABULARY = {"case", "errors", "generation", "suite"}
BELOW = {room: set().union(*FLOORS[:floor]) for floor, rooms in enumerate(FLOORS) for room in rooms}
LIGHT = {
    "errors",
    "plugin",
    *(
        f"plugin.{name}"
        for name in (
            "command_line",
            "controller",
            "distribution",
            "ending",
            "argument_types",
            "model_command_line",
            "process",
            "refusal",
            "scratch",
        )
    ),
}
HEAVY = {"torch", "transformers", "accelerate"}


class Import(NamedTuple):
    """One import statement's module."""

    name: str
    line: int
    in_function: bool

    @property
    def root(self):
        return self.name.partition(".")[0]


class Imports(ast.NodeVisitor):
    """Every import of a module; ``from a import b`` gives both a and a.b."""

    def __init__(self):
        self.found = []
        self._depth = 0

    def visit_FunctionDef(self, node):
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_Import(self, node):
        self._add(node, *(alias.name for alias in node.names))

    def visit_ImportFrom(self, node):
        assert node.level == 0, "imports within the package are absolute"
        self._add(node, node.module, *(f"{node.module}.{alias.name}" for alias in node.names))

    def _add(self, node, *names):
        self.found += [Import(name, node.lineno, self._depth > 0) for name in names]


@cache
def imports(module):
    visitor = Imports()
    visitor.visit(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    return visitor.found


def room(module):
    """The folder of the package that a module is in; the package itself stands above all."""
    if module == NAME:
        return "public names"
    first = module.split(".")[1]
    return "vocabulary" if first in VOCABULARY else first


def fresh(code):
    """What a program prints in an interpreter that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def modules_of(*rooms):
    return [module for module in MODULES if room(module) in rooms]


def ours(module):
    """What a module imports of the package; but for its name, which every import of it mentions."""
    return [found for found in imports(module) if found.name in MODULES and found.name != NAME]


def roots(module, at_once=False):
    """The packages that a module imports; ``at_once``: when it is imported itself."""
    return {found.root for found in imports(module) if not (at_once and found.in_function)}


def test_every_folder_has_its_floor_and_the_root_explains_the_product():
    assert {room(module) for module in MODULES} == {*BELOW, "public names"}
    names = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(names) <= 16, names


def test_imports_point_downward():
    upward = [
        f"{module}:{found.line} imports {found.name}"
        for module in modules_of(*BELOW)
        for found in ours(module)
        if room(found.name) not in BELOW[room(module)] | {room(module)}
    ]
    assert upward == []


def test_the_house_has_few_floors():
    """Files of the vocabulary and folders, each one floor above the highest that it imports."""

    def place(module):
        return module.split(".")[1] if module != NAME else NAME

    below = {place(module): set() for module in MODULES}
    for module in MODULES:
        below[place(module)] |= {place(found.name) for found in ours(module)} - {place(module)}

    @cache
    def floor(name):
        return 1 + max(map(floor, below[name]), default=0)

    assert max(map(floor, below)) <= 11, {name: floor(name) for name in below}


def test_no_module_takes_a_name_from_the_package_instead_of_its_home():
    public = {f"{NAME}.{name}" for name in pytest_llmprobe.__all__}
    assert [
        f"{module}:{found.line} imports {found.name}"
        for module in MODULES
        for found in imports(module)
        if found.name in public
    ] == []


def test_the_vocabulary_needs_the_standard_library_only():
    for module in modules_of("vocabulary"):
        assert roots(module) <= sys.stdlib_module_names | {NAME}, module


def test_statistics_need_numpy_at_most():
    for module in modules_of("statistics"):
        assert roots(module) <= sys.stdlib_module_names | {NAME, "numpy"}, module


def test_only_the_plugin_imports_pytest():
    users = {m for m in MODULES if roots(m) & {"pytest", "_pytest", "xdist"}}
    assert users - set(modules_of("plugin")) == set()


def test_what_is_below_the_models_never_imports_torch():
    users = [m for m in modules_of(*BELOW["models"]) if roots(m) & HEAVY]
    assert users == []


def test_torch_is_imported_at_once_only_where_a_model_is_at_work():
    users = {m for m in MODULES if roots(m, at_once=True) & HEAVY}
    programs = {f"{NAME}.cli.reference_card", f"{NAME}.plugin.trainer_callback"}
    at_work = {*modules_of("models", "engine", "whitebox"), *programs}
    assert users - at_work == set()


def test_a_module_fits_into_300_lines():
    lengths = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > 300} == {}


def test_the_hooks_fit_on_two_screens():
    assert len(MODULES[f"{NAME}.plugin"].read_text(encoding="utf-8").splitlines()) < 120


def test_the_checks_above_see_what_they_look_for():
    assert "torch" in roots(f"{NAME}.models.loading", at_once=True)
    assert f"{NAME}.case" in {found.name for found in imports(f"{NAME}.generation")}
    inner = {found.name for found in imports(f"{NAME}.engine.engine") if found.in_function}
    assert f"{NAME}.engine.in_process" in inner


def test_loading_the_plugin_costs_a_strangers_run_nothing():
    loaded = set(fresh(f"import json, sys, {NAME}.plugin; print(json.dumps(list(sys.modules)))"))
    packages = {name.partition(".")[0] for name in loaded}
    assert not packages & {*HEAVY, "numpy", "jsonschema", "huggingface_hub", "tokenizers", "xdist"}
    own = {name for name in loaded if name.partition(".")[0] == NAME}
    assert own == {NAME, *(f"{NAME}.{module}" for module in LIGHT)}
    # What pytest is to import itself must not be there: as plugins, it rewrites their assertions.
    assert not own & {*importlib.import_module(f"{NAME}.plugin").pytest_plugins}


def test_importing_the_package_loads_nothing_of_it():
    code = (
        f"import json, sys, {NAME}; print(json.dumps([m for m in sys.modules if '{NAME}.' in m]))"
    )
    assert fresh(code) == []


def test_names_that_need_no_model_load_no_torch():
    light = "Case, Completion, Engine, GenerateConfig, Request, ScriptedModel, Suite"
    code = f"""
import json, sys
from {NAME} import {light}
Engine(ScriptedModel(str.upper)).generate(["a"], GenerateConfig())
heavy = {{"torch", "transformers", "numpy", "pytest", "jinja2", "asyncio"}}
print(json.dumps(sorted(heavy & sys.modules.keys())))
"""
    assert fresh(code) == []


def test_every_public_name_resolves_to_what_it_is_called():
    code = f"""
import json, {NAME}
print(json.dumps({{name: getattr({NAME}, name).__name__ for name in {NAME}.__all__}}))
"""
    names = fresh(code)
    assert {"Case", "Engine", "GenerateConfig", "load_model"} <= names.keys()
    assert names == {name: name for name in pytest_llmprobe.__all__}


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Cases'"):
        _ = pytest_llmprobe.Cases
    with pytest.raises(ImportError, match="Cases"):
        exec(f"from {NAME} import Cases")


def test_evaluations_and_tests_can_be_collected_together():
    """pytest imports a test file by its base name, so two of one name clash."""
    root = PACKAGE.parent
    files = [path.name for folder in ("evals", "tests") for path in (root / folder).rglob("*.py")]
    shared = {name for name in files if files.count(name) > 1} - {"__init__.py", "conftest.py"}
    assert not shared
