"""Notebook 90: one HTML page that needs no other file: findings, stored tables, the executed notebooks, what made them."""

import base64
import html
import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from srs import profiles, sealed, settings, store
from srs.experiments import certified_accuracy, summary
from srs.settings import Profile

NOTEBOOKS = (  # of the page, in its order
    "30_certified_accuracy", "31_consistency", "40_soundness", "41_speed", "00_quickstart", "05_method", "32_ablations",
    "33_attacks", "34_white_box", "36_explicit", "35_imagenet", "80_coverage",
)  # fmt: skip
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "papermill", "nbconvert")


def build(profile: Profile, stored: str = "") -> Path:
    """Write figures/<profile>/report.html from the counts and the executed notebooks of a profile; returns its path.

    Args:
        profile: what was computed here.
        stored: names of profiles, with spaces between, whose tables stand first; `srs show` makes them from tracked counts.

    Raises:
        ConfigError: no notebook of the profile has been executed, or no run of it is certified.
    """
    there = {name: path for name in NOTEBOOKS if (path := store.executed(profile, name)).is_file()}
    settings.check(there != {}, "executed notebooks", str(store.executed(profile, "").parent), "at least one; see `make`")
    others = [profiles.get_profile(name) for name in stored.split() if name != profile.name]
    others = [other for other in others if store.shown(other, "paper_distance.csv").is_file()]
    sections = {f"{other.name}, from stored counts": findings(other) + stored_results(other) for other in others}
    sections[f"{profile.name}, computed here"] = findings(profile)
    body = "".join(f'<h1 id="part-{i}">{title}</h1>{text}' for i, (title, text) in enumerate(sections.items()))
    body += "".join(section(profile, name, path) for name, path in there.items()) + how_made(profile)
    body = re.sub(r'<a href="#([^"]*)">(.*?)</a>', lambda link: link[0] if f'id="{link[1]}"' in body else link[2], body)
    contents = "".join(f'<li><a href="#{place}">{text}</a></li>' for place, text in re.findall(r'<h1 id="(.*?)">(.*?)<', body))
    path, note = store.shown(profile, "report.html"), html.escape(profile.note)
    sealed.write(path, PAGE.format(note=note, contents=contents, body=body).encode())
    return path


def findings(profile: Profile) -> str:
    """The findings of a profile, each with a link to its table."""
    items = (
        f'<li><b>{question}</b> {html.escape(answer)} <a href="#{profile.name}-{table}">{table}</a></li>'
        for question, answer, table in summary.findings(store.read_counts(profile), profile)
    )
    return f"<ul>{''.join(items)}</ul>"


def stored_results(profile: Profile) -> str:
    """The main tables and curves of a profile as `srs show` wrote them."""
    run = summary.main_run(store.read_counts(profile), profile)
    by_run = [certified_accuracy.name_of(kind, run) for kind in ("certified_accuracy", "cost")]
    shown = []
    for name in ("paper_distance", *by_run, "mean_rrd", "audit_size_pays", "coverage"):
        if (path := store.shown(profile, f"{name}.csv")).is_file():
            caption = html.escape(path.with_suffix(".md").read_text().strip().rpartition("\n\n")[2])
            table = pd.read_csv(path, dtype=str, keep_default_na=False).to_html(index=False, border=0)
            shown.append(f'{table}<p id="{profile.name}-{name}"><em>{name}.</em> {caption}</p>')
    for path in sorted(store.shown(profile, "").glob("curves_*.png")):
        shown.append(f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" alt="{path.stem}">')
    return "".join(shown)


def section(profile: Profile, name: str, path: Path) -> str:
    """An executed notebook without its code and warnings; its captions can be linked to."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    hidden = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    body = HTMLExporter(template_name="basic", embed_images=True, **hidden).from_notebook_node(notebook)[0]
    body = re.sub(r"<style.*?</style>|<script.*?</script>|<a class=\"anchor-link\".*?</a>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|href="#)', rf"\g<1>{name}-", body)
    return re.sub(r"<p>(?=<em>([\w.-]+)\.</em>)", rf'<p id="{profile.name}-\g<1>">', body)


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
    table = times.to_html(index=False, border=0)
    return f'<h1 id="made">How it was made</h1>{table}<p>{times["seconds"].sum():.1f} s in all. {machine}, {versions}.</p>'


PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Serialized randomized smoothing for deep equilibrium models</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 0 auto; padding: 0 12px 3em; }}
p, li {{ max-width: 46em; }} h1 {{ font-size: 1.5em; border-top: 1px solid #ddd; }} img {{ max-width: 100%; }}
table {{ display: block; overflow-x: auto; border-collapse: collapse; font-size: 12px; }}
th, td {{ padding: 2px 6px; border-bottom: 1px solid #ddd; text-align: left; }} td[style*="right"] {{ white-space: nowrap; }}
</style>
</head>
<body>
<p><b>{note}</b></p>
<p>Serialized randomized smoothing for deep equilibrium models. Every number is made from stored votes. SRS votes are certified
by three rules: <b>audit</b> (ours), <b>theorem31</b> (the paper's Theorem 3.1), and <b>released (unsound)</b>, the formula of
the authors' code, whose certificates do not hold.</p>
<ul>{contents}</ul>
{body}
</body>
</html>
"""
