"""A user's mistake is one line on stderr and exit code 2; a defect keeps its traceback."""

from __future__ import annotations

import pytest
import typer

from fastpose import cli
from fastpose.cli import _errors


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "unknown verb of fastpose: 'trian'; did you mean 'train'"),
        (["try-no"], "unknown verb of fastpose: 'try-no'; did you mean 'try-on'"),
        (["try-on", "multiscale/semantic", "a.jpg", "--weights", "w"], "Missing option '--target-map'."),
        (["data", "chek"], "unknown verb of fastpose data: 'chek'; did you mean 'check'?"),
        (["recipes", "shwo"], "unknown verb of fastpose recipes: 'shwo'; did you mean 'show'?"),
        (["--verison"], "unknown option of fastpose: '--verison'; did you mean '--version'?"),
        (["train", "x", "--nam", "y"], "unknown option of fastpose train: '--nam'; did you mean '--name'?"),
        (["eval", "x", "--wieghts", "y"], "unknown option of fastpose eval: '--wieghts'; did you mean '--weights'?"),
        (["train"], "Missing argument 'RECIPE'."),
        (["eval", "sagan/demo"], "Missing option '--weights'."),
        (["train", "sagan/ours-d"], "unknown recipe 'sagan/ours-d'; did you mean 'sagan/ours-c'"),
        (["recipes", "show", "sagan/ours_c"], "unknown recipe 'sagan/ours_c'; did you mean 'sagan/ours-c'"),
        (["train", "sagan/tiny", "model.stack=3"], "unknown key 'model.stack' for recipe sagan/tiny; did you mean"),
        (["train", "sagan/tiny", "model.stacks=three"], "model.stacks: expected"),
        (["train", "sagan/tiny", "run"], "override 'run': expected key=value"),
        (["data", "check", "lsep", "."], "unknown data set 'lsep'; did you mean 'lsp'"),
        (["bench", "nonlocal_atention"], "unknown operation 'nonlocal_atention'; did you mean 'nonlocal_attention'"),
        (["bench", "--device", "tpu9"], "--device: expected cpu, cuda or cuda:1, got 'tpu9'"),
        (["export", "sagan/tiny", "--weights", "w", "-o", "m.txt"], "--out m.txt: expected a name that ends in .onnx"),
        (["import", "hourglass", "no.pth", "-o", "w.bin"], "--out w.bin: expected a name that ends in .safetensors"),
        (["import", "hourglass", "no.pth", "-o", "w.safetensors"], "no.pth: no such file"),
        (["import", "hourglass", "no.pth", "stacks", "-o", "w.safetensors"], "option 'stacks': expected key=value"),
        (["predict", "no-photo.jpg"], "predict: 'no-photo.jpg' is neither a recipe nor a file or folder"),
        (["predict", "sagan/tiny"], "predict: recipe 'sagan/tiny' is there but no image"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.startswith("fastpose: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def fail(monkeypatch, error: BaseException) -> None:
    """Make the verb `doctor` raise."""

    def raising() -> None:
        raise error

    app = typer.Typer(cls=_errors.Verbs, add_completion=False)
    app.command("doctor")(raising)
    app.callback()(lambda: None)
    monkeypatch.setattr(cli, "app", app)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("heatmaps: expected (B, K, H, W)"), "fastpose: heatmaps: expected (B, K, H, W)\n"),
        (ValueError("two\n  lines"), "fastpose: two lines\n"),
        (TypeError("query: expected a torch.Tensor"), "fastpose: query: expected a torch.Tensor\n"),
        (FileNotFoundError("LSP: no images"), "fastpose: LSP: no images\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a b.jpg"),
            "fastpose: a b.jpg: No such file or directory\n",
        ),
        (NotADirectoryError(20, "Not a directory", "x"), "fastpose: x: Not a directory\n"),
        (PermissionError(13, "Permission denied", "/root/x"), "fastpose: /root/x: Permission denied\n"),
        (OSError(28, "No space left on device"), "fastpose: [Errno 28] No space left on device\n"),
        (
            ImportError("OKS-AP needs: pip install fastpose[eval]"),
            "fastpose: OKS-AP needs: pip install fastpose[eval]\n",
        ),
        (ValueError(), "fastpose: ValueError\n"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "fastpose: CUDA out of memory\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_user_can_mend_is_one_line(capsys, monkeypatch, error, line):
    fail(monkeypatch, error)
    assert run(capsys, "doctor") == (2, "", line)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("unexpected"),
        TypeError("'<' not supported between instances of 'str' and 'int'"),
        TypeError("expected str, bytes or os.PathLike object, not NoneType"),
        TypeError("train() got an unexpected keyword argument 'recipe'"),
        ImportError("cannot import name 'fit' from 'fastpose.training.engine'"),
        ModuleNotFoundError("No module named 'fastpose.training.nothing'"),
    ],
    ids=str,
)
def test_a_defect_keeps_its_traceback(monkeypatch, error):
    fail(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main(["doctor"])


def test_traceback_on_request(monkeypatch):
    fail(monkeypatch, ValueError("wrong"))
    monkeypatch.setenv("FASTPOSE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="wrong"):
        cli.main(["doctor"])


def test_ctrl_c_is_130_and_one_line(capsys, monkeypatch):
    fail(monkeypatch, KeyboardInterrupt())
    assert run(capsys, "doctor") == (130, "", "fastpose: interrupted\n")


@pytest.mark.parametrize("code", [130, 143])
def test_an_exit_code_of_the_engine_passes_through(monkeypatch, code):
    fail(monkeypatch, SystemExit(code))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert stopped.value.code == code


def test_alone_prints_help_and_succeeds(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: fastpose")
    verbs = ("doctor", "demo", "train", "eval", "predict", "try-on", "augment", "study", "data", "import", "export")
    for verb in (*verbs, "bench", "recipes"):
        assert f"\n  {verb} " in out


def test_data_alone_prints_its_help(capsys):
    code, out, err = run(capsys, "data")
    assert (code, err) == (0, "")
    assert "check" in out


def test_version(capsys):
    from fastpose import __version__

    assert run(capsys, "--version") == (0, f"fastpose {__version__}\n", "")
