"The command line without a server: what is copied, what is kept, what is refused. A started one is looked at in tests/browser."
from pathlib import Path

import pytest

from latentlab.cli import copy_labs, lab_arguments, labs_folder, main
from latentlab.journal.journal import Journal
from plugin_path import plugin_installed


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


def test_a_run_is_trained_listed_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = ["--journal", str(tmp_path / "runs")]
    assert main(["train", "hvae", "data=moons", "points=400", "steps=3", *journal]) == 0
    (run,) = Journal(tmp_path / "runs").rows()
    assert run["state"] == "done" and f"run {run['id']}, 3 steps" in capsys.readouterr().out
    assert main(["runs", *journal]) == 0 and run["id"] in capsys.readouterr().out
    assert main(["report", run["id"], "--out", str(tmp_path / "page.md"), *journal]) == 0
    assert run["id"] in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(("words", "sentence"), [
    (["train", "hvea"], "Did you mean hvae"),
    (["train", "hvae", "leyers=2"], "must be a field of HVAERun"),
    (["train", "hvae", "steps"], "must be written name=value: got 'steps'"),
    (["train", "hvae", "steps=0"], "`steps` must be at least 1"),
    (["runs", "--journal", "nowhere"], "`journal` must be a folder of runs: got nowhere"),
])
def test_what_cannot_be_trained_or_listed_is_one_line(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("latentlab: `") and sentence in said and said.count("\n") == 1


def test_an_installed_family_is_named_and_brings_its_lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with plugin_installed(tmp_path / "site"):
        assert main(["families"]) == 0 and "tones      Tones:" in capsys.readouterr().out
        assert main(["lab", str(tmp_path / "labs"), "--copy-only"]) == 0
    assert (tmp_path / "labs" / "tones.ipynb").is_file() and (tmp_path / "labs" / "nem.ipynb").is_file()
