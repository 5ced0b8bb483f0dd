"""What no module may do, read from the source: run code from files, or write past the one module that writes."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mbrl_pvr", "pvr_zoo", "world_models", "analysis")

# who may, and why
WRITERS = {
    "mbrl_pvr/storage.py": "the one that writes, syncs and renames",
    "pvr_zoo/weights.py": "the weights cache, which the zoo keeps without mbrl_pvr",
    "pvr_zoo/verify.py": "checkpoints in published layouts, in a temporary folder",
    "pvr_zoo/families/calibration.py": "run by hand, it draws the stored frames of the package",
    "analysis/files.py": "files of analysis, which knows no mbrl_pvr",
    "analysis/figures": "figures of analysis",
}
FOREIGN_PICKLES = {
    "pvr_zoo/checkpoint.py": "published .pth files: hashed, names listed, then weights_only=True",
    "pvr_zoo/archive.py": "published zip files: names listed, then an unpickler that builds tensors and empty holders",
}

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CODE = {"eval", "exec", "compile"}
YAML = {"load", "load_all", "full_load", "unsafe_load", "unsafe_load_all"}
WRITES = {"write_text", "write_bytes", "savez", "savez_compressed", "savetxt", "savefig", "save_file", "tofile"}
WRITES |= {"imsave", "imwrite", "to_parquet", "to_csv", "to_json"}
WRITES_OF = {"np.save", "numpy.save", "torch.save"}
STAGED = "temporary"  # so is the file called that storage.replace_atomic gives to a library


def full_name(node: ast.expr) -> str:
    """`torch.load` of the expression that is called; "?" stands for what is not a plain name."""
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def constant(node: ast.Call, name: str, position: int | None = None):
    for keyword in node.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else "?"
    if position is not None and position < len(node.args):
        return node.args[position].value if isinstance(node.args[position], ast.Constant) else "?"
    return None


def opens_for_writing(node: ast.Call, name: str) -> bool:
    if name == "os.fdopen":
        return True
    if name == "os.open":
        return full_name(node.args[0]) != "os.devnull" and full_name(node.args[1]) != "os.O_RDONLY"
    if name != "open" and not name.endswith(".open"):
        return False
    mode = constant(node, "mode", 1 if name in ("open", "io.open") else 0)
    return isinstance(mode, str) and bool(set(mode) & set("wax+"))


def staged_or_in_memory(node: ast.Call, last: str) -> bool:
    if last.startswith("to_") and not node.args:  # pandas gives the bytes back
        return True
    return bool(node.args) and full_name(node.args[0]) == STAGED


def offences(source: str) -> set[str]:
    """Names of what a module's source does of the above."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module or ""}
            found |= {"pickle" for name in names if name.split(".")[0] in MODULES}
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func)
        base, _, last = name.rpartition(".")
        if name == "torch.load" or last == "load_state_dict_from_url" or base == "torch.hub":
            found.add("torch.load")
        if name in CODE:
            found.add("code")
        if base == "yaml" and last in YAML:
            found.add("yaml")
        if last == "extractall":
            found.add("extractall")
        if constant(node, "shell") not in (None, False) or name in ("os.system", "os.popen"):
            found.add("shell")
        if constant(node, "allow_pickle") not in (None, False):
            found.add("allow_pickle")
        if name in ("np.load", "numpy.load") and constant(node, "allow_pickle") is not False:
            found.add("allow_pickle")
        if (opens_for_writing(node, name) or last in WRITES or name in WRITES_OF) and not staged_or_in_memory(
            node, last
        ):
            found.add("write")
    return found


def files() -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("name", files())
def test_no_module_runs_code_from_files_or_writes_past_the_one_that_may(name):
    found = offences((ROOT / name).read_text())
    if any(name.startswith(writer) for writer in WRITERS):
        found.discard("write")
    if name in FOREIGN_PICKLES:
        found -= {"torch.load", "pickle"}
    assert found == set()


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "pickle"),
        ("torch.load(p, weights_only=True)", "torch.load"),
        ("torch.hub.load('a', 'b')", "torch.load"),
        ("eval(text)", "code"),
        ("yaml.load(text, Loader=L)", "yaml"),
        ("archive.extractall(p)", "extractall"),
        ("subprocess.run(line, shell=True)", "shell"),
        ("subprocess.run(line, shell=flag)", "shell"),
        ("os.system('x')", "shell"),
        ("np.load(p)", "allow_pickle"),
        ("np.load(p, allow_pickle=True)", "allow_pickle"),
        ("open(p, 'w')", "write"),
        ("open(p, mode='r+b')", "write"),
        ("Path(p).open('a')", "write"),
        ("path.open(mode='x')", "write"),
        ("open(p, mode)", ""),
        ("os.open(p, flags)", "write"),
        ("os.open(p, os.O_RDONLY)", ""),
        ("path.write_text('x')", "write"),
        ("torch.save(x, p)", "write"),
        ("np.savez_compressed(p, a=a)", "write"),
        ("with replace_atomic(p) as temporary: np.savez(temporary, a=a)", ""),
        ("figure.savefig(p)", "write"),
        ("table.to_parquet(p)", "write"),
        ("table.to_parquet(index=False)", ""),
        ("open(p)", ""),
        ("path.open('rb')", ""),
        ("np.load(p, allow_pickle=False)", ""),
        ("yaml.safe_load(text)", ""),
        ("safetensors.torch.load(data)", ""),
        ("model.eval()", ""),
    ],
)
def test_the_scan_sees_what_it_should(source, offence):
    assert offences(source) == ({offence} if offence else set())
