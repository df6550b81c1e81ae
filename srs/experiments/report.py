"""Notebook 90: one HTML page that needs no other file: findings and a figure, the executed notebooks, what made them."""

import base64
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from srs import profiles, sealed, settings, store
from srs.analysis import show
from srs.experiments import certified_accuracy, summary

GROUPS = {  # the notebooks of the page in its order, by what they are about
    "Main result": ("30_certified_accuracy", "31_consistency"),
    "Which rule holds, what votes cost": ("40_soundness", "41_speed"),
    "The method": ("00_quickstart", "05_method"),
    "Ablations and attacks": ("32_ablations", "33_attacks", "34_white_box"),
    "Beside other work": ("36_explicit", "35_imagenet", "80_coverage"),
}
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "papermill", "nbconvert")


def build(profile: settings.Profile, stored: str = "") -> Path:
    """Write figures/<profile>/report.html from the counts and the executed notebooks of a profile; returns its path.

    Args:
        stored: names of profiles, with spaces between, whose tables (of `srs show`) stand first.
    """
    folder = sealed.root() / "data" / profile.name / "notebooks"
    there = {path.stem for path in folder.glob("*.ipynb")} & {name for names in GROUPS.values() for name in names}
    settings.check(there != set(), "executed notebooks", str(folder), "at least one; see `make`")
    others = [profiles.get_profile(name) for name in stored.split() if name != profile.name]
    others = [other for other in others if store.shown(other, "paper_distance.csv").is_file()]
    groups = {"Beside the paper": {other.name: stored_results(other) for other in others}}
    for group, names in GROUPS.items():
        groups[group] = {name: notebook_section(profile, folder / f"{name}.ipynb") for name in names if name in there}
    body = "".join(text for sections in groups.values() for text in sections.values())
    screens = [first_screen(f"{_named(other)}, from stored counts", other, body) for other in others]
    screens.append(first_screen(f"{_named(profile)}, computed here" if others else "What was found", profile, body))
    page = jinja2.Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"), autoescape=True).render(
        profiles=[*others, profile], screens=screens, groups=groups, entries=_entries, unsound=show.RULE_LABELS["released"],
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        versions={package: importlib.metadata.version(package) for package in PACKAGES},
    )  # fmt: skip
    path = store.shown(profile, "report.html")
    sealed.write(path, page.encode())
    return path


def notebook_section(profile: settings.Profile, path: Path) -> str:
    """An executed notebook on the page; what it wrote to stderr is left out."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    began = notebook.metadata.get("papermill", {}).get("start_time", "1970-01-01")  # run by hand: no commit
    return section(profile, path.stem, notebook, _made_by(path, f"{path.name[:2]}.ipynb", f"--before={began}"))


def first_screen(title: str, profile: settings.Profile, body: str) -> dict[str, object]:
    """A title, findings with links to their tables, and the figure of accuracy kept against speed."""
    counted = store.read_counts(profile)
    findings = [(*finding[:2], _link(profile, finding[2], body)) for finding in summary.findings(counted, profile)]
    drawn = section(profile, "first", _notebook("", summary.kept_against_speed(counted, profile)), "")
    return {"title": title, "findings": findings, "drawn": drawn}


def stored_results(profile: settings.Profile) -> str:
    """The main tables of a profile as `srs show` wrote them, with its curves."""
    counted = store.read_counts(profile)
    runs = certified_accuracy.certified_runs(summary.at_main_sigma(counted, profile), profile)
    by_run = [certified_accuracy.name_of(kind, run) for run in runs for kind in ("certified_accuracy", "cost", "cost_by_n")]
    covered = ["coverage"] * any(run.train.recipe == "paper" for run in profile.runs)
    names = ["paper_distance", *by_run, "mean_rrd", "audit_size_pays", *covered]
    tables = [path for name in names if (path := store.shown(profile, f"{name}.md")).is_file()]
    every = certified_accuracy.curves(counted, profile)
    curves = [shown for shown in every if shown.name.startswith("curves_rules")] or every
    notebook = _notebook(f"# {_named(profile)}: beside the paper, from stored counts", [*tables, *curves])
    results = sealed.root() / "data" / "results" / profile.name
    return section(profile, profile.name, notebook, _made_by(results, "counts", "--", str(results)))


def _named(p: settings.Profile) -> str:
    """A profile in a stranger's words."""
    return f"{p.data.name}, {p.images} images, {'up to ' * p.adaptive}{p.n:,} votes an image (profile {p.name})"


def _notebook(heading: str, shown: list[show.Shown | Path]) -> nbformat.NotebookNode:
    """What was shown, or is written as .md, as the outputs of a notebook."""
    outputs = []
    for one in shown:
        if isinstance(one, show.Shown):
            name, caption, data = one.name, one.caption, {"image/png": base64.b64encode(one.png).decode()}
        else:
            table, _, caption = one.read_text().strip().rpartition("\n\n")
            name, data = one.stem, {"text/markdown": table}
        outputs += [new_output("display_data", data), new_output("display_data", {"text/markdown": f"*{name}.* {caption}"})]
    return new_notebook(cells=[new_markdown_cell(heading), new_code_cell(outputs=outputs)])


def section(profile: settings.Profile, name: str, notebook: nbformat.NotebookNode, made_by: str) -> str:
    """An executed notebook without its code: headings a level down, tables that scroll, links to the files of what it shows."""
    hidden = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    body = HTMLExporter(template_name="basic", embed_images=True, **hidden).from_notebook_node(notebook)[0]
    body = re.sub(r"<style.*?</style>|<script.*?</script>|<a class=\"anchor-link\".*?</a>", "", body, flags=re.DOTALL)
    body = re.sub(r"<(/?)h([1-5])\b", lambda h: f"<{h[1]}h{int(h[2]) + 1}", body)
    body = re.sub(r'\b(id="|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"<table.*?</table>", lambda table: f'<div class="wide">{table[0]}</div>', body, flags=re.DOTALL)
    body = re.sub(r"<td([^>]*)>([\w.-]{1,24})</td>", r'<td class="word"\1>\2</td>', body)
    body = re.sub(r"<tr>(?=\s*<td(?:(?!</tr>).)*\(unsound\))", '<tr class="unsound">', body, flags=re.DOTALL)
    return re.sub(r"<p>(<em>([\w.]+)\.</em>)", lambda caption: f"<p>{_files(profile, caption[2], made_by)}{caption[1]}", body)


def _files(profile: settings.Profile, name: str, made_by: str) -> str:
    """Links to the files of a table or figure, and what made it."""
    files = [path for ending in ("csv", "tex", "pdf") if (path := store.shown(profile, f"{name}.{ending}")).is_file()]
    links = " ".join(f'<a href="{_relative(path)}">{path.suffix[1:]}</a>' for path in files)
    return f'<span class="files" id="{profile.name}-{name}">{links} {made_by}</span>'


def _relative(path: Path) -> str:
    """A path as the page, which lies in figures/<profile>, names it."""
    return os.path.relpath(path, sealed.root() / "figures" / "profile")


def _link(profile: settings.Profile, table: str, body: str) -> str:
    """A link to a table: on the page, else its file; nothing where there is neither."""
    file = store.shown(profile, f"{table}.csv")
    target = f"#{profile.name}-{table}" if f'id="{profile.name}-{table}"' in body else _relative(file) if file.is_file() else ""
    return f'<a href="{target}">{table}</a>' if target else ""


def _made_by(path: Path, name: str, *which: str) -> str:
    """A link to what made a table, and the last commit that `git log` has of `which`; none outside a repository."""
    command = ["git", "-C", str(sealed.root()), "log", "-1", "--format=%h", *which]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""
    return f'<a href="{_relative(path)}">{name}</a> {commit}'


def _entries(name: str, body: str) -> list[tuple[str, str]]:
    """The places and texts of a section's headings, the first without what follows its colon."""
    (place, title), *rest = re.findall(r'<h[23] id="([^"]*)">(.*?)</h', body) or [(name, name)]
    return [(name, title.partition(":")[0]), *rest]
