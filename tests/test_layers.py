"""Who may import whom, read from the sources, and what is loaded at run time."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["keyboard"]

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "numpy", "scipy", "matplotlib", "h5py", "safetensors", "sklearn", "rich"}
HEAVY |= {"transformers"}

# For each module of the library all of ours that it may import, besides `errors`.
ARROWS = {
    "": "",
    "errors": "",
    "records": "",
    "result_surface": "records",
    "result_spectrum": "records",
    "result_track": "records",
    "stability": "",
    "optimiser_state": "stability",
    "training": "optimiser_state",
    "preconditioning": "optimiser_state space",
    "names": "",
    "steps": "names results training",
    "track": "lanczos objective preconditioning probes results stability",
    "result_sharpness": "records",
    "result_verdict": "records",
    "result_connect": "records",
    "result_merge": "records",
    "result_pairs": "records",
    "result_trajectory": "records result_surface",
    "result_race": "records result_surface",
    "functions": "",
    "schedules": "",
    "optimizers": "",
    "course": "descent estimate objective results surface",
    "race": "course optimizers results schedules",
    "sweep": "course race",
    "results": "records result_connect result_merge result_pairs result_race result_surface"
    " result_spectrum result_track result_trajectory result_sharpness result_verdict",
    "gate": "",
    "policy": "gate",
    "report_text": "result_verdict",
    "report_json": "records report_text result_verdict",
    "report_junit": "report_text result_verdict",
    "report_markdown": "report_text result_verdict",
    "report_metrics": "records report_text result_verdict",
    "report_github": "report_text result_verdict",
    "reports": "report_json report_junit report_markdown report_metrics report_text result_verdict",
    "basis": "device",
    "vectors": "",
    "krylov": "basis vectors",
    "multiplicity": "krylov",
    "lanczos": "krylov multiplicity vectors",
    "journal": "",
    "tree": "",
    "space": "vectors",
    "estimate": "",
    "modes": "",
    "losses": "device",
    "task": "losses",
    "language_folder": "checkpoint",
    "language": "device language_folder losses task",
    "nested": "results",
    "device": "",
    "batches": "device tree",
    "batchnorm": "tree",
    "directions": "device space vectors",
    "rematerialisation": "modes",
    "evaluation": "estimate modes ranks rematerialisation task tree",
    "process_group": "",
    "ranks": "estimate process_group",
    "second_order": "",
    "jacobian": "",
    "products": "device estimate evaluation modes ranks second_order space task tree",
    "outputs": "modes task tree",
    "gauss_newton": "estimate jacobian modes outputs products",
    "fisher": "estimate jacobian products",
    "slices": "ranks space",
    "sharded": "evaluation ranks slices task",
    "objective": "batchnorm device estimate evaluation fisher gauss_newton modes products ranks"
    " space task tree",
    "product_check": "device objective products",
    "probe": "batches estimate modes objective tree",
    "surface": "estimate nested objective ranks results",
    "convexity": "estimate lanczos nested objective results surface",
    "density": "",
    "probes": "density lanczos",
    "blocks": "lanczos objective preconditioning probes space",
    "eigenvectors": "lanczos space",
    "hessian": "blocks density estimate lanczos objective preconditioning probes"
    " product_check products results",
    "geometry": "directions lanczos space vectors",
    "groups": "objective tree",
    "around": "estimate lanczos objective tree",
    "ascent": "around geometry vectors",
    "recipe": "geometry objective",
    "quadratic": "device geometry lanczos products ranks results",
    "keskar": "around device lanczos results",
    "sharpness": "around ascent estimate geometry lanczos objective quadratic ranks recipe space",
    "measured": "groups objective recipe results",
    "measurement": "around estimate geometry groups keskar lanczos measured objective products "
    "quadratic ranks recipe results sharpness",
    "units": "",
    "dataflow_call": "units",
    "dataflow_views": "dataflow_call units",
    "dataflow_lookup": "dataflow_call dataflow_views units",
    "dataflow_rules": "dataflow_call dataflow_lookup dataflow_views units",
    "dataflow": "dataflow_call dataflow_rules tree units",
    "occurrences": "units",
    "permutations": "",
    "grouping": "dataflow dataflow_call occurrences permutations units",
    "trial": "modes objective tree",
    "symmetry": "dataflow grouping objective permutations trial",
    "matching": "permutations",
    "activations": "dataflow matching objective permutations tree trial",
    "repair": "batchnorm objective permutations tree trial",
    "alignment": "activations matching objective permutations symmetry tree trial",
    "path": "krylov results",
    "chain": "results",
    "merge": "",
    "comparison": "estimate objective results",
    "trajectory": "krylov results",
    "connect": "estimate nested path results surface",
    "descent": "batchnorm evaluation groups objective tree",
    "curve": "descent objective path",
    "band": "curve descent krylov objective path results",
    "controls": "path space",
    "checkpoint_write": "",
    "checkpoint_formats": "",
    "checkpoint_weights": "checkpoint_formats",
    "checkpoint_distributed": "checkpoint checkpoint_formats checkpoint_weights ranks sharded",
    "checkpoint": "checkpoint_formats checkpoint_weights training",
    "codec": "results",
    "store": "codec journal results",
    "selftest_problem": "batches objective space task",
    "selftest_bowl": "around connect course functions lanczos path race recipe selftest_problem"
    " sharpness surface",
    "selftest_network": "alignment connect curve directions gate groups hessian lanczos objective"
    " path policy selftest_problem sharpness surface symmetry",
    "selftest_files": "directions estimate journal results selftest_problem store surface",
    "selftest": "selftest_bowl selftest_files selftest_network selftest_problem",
    "page_data": "records results",
    "page_headline": "results",
    "page": "page_data page_headline results",
    "tables": "codec results",
    "paraview": "results",
    "export": "paraview results tables",
    "foreign": "nested results",
    "plot_levels": "results",
    "plot_text": "results",
    "plot_line": "plot_levels plot_text results",
    "plot_surface": "plot_levels plot_text results",
    "plot_blocks": "plot_text results",
    "plot_spectrum": "plot_blocks plot_text results",
    "plot_track": "plot_levels plot_text results",
    "plot_sharpness": "plot_text results",
    "plot_verdict": "plot_text report_text results",
    "plot_race": "plot_levels plot_text results",
    "plot_compare": "plot_levels plot_surface plot_text results",
    "plot_convexity": "plot_levels plot_surface plot_text results",
    "animation": "",
    "shape": "results",
    "plot_connect": "plot_levels plot_text results",
    "plot_merge": "plot_text results",
    "plot_pairs": "plot_text results",
    "plot": "plot_connect plot_convexity plot_levels plot_line plot_merge plot_pairs plot_race"
    " plot_sharpness plot_spectrum plot_surface plot_text plot_track plot_verdict results",
}
WITHOUT_TORCH = {
    *("records", "journal", "errors", "nested", "codec", "store", "stability"),
    *("tables", "paraview", "export", "foreign", "shape"),
} | {name for name in ARROWS if name.startswith(("page", "plot", "report", "result"))}
# Loaded with the application itself, for every command and for --help.
LIGHT = {"", "__main__", "app", "options"}


def imports(path: Path, *, deferred: bool) -> set[str]:
    """Absolute names of the modules that a file imports, those inside functions if `deferred`.

    `from landscape import store` counts as landscape.store, and what stands under
    `if TYPE_CHECKING` counts as deferred.
    """
    package = "landscape.cli" if path.parent.name == "cli" else "landscape"
    found = set()
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if deferred or not (inner or typing_only):
            nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                found.add(inside if is_ours(inside) else base)
    return found


def is_ours(name: str) -> bool:
    parts = name.split(".")
    folder = ROOT / "cli" if parts[:2] == ["landscape", "cli"] else ROOT / "landscape"
    rest = parts[2:] if folder.name == "cli" else parts[1:]
    return parts[0] == "landscape" and len(rest) == 1 and (folder / f"{rest[0]}.py").is_file()


def modules(folder: str) -> dict[str, Path]:
    """The modules of a folder; the package itself is ''."""
    paths = sorted((ROOT / folder).glob("*.py"))
    return {path.stem if path.stem != "__init__" else "": path for path in paths}


def test_every_module_of_the_library_has_its_place():
    assert set(modules("landscape")) == set(ARROWS)


@pytest.mark.parametrize("name", ARROWS)
def test_the_library_imports_along_the_arrows_only(name):
    ours = {n for n in imports(modules("landscape")[name], deferred=True) if n.startswith("landsc")}
    allowed = {f"landscape.{other}" for other in ("errors", *ARROWS[name].split())}
    assert ours <= allowed


def test_the_arrows_have_no_circle():
    left = {name: set(others.split()) for name, others in ARROWS.items()}
    while free := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in free}
    assert left == {}


def test_results_store_and_pictures_know_no_torch():
    for name in WITHOUT_TORCH:
        assert set(ARROWS[name].split()) <= WITHOUT_TORCH
        roots = {n.split(".")[0] for n in imports(modules("landscape")[name], deferred=True)}
        assert not roots & {"torch", "safetensors"}, name


def test_nothing_imports_click_or_the_application_by_its_folder():
    for folder in ("landscape", "cli"):
        for path in modules(folder).values():
            roots = {n.split(".")[0] for n in imports(path, deferred=True)}
            assert not roots & {"click", "cli"}, path


def test_what_is_loaded_for_help_is_light():
    seen, todo = set(), {"", "app"}
    while todo:
        seen |= todo
        names = {n for m in todo for n in imports(modules("cli")[m], deferred=False)}
        assert not {n.split(".")[0] for n in names} & HEAVY, todo
        ours = {n for n in names if n.startswith("landscape") and n != "landscape"}
        assert {n for n in ours if not n.startswith("landscape.cli")} <= {"landscape.errors"}
        todo = {n.rpartition(".")[2] for n in ours if n.startswith("landscape.cli.")} - seen
    assert seen >= LIGHT - {"__main__"} | {"surface", "check", "show", "plot", "demo", "init"}
    assert not seen & {"problem", "frame", "session", "demo_task"}


def loaded_by(folder: Path, *arguments: str) -> set[str]:
    """Top-level packages in memory after a command has run in a process of its own."""
    code = (
        "import json, sys\n"
        "from landscape.cli import app\n"
        "try:\n"
        "    app(json.loads(sys.argv[1]), prog_name='landscape')\n"
        "finally:\n"
        "    print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["surface", "--help"]])
def test_help_loads_nothing_heavy(tmp_path, arguments):
    assert not loaded_by(tmp_path, *arguments) & (HEAVY - {"rich"})


@pytest.mark.parametrize("command", ["show {}", "plot {}", "report {}", "export {} -o x.vts"])
def test_what_reads_results_loads_no_torch(terminal, command):
    run = ("line", "ckpt.pt", "--resolution", "5", "--no-plot")
    assert terminal.run(*run).code == 0
    loaded = loaded_by(terminal.folder, *command.format("ckpt.line.h5").split())
    assert "h5py" in loaded
    assert "torch" not in loaded


def test_help_takes_less_than_half_a_second(tmp_path):
    script = Path(sys.executable).with_name("landscape")
    seconds = []
    for _ in range(5):  # of the processor, the best of five: other work is not our time
        before = os.times()
        subprocess.run([script, "surface", "--help"], cwd=tmp_path, capture_output=True, check=True)
        spent = os.times()
        user = spent.children_user - before.children_user
        seconds.append(user + spent.children_system - before.children_system)
    assert min(seconds) < 0.5


def test_idle_threads_do_not_spin(tmp_path):
    code = "import os, landscape.cli; print(os.environ['OMP_WAIT_POLICY'])"
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout == "PASSIVE\n"
