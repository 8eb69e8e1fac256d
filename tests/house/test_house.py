"""The frame of the house: what imports bring, what is public, and that the documents run."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tokenreel

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tokenreel"


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_brings_nothing_heavy() -> None:
    code = "import sys, tokenreel; print([m for m in ('torch', 'numpy', 'av', 'PIL', 'typer') if m in sys.modules])"
    assert fresh(code) == "[]"


def test_help_needs_no_numpy() -> None:
    code = "import sys, tokenreel.cli.main; print([m for m in ('torch', 'numpy', 'av', 'PIL') if m in sys.modules])"
    assert fresh(code) == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["patchify", "CLIP", "-o", "a.safetensors", "--frames", "2", "--embed", "linear", "--dim", "8"],
        ["check", "a.safetensors"],
        ["restore", "a.safetensors", "-o", "a.mkv"],
        ["encode", "CLIP", "-o", "a.tokens", "--tokenizer", "raw"],
        ["decode", "a.tokens", "-o", "b.mkv"],
        ["inspect", "a.tokens", "--picture", "a.png"],
    ],
)
def test_the_numpy_path_never_imports_torch(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / f"numpy-path-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    from tokenreel.samples import SAMPLE_CLIP

    clip = repr(str(SAMPLE_CLIP))
    make = (
        "from tokenreel.jobs.patchify import patchify_file as p; from tokenreel.jobs.encode import encode_file as e\n"
        "from tokenreel.media.frames import Selection as S\n"
        f"p({clip}, 'a.safetensors', selection=S(uniform=2)); e({clip}, 'a.tokens', selection=S(uniform=2))"
    )
    fresh(make)
    arguments = [str(SAMPLE_CLIP) if word == "CLIP" else word for word in words]
    code = (
        "import sys\nfrom tokenreel.cli.main import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    print('exit', end.code)\n"
        "print('torch' in sys.modules)"
    )
    assert fresh(code).endswith("exit 0\nFalse")


def test_a_model_that_ships_needs_no_hub_no_compiler_and_no_tables(tmp_path: Path) -> None:
    from tokenreel.samples import SAMPLE_IMAGE

    tokens, picture = str(tmp_path / "a.tokens"), str(tmp_path / "a.png")
    heavy = ("huggingface_hub", "yaml", "pyarrow", "numba", "scipy", "rich", "tensorboard", "torch._dynamo")
    code = (
        "import sys, torch\ntorch.set_num_threads(1)\nbrought = set(sys.modules)\n"
        "from tokenreel.cli.main import app\n"
        f"encode, decode = [{str(SAMPLE_IMAGE)!r}, '-o', {tokens!r}], [{tokens!r}, '-o', {picture!r}]\n"
        "for words in (['encode', *encode], ['decode', *decode]):\n"
        "    try:\n        app([*words, '-q'])\n    except SystemExit as end:\n        assert not end.code\n"
        f"print([m for m in {heavy!r} if m in set(sys.modules) - brought])"
    )
    assert fresh(code) == "[]"


@pytest.mark.parametrize("is_frozen", [False, True])
def test_loading_leaves_the_garbage_collector_as_it_was(is_frozen: bool) -> None:
    code = (
        "import gc, sys\nimport tokenreel as tr\n"
        f"if {is_frozen}:\n    gc.freeze()\n    gc.disable()\n"
        "tr.load('video-fsq')\n"
        "print('torch' in sys.modules, gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    assert fresh(code) == f"True {not is_frozen} {is_frozen}"


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(tokenreel._HOMES) == sorted(set(tokenreel.__all__) - {"__version__"})
    for name in tokenreel.__all__:
        value = getattr(tokenreel, name)
        assert name in ("TOKENIZERS", "__version__") or value.__doc__, name
    assert set(tokenreel.__all__) <= set(dir(tokenreel))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tokenreel.nothing  # noqa: B018


def modules() -> list[str]:
    return [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "tokenreel.")]


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_for_and_names_what_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.{public}"


def test_names_that_the_house_forbids() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
        assert len(path.read_text().splitlines()) <= 500, f"{path} is past 500 lines"


def test_no_function_is_past_80_lines() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 80, f"{path}: {node.name}"


DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_python_in_the_documents_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.S)
    if document == "README.md":
        assert blocks
    monkeypatch.chdir(tmp_path)
    if blocks:
        done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_doctests() -> None:
    import doctest

    count = 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        count += result.attempted
    assert count > 8
