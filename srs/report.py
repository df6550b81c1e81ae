"""One self-contained HTML page with every table and figure of a profile, what made it and how good the models are.

Everything comes from the folder of a profile's figures and their sidecars, from the executed notebooks and from the
model cards (as the table `model_quality`); nothing is computed here.
"""

import base64
import csv
import importlib.metadata
import io
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import jinja2

from srs import shown, tables
from srs.settings import Profile
from srs.shown import About
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, sealed

NAME = "report"
T = TypeVar("T")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn", "papermill")


@dataclass(frozen=True)
class Item:
    """A table or figure as the page shows it: `rows` of a table, header first, or `png` in base64."""

    name: str
    about: About
    rows: list[list[str]]
    png: str
    files: list[str]  # what lies beside it in the folder


@dataclass(frozen=True)
class Execution:
    """How an executed notebook went; `seconds` is None where papermill noted none."""

    notebook: str
    seconds: float | None
    finished: bool


def _item(folder: Path, name: str, about: About) -> Item:
    stem = folder / name
    endings = (".md", ".tex", ".csv") if about.kind == "table" else (".pdf", ".png")
    files = [shown.beside(stem, ending) for ending in endings]
    rows, png = [], ""
    if about.kind == "table":
        rows = _shown_file(shown.beside(stem, ".csv"), lambda text: list(csv.reader(io.StringIO(text.decode(), newline=""))))
    else:
        png = _shown_file(shown.beside(stem, ".png"), lambda content: base64.b64encode(content).decode())
    return Item(name, about, rows, png, [file.name for file in files if file.is_file()])


def _shown_file(path: Path, parse: Callable[[bytes], T]) -> T:
    return sealed.read(path, "table or figure", parse, by="srs.remake", plain=True)


def items(profile: Profile) -> list[Item]:
    """Every complete table and figure in the profile's folder, in the order of the notebooks."""
    folder = paths.shown(profile, NAME).parent
    return [_item(folder, name, about) for name, about in shown.listed(folder).items()]


def executions(profile: Profile) -> list[Execution]:
    """Every executed notebook of the profile but the one that is making this page."""
    folder = paths.executed(profile, NAME).parent
    return [_execution(path) for path in sorted(folder.glob("*.ipynb")) if path.stem != "90_report"]


def _execution(path: Path) -> Execution:
    try:
        noted = json.loads(path.read_text())["metadata"]["papermill"]
    except (OSError, ValueError, KeyError, TypeError):  # a notebook run by hand, or one being written
        return Execution(path.stem, None, False)
    seconds = noted.get("duration")
    return Execution(path.stem, seconds, seconds is not None and not noted.get("exception"))


def settings(profile: Profile) -> list[tuple[str, str]]:
    """The profile's settings as (name, value), models and methods in a line each."""
    plain = {name: value for name, value in asdict(profile).items() if name not in ("data", "models", "recipes_at", "methods", "baselines")}
    lines = [(name, _text(value)) for name, value in plain.items()]
    lines.append(("data", _in_a_line(asdict(profile.data))))
    for model, train in (*profile.models, *profile.baselines):
        lines.append((f"model {model.name}", _in_a_line(asdict(model))))
        lines.append((f"training of {model.name}", _in_a_line(asdict(train))))
    for sigma, train in profile.recipes_at:
        lines.append((f"training of recipe {train.recipe} at sigma {sigma:g}", _in_a_line(asdict(train))))
    return lines + [(f"method {m.name}", _in_a_line(asdict(m))) for m in profile.methods]


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _in_a_line(fields: dict) -> str:
    return ", ".join(f"{name} = {value}" for name, value in fields.items() if name != "name")


def environment() -> list[tuple[str, str]]:
    """Versions of what the numbers and pictures were made with, and the kind of machine."""
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    versions = [(name, found.get(name, "not installed")) for name in PACKAGES]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [("python", platform.python_version()), *versions, ("machine", machine)]


def clock(seconds: float | None) -> str:
    """A duration as it is read: 4.2 s, 3 min 07 s, 2 h 05 min."""
    if seconds is None:
        return "not noted"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def build(profile: Profile) -> Path:
    """Write figures/<profile>/report.html from what the folder holds; returns its path."""
    found, ran = items(profile), executions(profile)
    sections: dict[str, list[Item]] = {}
    for item in found:
        sections.setdefault(item.about.made_by, []).append(item)
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = page.from_string(TEMPLATE).render(
        profile=profile, sections=sections, executions=ran, settings=settings(profile), environment=environment(),
        unsound=tables.RULE_LABELS[Rule.RELEASED], published=lambda row: any(cell.startswith("as published") for cell in row),
        clock=clock, total=sum(e.seconds or 0 for e in ran), seconds={e.notebook: e.seconds for e in ran},
    )  # fmt: skip
    path = shown.beside(paths.shown(profile, NAME), ".html")
    shown.write_whole(path, html.encode())
    return path


TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Serialized randomized smoothing: {{ profile.name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 7px; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
.wide { overflow-x: auto; }
.settings td { white-space: normal; vertical-align: top; }
tr.unsound { color: #a33; }
tr.published { color: #666; font-style: italic; }
figure { margin: 2em 0; }
figure img { max-width: 100%; width: 480px; }
figcaption { max-width: 760px; font-size: 13px; margin-top: .5em; }
.made { color: #777; font-size: 12px; }
nav li { display: inline-block; margin-right: 1em; }
</style>
</head>
<body>
<h1>Serialized randomized smoothing for deep equilibrium models: profile {{ profile.name }}</h1>
{% if profile.note %}
<p><b>{{ profile.note }}</b></p>
{% endif %}
<p>Every table and figure below is made from stored votes. SRS rows stand under three rules: <b>audit</b> (ours),
<b>theorem31</b> (the paper's Theorem 3.1), and <b>released (unsound)</b>, the formula of the authors' code, whose
certificates do not hold and which is shown for comparison only.</p>
<nav><ul>
{% for made_by, items in sections.items() %}
{% for item in items %}
<li><a href="#{{ item.name }}">{{ item.name }}</a></li>
{% endfor %}
{% endfor %}
<li><a href="#how">how it was made</a></li>
</ul></nav>
{% for made_by, items in sections.items() %}
<h2>{{ made_by }}</h2>
<p class="made">Made by notebooks/{{ made_by }}.ipynb, {{ clock(seconds.get(made_by)) if made_by in seconds else
"not executed as a notebook" }}.</p>
{% for item in items %}
<figure id="{{ item.name }}">
{% if item.about.kind == "table" %}
<div class="wide"><table>
<tr>{% for cell in item.rows[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in item.rows[1:] %}
<tr{% if unsound in row %} class="unsound"{% elif published(row) %} class="published"{% endif %}>
{%- for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% else %}
<img alt="{{ item.about.caption }}" src="data:image/png;base64,{{ item.png }}">
{% endif %}
<figcaption><b>{{ item.name }}.</b> {{ item.about.caption }}
<span class="made">Files: {{ item.files | join(", ") }}.</span></figcaption>
</figure>
{% endfor %}
{% else %}
<p>The folder holds no table and no figure yet.</p>
{% endfor %}
<h2 id="how">How it was made</h2>
<h3>Executed notebooks</h3>
<table>
<tr><th>notebook</th><th>time</th><th>state</th></tr>
{% for e in executions %}
<tr><td>{{ e.notebook }}</td><td>{{ clock(e.seconds) }}</td>
<td>{{ "finished" if e.finished else "not finished" }}</td></tr>
{% endfor %}
<tr><td>all of them, one after another</td><td>{{ clock(total) }}</td><td></td></tr>
</table>
<h3>Settings of the profile</h3>
<table class="settings">
{% for name, value in settings %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
<h3>Environment</h3>
<table>
{% for name, value in environment %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
</body>
</html>
"""


if __name__ == "__main__":
    print(build(shown.profile_argument("python -m srs.report", "Build the report of a profile.")))
