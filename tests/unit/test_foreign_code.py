"""Nothing that is read is run: no module unpickles, and every model is loaded without the code of its folder.

Ray Tune unpickles its own state of a sweep (`Tuner.restore`), which is said at `unsee sweep --resume`. What ranks of a run send each
other is pickled: by torch's collectives of objects, and by distributed/one_module.py.
"""

from __future__ import annotations

import ast
from pathlib import Path

import unsee_dist

PACKAGE = Path(unsee_dist.__file__).parent
UNPICKLE = {
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "cloudpickle.load",
        "cloudpickle.loads",
        "dill.load",
    ),
    *("joblib.load", "torch.load", "marshal.loads", "shelve.open", "pandas.read_pickle", "np.memmap.load"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"),
}


FROM_A_RANK = {"distributed/one_module.py": ["pickle.Unpickler"]}  # never from a file


def calls(source: str) -> list[tuple[str, ast.Call]]:
    """The calls of a module by their dotted names, as written."""
    tree = ast.parse(source)
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def says(call: ast.Call, name: str, value: bool) -> bool:
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is value
        for word in call.keywords
    )


def faults(source: str) -> list[str]:
    """What reads a file of others as code."""
    found = []
    for name, call in calls(source):
        loads = [name, *map(ast.unparse, call.args[:1])] if name == "partial" else [name]
        if name in UNPICKLE:
            found.append(name)
        if name in ("np.load", "numpy.load") and not says(call, "allow_pickle", False):
            found.append(name)
        model = any(each.endswith(".from_pretrained") for each in loads)
        if name == "SentenceTransformer":
            model = not any(word.arg == "modules" for word in call.keywords)
        if model and not says(call, "trust_remote_code", False):
            found.append(f"{name} without trust_remote_code=False")
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return found + [name for each in classes for name in map(ast.unparse, each.bases) if name in UNPICKLE]


def test_no_module_reads_a_file_as_code() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 100
    found = {str(path.relative_to(PACKAGE)): faults(path.read_text(encoding="utf-8")) for path in modules}
    assert {name: wrong for name, wrong in found.items() if wrong} == FROM_A_RANK


def test_what_would_read_a_file_as_code_is_found() -> None:
    for source in (
        "pickle.loads(data)",
        "class Reader(pickle.Unpickler): pass",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(folder)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "partial(AutoModel.from_pretrained, folder)",
        "SentenceTransformer(folder)",
    ):
        assert faults(source), source
    assert not faults("np.load(path, allow_pickle=False); SentenceTransformer(modules=[words])")
