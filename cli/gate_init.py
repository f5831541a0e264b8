"""`landscape gate init`: a commented policy, and a workflow for GitHub Actions."""

import contextlib
from pathlib import Path

from landscape.errors import UserError

POLICY_FILE = Path("gate.toml")
WORKFLOW_FILE = Path(".github/workflows/landscape.yml")
TASK_FILE = "landscape_task.py"
NEXT = (
    "look through both, then try `landscape gate candidate.pt --baseline production.pt --policy "
    "gate.toml`"
)

POLICY = """\
# What a candidate has to keep to: `landscape gate CANDIDATE --baseline FILE --policy gate.toml`.
# Whoever can change this file or the task can open the gate: let their owners review both.
version = 1
{task}

[measure]             # on every group of examples, of both models alike
measure = "sam"       # the rise of the loss after one ascent step; or worst, average, random
norm = "adaptive"     # in units of each weight, so that rescaled layers count the same; or plain
rho = 0.05            # the radius: the one you train with, if you train with SAM
m = 32                # examples of a group
looks = [16, 32, 64]  # groups after which a clear case ends; 64 x 32 = 2048 examples at most
seed = 0              # of the shuffling into groups

[rules.sharpness]
max_increase = "25%"  # over the baseline; a number is absolute, and `max` needs no baseline
floor = 1e-3          # the least that a percentage comes to, for baselines near 0
confidence = 0.95     # a worse model passes in at most 1 of 20 gates, over all looks together

[rules.loss]          # sharpness is compared at equal performance, so that is watched too
max_increase = 0.01

# Any metric of the task: max_increase, max_decrease, max or min.
# [rules.accuracy]
# max_decrease = 0.005

# The largest eigenvalue of the Hessian, over all examples; slower, and only a warning.
# [rules.lambda_max]
# max_increase = "50%"
# level = "warn"

[gate]
require_baseline = true      # false: without --baseline the absolute rules decide alone
on_inconclusive = "error"    # exit code 4; "fail" takes undecided for refused (3), "pass" for 0
"""

WORKFLOW = """\
# Exit codes of the gate: 0 pass, 3 refused, 4 undecided, 1 an error, 2 wrong usage or policy.
name: landscape gate
on: pull_request
permissions:
  contents: read
jobs:
  gate:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    env:
      # Where the two models are: in the repository, or fetched by a step of your own.
      CANDIDATE: candidate.pt
      BASELINE: production.pt
    steps:
      - uses: actions/checkout@v4
        with:
          lfs: true
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Install
        run: |
          pip install torch --index-url https://download.pytorch.org/whl/cpu
          pip install landscape-toolkit
      - name: Gate
        id: gate
        run: |
          landscape gate "$CANDIDATE" --baseline "$BASELINE" --policy gate.toml \\
            --json gate.json --junit gate.xml --markdown gate.md --metrics gate.prom
      - name: Tell
        if: always()
        env:
          VERDICT: ${{ steps.gate.outputs.verdict }}
          REASON: ${{ steps.gate.outputs.reason }}
        run: echo "${VERDICT:-no verdict} ${REASON}"
      - name: Keep the reports
        if: always()
        uses: actions/upload-artifact@v4
        with:
          name: landscape-gate
          path: gate.*
"""


def write(folder: Path) -> list[Path]:
    """Write both files under `folder`; returns their paths, relative to it.

    Raises:
        UserError: one is there already, or cannot be written; then neither is written.
    """
    here = (folder / TASK_FILE).is_file()
    task = f'task = "{TASK_FILE}"' if here else f'# task = "{TASK_FILE}"'
    task += "  # relative to this file; else --task, LANDSCAPE_TASK, the project's table"
    texts = {POLICY_FILE: POLICY.format(task=task), WORKFLOW_FILE: WORKFLOW}
    for path in texts:
        if (folder / path).exists():
            raise UserError(f"{path} exists already and is left as it is: move it away, or edit it")
    path = WORKFLOW_FILE.parent
    try:
        (folder / path).mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        for half in texts:
            with contextlib.suppress(OSError):
                (folder / half).unlink()
        raise UserError(f"cannot write {path} ({error.strerror}): free the place") from error
    return list(texts)
