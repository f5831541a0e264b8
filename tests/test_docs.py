"""What is written for people: the reference page, the help, and every command line in a text."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[1]
FOUND = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES = [page for page in FOUND if page != "docs/cli.md"]  # which is generated
TEXTS = ("README.md", "CONTRIBUTING.md", "cli/demo.py", *PAGES)


def commands():
    """Every command of the console script, by name."""
    (script,) = entry_points(group="console_scripts", name="landscape")
    return typer.main.get_command(script.load()).commands


def generator():
    """The script that writes docs/cli.md."""
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_lines(text: str) -> Iterator[str]:
    """The `landscape ...` lines of shell blocks, of inline code, and of the demo's list."""
    blocks = re.findall(r"^```(?:sh|bash|console|shell)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for part in re.split(r" '(?:&&|\|\|)' ", shlex.join(words)):
            if part.split()[:1] == ["landscape"]:
                yield part
    inline = re.findall(r"`(landscape [^`\n]+)`|^ +\"(landscape [^\"]+)\",$", text, re.MULTILINE)
    for command in (a or b for a, b in inline):
        if not re.search(r"\b(COMMAND|VERB)\b|\.\.\.|[{}]", command):
            yield command


def parse(line: str) -> None:
    """Raises what the command line would complain of; runs nothing."""
    name, *arguments = shlex.split(line)[1:]
    if name.startswith("-"):
        assert name in ("--help", "-h", "--version", "--install-completion"), line
        return
    assert name in commands(), line
    try:
        commands()[name].make_context(name, arguments)
    except typer.Exit:  # --help
        assert {"--help", "-h"} & set(arguments)


def lines_of_texts() -> list[tuple[str, str]]:
    return [
        (name, line)
        for name in TEXTS
        if (ROOT / name).exists()
        for line in dict.fromkeys(command_lines((ROOT / name).read_text(encoding="utf-8")))
    ]


def test_the_reference_page_is_up_to_date():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == generator().text(), "run `python docs/generate_cli.py`"


def test_the_reference_page_does_not_depend_on_the_terminal(monkeypatch):
    first = generator().text()
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert generator().text() == first


def test_every_command_and_every_option_is_in_the_reference_page():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in commands().items():
        section = page.partition(f"\n## landscape {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("-"):
                    assert re.search(rf"(`|, ){re.escape(option)}\b", section), (name, option)


@pytest.mark.parametrize("name", commands())
def test_the_help_of_a_command_is_one_sentence_and_an_example(name):
    first, *others = re.split(r"\n\s*\n", commands()[name].help.strip())
    sentence = " ".join(first.split())
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert not re.search(r"\.\s+[A-Z]", sentence), "more than one sentence"
    (example,) = re.findall(r"^Example: `(landscape .+)`$", others[-1])
    assert example.split()[1] == name
    parse(example)


@pytest.mark.parametrize("name", commands())
def test_every_option_is_a_whole_word_with_an_explanation(name):
    for parameter in commands()[name].params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.help
        options = [o for o in (*parameter.opts, *parameter.secondary_opts) if o.startswith("-")]
        short = {option for option in options if not option.startswith("--")}
        assert short <= {"-o", "-q", "-h"}
        assert all(len(option) >= len("--l2") for option in set(options) - short - {"--m"})


def test_one_word_means_the_same_in_all_commands():
    others = {"resolution"}  # of a surface or of a line
    kinds = {}
    for name, command in commands().items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in others:
                if (name, parameter.name) == ("gate", "json"):
                    continue  # a file, as all reports of a gate are: its stdout is the verdict
                kind = (tuple(parameter.opts), parameter.multiple, parameter.is_flag)
                first = kinds.setdefault(parameter.name, (name, kind))
                assert first[1] == kind, (first[0], name)


def test_the_readme_has_commands_to_copy():
    readme = [line for name, line in lines_of_texts() if name == "README.md"]
    assert any(line.startswith("landscape surface") for line in readme)
    assert "landscape demo" in readme


@pytest.mark.parametrize(("name", "line"), lines_of_texts())
def test_a_command_line_in_a_text_is_one_that_exists(name, line):
    parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "landscape surface ckpt.pt --no-such-option",
        "landscape surfaces ckpt.pt",
        "landscape surface ckpt.pt --resolution",
        "landscape show",
        "landscape plot x.h5 --levels many",
    ],
)
def test_a_wrong_command_line_would_be_noticed(line):
    text = f"Words.\n\n```sh\npip install x && {line}   # a remark\n```\n"
    (found,) = command_lines(text)
    with pytest.raises(Exception, match=r"No such option|surfaces|requires|Missing|integer"):
        parse(found)
