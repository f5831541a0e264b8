"""Write docs/cli.md from the help of every command: `python docs/generate_cli.py`.

From the parameters themselves, not from the printed help, whose layout depends on the terminal
and on the version of Typer.
"""

from pathlib import Path
from typing import Any

import typer

from landscape.cli import app

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# Command line

<!-- Written by docs/generate_cli.py from the help of the commands: do not edit. -->

"""


def text() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    commands = group.commands
    listed = [f"- [`landscape {n}`](#landscape-{n}): {_summary(c)}" for n, c in commands.items()]
    intro = f"{group.help}\n\n{group.epilog}\n\n" + "\n".join(listed)
    sections = [_section(name, command) for name, command in commands.items()]
    return HEAD + "\n\n".join([intro, *sections]) + "\n"


def _summary(command: Any) -> str:
    return " ".join(command.help.split("\n\n")[0].split())


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["landscape", name, "[OPTIONS]", *map(_place, arguments)])
    parts = [f"## landscape {name}", f"    {usage}", command.help.strip()]
    if arguments:
        parts.append(_table("Argument", {_place(p): p for p in arguments}))
    # The command's own options first, those that it shares with others behind.
    for panel in sorted({p.rich_help_panel or "" for p in options}):
        rows = {_flags(p): p for p in options if (p.rich_help_panel or "") == panel}
        parts.append(_table(panel or "Option", rows))
    return "\n\n".join(parts)


def _place(argument: Any) -> str:
    name = argument.metavar or argument.name
    name = name if argument.required else f"[{name}]"
    return f"{name}..." if argument.nargs != 1 else name


def _flags(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return f"{names} {option.metavar}".strip()


def _table(title: str, rows: dict[str, Any]) -> str:
    lines = [f"| {title} | Meaning |", "|---|---|"]
    lines += [f"| {_cell(f'`{name}`')} | {_cell(_meaning(p))} |" for name, p in rows.items()]
    return "\n".join(lines)


def _meaning(parameter: Any) -> str:
    default = parameter.default
    silent = default is None or default is False or default in ("", (), [])
    return str(parameter.help) + ("" if silent else f" Default: {default}.")


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
