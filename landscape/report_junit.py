"""A verdict as JUnit XML, which CI servers show as tests: one test case a rule."""

import re
from xml.etree import ElementTree as xml

from landscape.report_text import Origin, facts, sentence
from landscape.result_verdict import Verdict

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(verdict: Verdict, origin: Origin) -> str:
    """A suite with one case a rule.

    A refused rule is a failure; an undecided one an error, a failure or neither, as the policy's
    on_inconclusive says; a rule of level `warn` always passes, with its warning as output.
    """
    cases = [_case(verdict, i) for i in range(len(verdict.rule))]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": "0",
        "time": f"{origin.seconds:.3f}",
    }
    suites = xml.Element("testsuites", {"name": "landscape", **counts})
    suite = xml.SubElement(
        suites,
        "testsuite",
        # The schema in use has no time zone in its dates.
        {"name": "landscape gate", **counts, "timestamp": origin.started.partition("+")[0]},
    )
    properties = xml.SubElement(suite, "properties")
    said = {"verdict": verdict.verdict, "reason": verdict.reason, **facts(verdict, origin)}
    for name, value in said.items():
        xml.SubElement(properties, "property", {"name": _legal(name), "value": _legal(value)})
    suite.extend(cases)
    xml.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(suites, "unicode") + "\n"


def _case(verdict: Verdict, i: int) -> xml.Element:
    found, said = verdict.rule_verdict[i], _legal(sentence(verdict, i))
    case = xml.Element(
        "testcase", {"name": _legal(verdict.rule[i]), "classname": "landscape.gate", "time": "0"}
    )
    tag = {
        ("refused", "fail"): "failure",
        ("refused", "pass"): "failure",
        ("refused", "error"): "failure",
        ("undecided", "fail"): "failure",
        ("undecided", "error"): "error",
    }.get((found, verdict.on_inconclusive))
    if tag is None or verdict.level[i] == "warn":
        warning = "" if found == "pass" else "warning: "
        xml.SubElement(case, "system-out").text = warning + said
        return case
    body = xml.SubElement(case, tag, {"message": said, "type": found})
    body.text = "\n".join([said, f"limit: {_legal(verdict.limit[i])}", _legal(verdict.reason)])
    return case


def _legal(text: str) -> str:
    """Text with what XML 1.0 cannot hold replaced."""
    return _FORBIDDEN.sub("\ufffd", text)
