"""Notebook 90: the executed notebooks of a profile as one HTML page that needs no other file, with what made it."""

import html
import importlib.metadata
import os
import platform
import re
from dataclasses import fields
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from srs import sealed, settings, store
from srs.analysis import show
from srs.settings import Profile
from srs.smoothing.bounds import Rule

GROUPS = {  # the notebooks of the page in its order, by what they are about
    "Main result": ("30_certified_accuracy", "31_consistency"),
    "Which rule holds, what votes cost": ("40_soundness", "41_speed"),
    "The method": ("00_quickstart", "05_method"),
    "Ablations and attacks": ("32_ablations", "33_attacks", "34_white_box"),
    "Beside other work": ("36_explicit", "35_imagenet", "80_coverage"),
}
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn", "papermill", "nbconvert")
FIRST = 5  # findings that open the page
ENDINGS = ("csv", "tex", "pdf")  # of the files that a table or figure links to


def executed(profile: Profile) -> dict[str, nbformat.NotebookNode]:
    """The executed notebooks of a profile that the page shows, in its order; what they wrote to stderr is left out."""
    found = {name: store.executed(profile, name) for names in GROUPS.values() for name in names}
    notebooks = {name: nbformat.read(path, as_version=4) for name, path in found.items() if path.is_file()}
    for notebook in notebooks.values():
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebooks


def findings(profile: Profile) -> list[str]:
    """The sentences that the executed notebooks show as findings (`show.finding`), in the order of the page."""
    opening = show.finding("").data
    outputs = (output for notebook in executed(profile).values() for cell in notebook.cells for output in cell.get("outputs", ()))
    texts = (output.get("data", {}).get("text/markdown", "") for output in outputs)
    return [text.removeprefix(opening) for text in texts if text.startswith(opening)]


def section(profile: Profile, name: str, notebook: nbformat.NotebookNode) -> str:
    """One executed notebook without its code: headings a level down, tables that scroll, links to the files of what it shows."""
    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True
    )
    body = exporter.from_notebook_node(notebook)[0]
    body = re.sub(r"<style.*?</style>|<script.*?</script>|<a class=\"anchor-link\".*?</a>", "", body, flags=re.DOTALL)
    body = re.sub(r"<(/?)h([1-5])\b", lambda h: f"<{h[1]}h{int(h[2]) + 1}", body)
    body = re.sub(r'\b(id="|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"<table.*?</table>", lambda table: f'<div class="wide">{table[0]}</div>', body, flags=re.DOTALL)
    body = re.sub(r"<tr>(?=\s*<td(?:(?!</tr>).)*\(unsound\))", '<tr class="unsound">', body, flags=re.DOTALL)
    return re.sub(r"<p><em>([\w.]+)\.</em>", lambda caption: f"<p>{_files(profile, caption[1])}<em>{caption[1]}.</em>", body)


def _files(profile: Profile, name: str) -> str:
    """Links to the files of a table or figure that lie beside the page."""
    there = [f"{name}.{ending}" for ending in ENDINGS if store.shown(profile, f"{name}.{ending}").is_file()]
    links = " ".join(f'<a href="{file}">{file.rpartition(".")[2]}</a>' for file in there)
    return f'<span class="files" id="{name}">{links}</span>'


def run_times(profile: Profile) -> pd.DataFrame:
    """How long each executed notebook took by papermill's notes, and whether it finished; those run by hand have none."""
    rows = []
    for path in sorted(store.executed(profile, "any").parent.glob("*.ipynb")):
        if path.stem.endswith(".part"):  # being executed, this notebook among them
            continue
        try:
            noted = nbformat.read(path, as_version=4).metadata.get("papermill", {})
        except nbformat.reader.NotJSONError:  # one that is being written
            noted = {}
        seconds = noted.get("duration")
        state = "finished" if seconds is not None and not noted.get("exception") else "not finished"
        rows.append({"notebook": path.stem, "seconds": seconds, "time": clock(seconds), "state": state})
    return pd.DataFrame(rows, columns=["notebook", "seconds", "time", "state"])


def clock(seconds: float | None) -> str:
    """A duration as it is read: 4.2 s, 3 min 07 s, 2 h 05 min."""
    if seconds is None:
        return "not noted"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def versions() -> dict[str, str]:
    """Versions of what numbers and pictures were made with, and the kind of machine."""
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"python": platform.python_version(), **{name: found.get(name, "not installed") for name in PACKAGES}, "machine": machine}


def settings_of(profile: Profile) -> dict[str, str]:
    """The profile's plain settings; those of models, recipes and methods by their names."""
    plain = {f.name: getattr(profile, f.name) for f in fields(profile)}
    named = {
        "data": profile.data.name, "methods": [m.name for m in profile.methods], "runs": [run.id for run in profile.every_run],
    }  # fmt: skip
    kept = {k: v for k, v in (plain | named).items() if k not in ("plan", "attacks")}
    return {k: ", ".join(map(str, v)) if isinstance(v, (tuple, list)) else str(v) for k, v in kept.items()}


def build(profile: Profile) -> Path:
    """Write figures/<profile>/report.html from the executed notebooks; returns its path.

    Raises:
        ConfigError: no notebook of the profile has been executed.
    """
    notebooks, folder = executed(profile), store.executed(profile, "any").parent
    settings.check(notebooks != {}, "executed notebooks", str(folder), "at least one; `make` executes them")
    sections = {name: section(profile, name, notebook) for name, notebook in notebooks.items()}
    contents, body = [], []
    for group, names in GROUPS.items():
        there = [name for name in names if name in sections]
        contents += [f"<li>{group}<ul>{''.join(_entry(name, sections[name]) for name in there)}</ul></li>"] if there else []
        body += [f'<section id="{name}">{sections[name]}</section>' for name in there]
    times = run_times(profile)
    total = pd.DataFrame([{"notebook": "all of them, one after another", "time": clock(times["seconds"].sum()), "state": ""}])
    frames = {
        "Run times of the notebooks": pd.concat([times, total])[["notebook", "time", "state"]],
        "Settings of the profile": pd.DataFrame(settings_of(profile).items(), columns=["setting", "value"]),
        "Versions": pd.DataFrame(versions().items(), columns=["package", "version"]),
    }
    made = "".join(f'<h3>{title}</h3><div class="wide">{frame.to_html(index=False, border=0)}</div>' for title, frame in frames.items())
    first = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in findings(profile)[:FIRST])
    page = PAGE.format(
        style=STYLE, profile=profile.name, note=f"<p><b>{html.escape(profile.note)}</b></p>" * bool(profile.note), made=made,
        unsound=show.RULE_LABELS[Rule.RELEASED], contents="".join(contents), body="".join(body),
        findings=f'<section id="findings"><h2>Findings</h2><ul>{first}</ul></section>' if first else "",
    )  # fmt: skip
    path = store.shown(profile, "report.html")
    sealed.write(path, page.encode())
    return path


def _entry(name: str, body: str) -> str:
    """A notebook in the table of contents, with its headings below it."""
    title, *rest = re.findall(r'<h[23] id="([^"]*)">(.*?)</h', body) or [(name, name)]
    inner = "".join(f'<li><a href="#{place}">{text}</a></li>' for place, text in rest)
    return f'<li><a href="#{name}">{title[1].partition(":")[0]}</a><ul>{inner}</ul></li>'


STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --dim: #666; --line: #ddd; --bad: #a33; --link: #06c; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #ddd; --dim: #999; --line: #3a3d44; --bad: #f08a80; --link: #7ab8ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
body { display: grid; grid-template-columns: 230px minmax(0, 1100px); gap: 0 30px; }
main { padding: 1em 10px 4em 0; } main p, main li { max-width: 46em; }
a { color: var(--link); text-decoration: none; } nav a { color: inherit; }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; box-sizing: border-box; padding: 1em; font-size: 13px; border-right: 1px solid var(--line); }
nav ul { list-style: none; margin: 0; padding: 0; } nav > ul > li { font-weight: bold; margin-top: .8em; }
nav ul ul { font-weight: normal; } nav ul ul ul { padding-left: .9em; color: var(--dim); font-size: 12px; }
nav label, nav input { display: none; }
section { border-top: 1px solid var(--line); margin-top: 2em; scroll-margin-top: 2.5em; } h2, h3, h4 { line-height: 1.25; scroll-margin-top: 2.5em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12px; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 6px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--dim); } td[style*="right"] { white-space: nowrap; }
tr.unsound { color: var(--bad); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
pre { overflow-x: auto; font-size: 12px; }
.files { float: right; font-size: 12px; margin-left: 1em; }
.jp-OutputArea-child { margin-top: .8em; }
@media (max-width: 900px) {
  body { display: block; } main { padding: 0 12px 3em; }
  nav { height: auto; max-height: 80vh; border: 0; border-bottom: 1px solid var(--line); background: var(--paper); padding: .5em 12px; z-index: 1; }
  nav label { display: block; font-weight: bold; } nav input:not(:checked) ~ ul { display: none; }
  td:not([style*="right"]) { min-width: 7.5em; }
}
"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Serialized randomized smoothing: {profile}</title>
<style>
{style}</style>
</head>
<body>
<nav><input type="checkbox" id="menu"><label for="menu">&#9776; Contents</label>
<ul>{contents}<li><a href="#made">How it was made</a></li></ul></nav>
<main>
<h1>Serialized randomized smoothing for deep equilibrium models: profile {profile}</h1>
{note}
<p>Every table and figure is made from stored votes. SRS rows stand under three rules: <b>audit</b> (ours), <b>theorem31</b> (the
paper's Theorem 3.1), and <b>{unsound}</b>, the formula of the authors' code, whose certificates do not hold and which is shown
for comparison only.</p>
{findings}
{body}
<section id="made"><h2>How it was made</h2>
{made}
</section>
</main>
</body>
</html>
"""
