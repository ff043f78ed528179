"""What every command has in common: how its options come from its function, and what it answers to wrong ones."""

import re
import subprocess
import sys

import pytest
from in_process import ucdir

from ucdir import cli
from ucdir.commands.command import command

COMMANDS = [*((name,) for name in cli.COMMANDS), *(("data", name) for name in cli.DATA_COMMANDS)]


def test_help_needs_no_torch() -> None:
    script = (
        f"import sys; from ucdir.cli import app\nfor words in ([], *{COMMANDS!r}): "
        "app([*words, '--help'], result_action='return_none')\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: ucdir") == len(COMMANDS) + 1


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_explained(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    cli.app([*words, "--help"], result_action="return_none")
    options = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert options
    assert [line for line in options if not re.search(r"\S  +[\w`.]\S* \S+ ", line)] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("serch",), 'ucdir: Unknown command "serch". Did you mean "search"?'),
        (("search", "gallery"), 'ucdir: Command "search" parameter QUERY requires an argument.'),
        (("search", "gallery", "q.png", "--doman", "x"), "ucdir: Unknown option: --doman. Did you mean --domain?"),
        (("search", "gallery", "q.png", "--k", "x"), 'ucdir: Invalid value for --k: unable to convert "x" into int.'),
        (("search", "gallery", "q.png", "5"), "ucdir: Unused Tokens: ['5']."),
        (("evaluate", "run", "--figure", "F1"), 'ucdir: Invalid value "F1" for --figure.'),
        (("train", "a", "b", "--workers", "-1"), "ucdir: setting data.workers=-1 is not valid"),
        (("train", "a", "b", "--init", "c", "--weights", "d"), "ucdir: --weights and --init exclude each other."),
        (("demo", "--seed", "-1"), "ucdir: --seed -1: expected 0 or more."),
    ],
)
def test_wrong_words_end_in_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    done = ucdir(*words, fails=True)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stdout == ""


def test_options_come_from_the_signature_and_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    def find(place: str, ks: tuple[int, ...] = (), deep: bool = True, device: str = "auto") -> str:
        """Find things.

        place    Where to look,
                 on one machine.
        ks       Cut-offs.
        deep     Look below.
        """
        return f"{place} {ks} {deep}"

    def show(found: str, json: bool = False) -> None:
        """Print.

        json   As JSON.
        """
        print(found, json)

    cli.app.command(command(find, show), name="find-things")
    try:
        cli.app(["find-things", "here", "--k", "1", "--k", "5", "--no-deep", "--json"], result_action="return_none")
        assert capsys.readouterr().out == "here (1, 5) False True\n"
        cli.app(["find-things", "--help"], result_action="return_none")
        shown = capsys.readouterr().out
        assert "PLACE  Where to look, on one machine. [required]" in shown
        assert "--deep --no-deep" in shown
        assert "--device STR" in shown
    finally:
        cli.app.__delitem__("find-things")
