"""What no module of the package may contain, as its own syntax trees tell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import drpwatch

PACKAGE = Path(drpwatch.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

UNPICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
LOADS = {"torch.load", "torch.jit.load", "torch.hub.load", "numpy.load", "np.load", "pandas.read_pickle"}
RUNS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def names_imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_there_is_something_to_look_at():
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path):
    tree = ast.parse(path.read_text())
    assert not UNPICKLES & set(names_imported(tree))
    for call in calls(tree):
        assert ast.unparse(call.func) not in LOADS | RUNS, f"{path}:{call.lineno}"
        given = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert given.get("shell") in (None, "False"), f"{path}:{call.lineno}"
        assert given.get("allow_pickle") in (None, "False"), f"{path}:{call.lineno}"
        assert given.get("weights_only") != "False", f"{path}:{call.lineno}"
