"The command line without a server: what is copied, what is kept, what is refused. A started one is looked at in tests/browser."
import sys
from pathlib import Path
from types import SimpleNamespace

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
    (["--root", "elsewhere"], "`root` must be a folder: got"),
    (["--root", "{there}/nem.ipynb"], "`root` must be a folder: got"),
    (["--notebook", "../../.."], "`notebook` must be inside the folder that is shown"),
    (["--notebook", "/etc/passwd"], "`notebook` must be inside the folder that is shown"),
    (["--notebook", "{there}/../secret.ipynb"], "`notebook` must be inside the folder that is shown"),
    (["--notebook", "linked.ipynb"], "`notebook` must be inside the folder that is shown"),
    (["--notebook", "."], "must be a file in"),
])
def test_a_wrong_request_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], sentence: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "secret.ipynb").write_text("{}")
    (tmp_path / "there" / "linked.ipynb").symlink_to(tmp_path / "secret.ipynb")
    assert main(["lab", str(tmp_path / "there"), *(word.format(there=tmp_path / "there") for word in extra)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("latentlab: `") and sentence in said and said.count("\n") == 1


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["lab", str(tmp_path / "taken")]) == 2 and "must be a folder that can be written" in capsys.readouterr().err


@pytest.mark.parametrize("dangling", [True, False], ids=["link to nothing", "folder"])
def test_nothing_is_written_through_a_link(tmp_path: Path, dangling: bool, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    if dangling: (tmp_path / "there" / "nem.ipynb").symlink_to(tmp_path / "elsewhere")
    else: (tmp_path / "there" / "nem.ipynb").mkdir()
    assert main(["lab", str(tmp_path / "there"), "--copy-only"]) == 2 and not (tmp_path / "elsewhere").exists()
    assert ("got a link to nothing" if dangling else "got a folder") in capsys.readouterr().err


def test_a_folder_behind_a_link_is_a_folder(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    started = launched(monkeypatch, ["lab", str(tmp_path / "link"), "--no-browser"])
    assert (tmp_path / "real" / "nem.ipynb").is_file() and f"--ServerApp.root_dir={tmp_path / 'real'}" in started
    inside = launched(monkeypatch, ["lab", str(tmp_path / "link"), "--root", str(tmp_path)])
    assert f"--ServerApp.root_dir={tmp_path}" in inside and "--LabApp.default_url=/lab/tree/real/nem.ipynb" in inside


@pytest.mark.parametrize("user", [0, 1000])
def test_root_is_told_what_is_done_for_root(tmp_path: Path, user: int, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    arguments = launched(monkeypatch, ["lab", str(tmp_path / "there")])
    assert ("--allow-root" in arguments) == ("--allow-root" in capsys.readouterr().out) == (user == 0)


def launched(monkeypatch, words: list[str]) -> list[str]:
    "The arguments that a command hands to JupyterLab, which is not started."
    given: list[list[str]] = []
    lab = SimpleNamespace(LabApp=SimpleNamespace(launch_instance=lambda argv: given.append(argv)))
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", lab)  # whose import takes seconds
    monkeypatch.setattr("latentlab.cli.server_with_token", lambda: "asks for a token")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    assert main(words) == 0
    assert lab.LabApp.serverapp_class == "asks for a token"
    return given[0]


def test_no_option_turns_the_token_off(tmp_path: Path) -> None:
    (tmp_path / "nem.ipynb").write_text("{}")
    options = dict(argument.partition("=")[::2] for argument in lab_arguments(tmp_path / "nem.ipynb", as_root=True))
    assert options["--ServerApp.ip"] == "127.0.0.1"
    assert not any(word in option.lower() for option in options for word in ("token", "password", "auth"))


class Served:
    "Voila as far as it is started here; see what it was told."
    told: list[list[str]] = []

    def __init__(self, auth: bool = True):
        self.tornado_settings, self.identity_provider = {}, SimpleNamespace(token="x", auth_enabled=auth)

    def init_settings(self) -> dict[str, int]: return {"a": 1}

    @classmethod
    def launch_instance(cls, argv: list[str]) -> None:
        assert cls().init_settings() == {"a": 1}
        with pytest.raises(ValueError, match="must ask for a token"): cls(auth=False).init_settings()
        cls.told.append(argv)


def test_a_notebook_is_served_on_this_machine_with_a_token(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.ipynb").write_text("{}")
    monkeypatch.setitem(sys.modules, "voila.app", SimpleNamespace(Voila=Served))
    assert main(["app", str(tmp_path / "mine.ipynb"), "--no-browser"]) == main(["app", str(tmp_path / "mine.ipynb"), "--no-browser"]) == 0
    tokens = [dict(word.partition("=")[::2] for word in words)["--Voila.token"] for words in Served.told[-2:]]
    assert len(set(tokens)) == 2 and all(len(token) == 48 for token in tokens)
    assert {str(tmp_path / "mine.ipynb"), "--Voila.ip=127.0.0.1", "--Voila.open_browser=False"} <= set(Served.told[-1])
    assert f"/?token={tokens[-1]}" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "sentence"), [
    (["none.ipynb"], "`notebook` must be a notebook's file: got none.ipynb"), (["{labs}/nem.ipynb", "--port", "0"], "`port` must be 1 to 65535"),
    (["{labs}/nem.ipynb"], '`voila` must be installed to serve a notebook as a page: got no such module. pip install "latentlab[app]"'),
])
def test_a_notebook_that_cannot_be_served_is_one_line(words: list[str], sentence: str, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "voila", None)
    assert main(["app", *(word.format(labs=labs_folder()) for word in words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("latentlab: `") and sentence in said and said.count("\n") == 1


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
        assert main(["check", "tones", "images=64", "batch=16"]) == 0 and "a resumed run goes on to the bit" in capsys.readouterr().out
        assert main(["check", "tunes"]) == 2 and "must be one of" in capsys.readouterr().err
        assert main(["lab", str(tmp_path / "labs"), "--copy-only"]) == 0
    assert (tmp_path / "labs" / "tones.ipynb").is_file() and (tmp_path / "labs" / "nem.ipynb").is_file()
