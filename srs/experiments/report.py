"""Notebook 90: one HTML page that needs no other file: findings and a figure, the executed notebooks, what made them."""

import base64
import html
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from srs import profiles, sealed, settings, store
from srs.analysis import show
from srs.analysis.show import Shown
from srs.experiments import certified_accuracy, summary
from srs.settings import Profile
from srs.smoothing.bounds import Rule

GROUPS = {  # the notebooks of the page in its order, by what they are about
    "Main result": ("30_certified_accuracy", "31_consistency"),
    "Which rule holds, what votes cost": ("40_soundness", "41_speed"),
    "The method": ("00_quickstart", "05_method"),
    "Ablations and attacks": ("32_ablations", "33_attacks", "34_white_box"),
    "Beside other work": ("36_explicit", "35_imagenet", "80_coverage"),
}
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "papermill", "nbconvert")
ENDINGS = ("csv", "tex", "pdf")  # of the files that a table or figure links to


def build(profile: Profile, stored: str = "") -> Path:
    """Write figures/<profile>/report.html from the counts and the executed notebooks of a profile; returns its path.

    Args:
        profile: what was computed here.
        stored: names of profiles, with spaces between, whose tables stand first; `srs show` makes them from tracked counts.

    Raises:
        ConfigError: no notebook of the profile has been executed, or no run of it is certified.
    """
    notebooks, folder = executed(profile), store.executed(profile, "any").parent
    settings.check(notebooks != {}, "executed notebooks", str(folder), "at least one; see `make`")
    others = [profiles.get_profile(name) for name in stored.split() if name != profile.name]
    others = [other for other in others if store.shown(other, "paper_distance.csv").is_file()]
    screens = [(f"{other.name}, from stored counts", other) for other in others]
    screens.append((f"{profile.name}, computed here" if others else "What was found", profile))
    sections = {other.name: section(other, other.name, stored_results(other), _source(other)) for other in others}
    groups = [("Beside the paper", sections)]
    for group, names in GROUPS.items():
        there = [(name, notebooks[name]) for name in names if name in notebooks]
        groups.append((group, {name: section(profile, name, book, _made_by(profile, name, book)) for name, book in there}))
    parts = [part for _, sections in groups for part in sections.items()]
    body = "".join(f'<section id="{_anchor(name)}">{text}</section>' for name, text in parts)
    entries = {group: "".join(_entry(name, text) for name, text in sections.items()) for group, sections in groups}
    contents = "".join(f"<li>{group}<ul>{inner}</ul></li>" for group, inner in entries.items() if inner)
    page = PAGE.format(
        style=STYLE, title=" and ".join(p.name for _, p in screens), made=how_made(profile), contents=contents, body=body,
        note=f"<p><b>{html.escape(profile.note)}</b></p>" * bool(profile.note), unsound=show.RULE_LABELS[Rule.RELEASED],
        findings="".join(first_screen(title, p, body) for title, p in screens),
    )  # fmt: skip
    path = store.shown(profile, "report.html")
    sealed.write(path, page.encode())
    return path


def executed(profile: Profile) -> dict[str, nbformat.NotebookNode]:
    """The executed notebooks of a profile that the page shows, in its order; what they wrote to stderr is left out."""
    found = {name: store.executed(profile, name) for names in GROUPS.values() for name in names}
    notebooks = {name: nbformat.read(path, as_version=4) for name, path in found.items() if path.is_file()}
    for notebook in notebooks.values():
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebooks


def first_screen(title: str, profile: Profile, body: str) -> str:
    """Findings with links to their tables, and the figure of accuracy kept against speed beside them."""
    counted = store.read_counts(profile)
    items = "".join(
        f"<li><b>{html.escape(question)}</b> {html.escape(answer)} {_link(profile, table, body)}</li>"
        for question, answer, table in summary.findings(counted, profile)
    )
    drawn = section(profile, "first", _notebook("", summary.kept_against_speed(counted, profile)), "")
    return f'<section class="first"><h2>{title}</h2><div><ul>{items}</ul><div>{drawn}</div></div></section>'


def stored_results(profile: Profile) -> nbformat.NotebookNode:
    """The main tables of a profile as `srs show` wrote them, with its curves, as a notebook."""
    counted = store.read_counts(profile)
    main = summary.at_main_sigma(counted, profile)
    runs = certified_accuracy.certified_runs(main, profile)
    by_run = [certified_accuracy.name_of(kind, run) for run in runs for kind in ("certified_accuracy", "cost")]
    names = ["paper_distance", *by_run, "mean_rrd", "audit_size_pays", "coverage"]
    every = certified_accuracy.curves(counted, profile)
    curves = [shown for shown in every if shown.name.startswith("curves_rules")] or every
    tables = [path for name in names if (path := store.shown(profile, f"{name}.md")).is_file()]
    return _notebook(f"# {profile.name}: beside the paper, from stored counts", [*tables, *curves])


def _notebook(heading: str, shown: list[Shown | Path]) -> nbformat.NotebookNode:
    """What was shown, or is written as .md, as the outputs of a notebook."""
    outputs = []
    for one in shown:
        if isinstance(one, Shown):
            name, caption, data = one.name, one.caption, {"image/png": base64.b64encode(one.png).decode()}
        else:
            table, _, caption = one.read_text().strip().rpartition("\n\n")
            name, data = one.stem, {"text/markdown": table}
        outputs += [new_output("display_data", data), new_output("display_data", {"text/markdown": f"*{name}.* {caption}"})]
    return new_notebook(cells=[new_markdown_cell(heading), new_code_cell(outputs=outputs)])


def section(profile: Profile, name: str, notebook: nbformat.NotebookNode, made_by: str) -> str:
    """An executed notebook without its code: headings a level down, tables that scroll, links to the files of what it shows."""
    hidden = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    body = HTMLExporter(template_name="basic", embed_images=True, **hidden).from_notebook_node(notebook)[0]
    body = re.sub(r"<style.*?</style>|<script.*?</script>|<a class=\"anchor-link\".*?</a>", "", body, flags=re.DOTALL)
    body = re.sub(r"<(/?)h([1-5])\b", lambda h: f"<{h[1]}h{int(h[2]) + 1}", body)
    body = re.sub(r'\b(id="|href="#)', rf"\g<1>{_anchor(name)}-", body)
    body = re.sub(r"<table.*?</table>", lambda table: f'<div class="wide">{table[0]}</div>', body, flags=re.DOTALL)
    body = re.sub(r"<td([^>]*)>([\w.-]{1,24})</td>", r'<td class="word"\1>\2</td>', body)
    body = re.sub(r"<tr>(?=\s*<td(?:(?!</tr>).)*\(unsound\))", '<tr class="unsound">', body, flags=re.DOTALL)
    return re.sub(r"<p>(<em>([\w.]+)\.</em>)", lambda caption: f"<p>{_files(profile, caption[2], made_by)}{caption[1]}", body)


def _files(profile: Profile, name: str, made_by: str) -> str:
    """Links to the files of a table or figure, and what made it."""
    files = [path for ending in ENDINGS if (path := store.shown(profile, f"{name}.{ending}")).is_file()]
    links = " ".join(f'<a href="{_relative(path)}">{path.suffix[1:]}</a>' for path in files)
    return f'<span class="files" id="{profile.name}-{name}">{links} {made_by}</span>'


def _relative(path: Path) -> str:
    """A path as the page, which lies in figures/<profile>, names it."""
    return os.path.relpath(path, sealed.root() / "figures" / "profile")


def _link(profile: Profile, table: str, body: str) -> str:
    """A link to a table: on the page, else its file; nothing where there is neither."""
    file = store.shown(profile, f"{table}.csv")
    target = f"#{profile.name}-{table}" if f'id="{profile.name}-{table}"' in body else _relative(file) if file.is_file() else ""
    return f'<a href="{target}">{table}</a>' if target else ""


def _made_by(profile: Profile, name: str, notebook: nbformat.NotebookNode) -> str:
    """A link to the executed notebook, and the last commit before it ran."""
    began = notebook.metadata.get("papermill", {}).get("start_time")
    commit = _commit(f"--before={began}") if began else ""
    return f'<a href="{_relative(store.executed(profile, name))}">{name[:2]}.ipynb</a> {commit}'


def _source(profile: Profile) -> str:
    """Where stored counts lie, and the commit that they came with."""
    results = sealed.root() / "data" / "results" / profile.name
    return f'<a href="{_relative(results)}">counts</a> {_commit("--", str(results))}'


def _commit(*which: str) -> str:
    """The short name of a commit; empty outside a repository."""
    command = ["git", "-C", str(sealed.root()), "log", "-1", "--format=%h", *which]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _entry(name: str, body: str) -> str:
    """A notebook in the table of contents, with its headings below it."""
    title, *rest = re.findall(r'<h[23] id="([^"]*)">(.*?)</h', body) or [(name, name)]
    inner = "".join(f'<li><a href="#{place}">{text}</a></li>' for place, text in rest)
    return f'<li><a href="#{_anchor(name)}">{title[1].partition(":")[0]}</a><ul>{inner}</ul></li>'


def run_times(profile: Profile) -> pd.DataFrame:
    """How long each executed notebook took by papermill's notes, and whether it finished; those run by hand have none."""
    rows = []
    for path in sorted(store.executed(profile, "any").parent.glob("*.ipynb")):
        if not path.stem.endswith(".part"):  # being executed, this notebook among them
            noted = json.loads(path.read_text())["metadata"].get("papermill", {})
            rows.append((path.stem, noted.get("duration"), "not finished" if noted.get("exception", True) else "finished"))
    frame = pd.DataFrame(rows, columns=["notebook", "seconds", "state"])
    return frame.assign(seconds=frame["seconds"].astype(float).round(1))


def how_made(profile: Profile) -> str:
    """Run times, the machine, and the versions of what numbers and pictures were made with."""
    times = run_times(profile)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    table = f'<div class="wide">{times.to_html(index=False, border=0, na_rep="")}</div>'
    return f"{table}<p>{times['seconds'].sum():.1f} s in all. {machine}, {versions}.</p>"


STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --dim: #666; --line: #ddd; --bad: #a33; --link: #06c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #ddd; --dim: #999; --line: #3a3d44; --bad: #f08a80; --link: #7ab8ff; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
body { display: grid; grid-template-columns: 230px minmax(0, 1100px); gap: 0 30px; }
main { padding: 1em 10px 4em 0; } main p, main li { max-width: 46em; }
a { color: var(--link); text-decoration: none; } nav a { color: inherit; }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; box-sizing: border-box; padding: 1em; font-size: 13px; }
nav { border-right: 1px solid var(--line); }
nav ul { list-style: none; margin: 0; padding: 0; } nav > ul > li { font-weight: bold; margin-top: .8em; }
nav ul ul { font-weight: normal; } nav ul ul ul { padding-left: .9em; color: var(--dim); font-size: 12px; }
nav label, nav input { display: none; }
section { border-top: 1px solid var(--line); margin-top: 2em; } h2, h3, h4 { line-height: 1.25; }
section, h2, h3, h4 { scroll-margin-top: 2.5em; }
.first > div { display: grid; grid-template-columns: minmax(0, 1fr) 400px; gap: 20px; }
.first ul { padding-left: 1.2em; margin: 0; }
.first li { margin-bottom: .6em; } .first li a { font-size: 12px; } .first p { font-size: 12px; color: var(--dim); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12px; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 6px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--dim); } td[style*="right"], .word { white-space: nowrap; }
tr.unsound { color: var(--bad); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
pre { overflow-x: auto; font-size: 12px; }
.files { float: right; font-size: 12px; margin-left: 1em; color: var(--dim); }
.jp-OutputArea-child { margin-top: .8em; }
@media (max-width: 900px) {
  body { display: block; } main { padding: 0 12px 3em; } .first > div { display: block; }
  nav { height: auto; max-height: 80vh; border: 0; border-bottom: 1px solid var(--line); padding: .5em 12px; }
  nav { background: var(--paper); z-index: 1; }
  nav label { display: block; font-weight: bold; } nav input:not(:checked) ~ ul { display: none; }
  td:not([style*="right"], .word) { min-width: 7.5em; }
}
"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Serialized randomized smoothing: {title}</title>
<style>
{style}</style>
</head>
<body>
<nav><input type="checkbox" id="menu"><label for="menu">&#9776; Contents</label>
<ul>{contents}<li><a href="#made">How it was made</a></li></ul></nav>
<main>
<h1>Serialized randomized smoothing for deep equilibrium models</h1>
{note}
<p>Every number is made from stored votes. SRS votes are certified by three rules: <b>audit</b> (ours), <b>theorem31</b> (the
paper's Theorem 3.1), and <b>{unsound}</b>, the formula of the authors' code, whose certificates do not hold.</p>
{findings}
{body}
<section id="made"><h2>How it was made</h2>
{made}
</section>
</main>
</body>
</html>
"""
