"""A verdict for GitHub Actions: annotations of the run, and outputs of the step.

Names and reasons may hold whatever a file name can: all of it is escaped, for a line of its own
would be a command to the runner.
"""

import hashlib

from landscape.report_text import Origin, sentence
from landscape.result_verdict import Verdict


def annotations(verdict: Verdict, origin: Origin) -> str:
    """Workflow commands: one for each rule that did not pass, or one notice if all did.

    A rule of level `error` is an error where the command ends with other than 0, else a warning.
    """
    lines = []
    for i, found in enumerate(verdict.rule_verdict):
        if found == "pass":
            continue
        fails = verdict.level[i] == "error" and origin.exit_code != 0
        title = f"landscape gate: {verdict.rule[i]} {found}"
        lines.append(_command("error" if fails else "warning", title, sentence(verdict, i)))
    if not lines:
        lines.append(_command("notice", f"landscape gate: {verdict.verdict}", verdict.reason))
    return "\n".join(lines) + "\n"


def outputs(verdict: Verdict, origin: Origin) -> str:
    """Lines for the file $GITHUB_OUTPUT: verdict, exit_code and reason."""
    values = {
        "verdict": verdict.verdict,
        "exit_code": str(origin.exit_code),
        "reason": verdict.reason,
    }
    return "".join(f"{name}<<{_end(text)}\n{text}\n{_end(text)}\n" for name, text in values.items())


def _end(text: str) -> str:
    """A line that closes `text` and cannot stand in it."""
    return "end-" + hashlib.sha256(text.encode()).hexdigest()


def _command(name: str, title: str, message: str) -> str:
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{name} title={title}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
