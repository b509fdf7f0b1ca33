"The command line without a server: what is copied, what is kept, what is refused. A started one is looked at in tests/browser."
from pathlib import Path

import pytest

from latentlab.cli import copy_labs, lab_arguments, labs_folder, main


def test_a_changed_lab_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, mine = tmp_path / "source", tmp_path / "mine"
    source.mkdir()
    (source / "nem.ipynb").write_text("{}")
    copy_labs(source, mine)
    (mine / "nem.ipynb").write_text("work")
    assert [done.state for done in copy_labs(source, mine)] == ["kept"] and (mine / "nem.ipynb").read_text() == "work"


def test_copy_only_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", str(tmp_path / "there"), "--copy-only"]) == 0
    copied = sorted(file.name for file in (tmp_path / "there").iterdir())
    assert copied == sorted(file.name for file in labs_folder().glob("*.ipynb")) and "nem.ipynb" in copied
    assert capsys.readouterr().out.count(": copied") == len(copied)


@pytest.mark.parametrize(("extra", "sentence"), [
    (["--notebook", "none.ipynb"], "must be a file in"),
    (["--port", "0"], "must be 1 to 65535: got 0"),
    (["--root", "elsewhere"], "must be a folder above"),
])
def test_a_wrong_request_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], sentence: str) -> None:
    assert main(["lab", str(tmp_path / "there"), *extra]) == 2
    said = capsys.readouterr().err
    assert said.startswith("latentlab: `") and sentence in said and said.count("\n") == 1


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["lab", str(tmp_path / "taken")]) == 2 and "must be a folder that can be written" in capsys.readouterr().err


def test_no_option_turns_the_token_off(tmp_path: Path) -> None:
    (tmp_path / "nem.ipynb").write_text("{}")
    options = dict(argument.partition("=")[::2] for argument in lab_arguments(tmp_path / "nem.ipynb", as_root=True))
    assert options["--ServerApp.ip"] == "127.0.0.1"
    assert not any(word in option.lower() for option in options for word in ("token", "password", "auth"))
