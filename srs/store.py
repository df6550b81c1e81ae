"""What is stored of a run: one folder, data/<profile>/<run>/, with weights, card, votes, counts and further tables.

What we made ourselves and ship has the same names in data/zoo/<data set>/<run>/ (models) and data/results/<profile>/<run>/
(tables). What was computed here comes first; what is shipped stands in for it.
"""

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from srs import sealed, settings
from srs.settings import ABSTAIN, Profile, Run

WEIGHTS, TRAIN_MEAN, CARD, CHECKPOINT = "weights.safetensors", "train_mean.safetensors", "card.json", "checkpoint"
MODEL = (WEIGHTS, TRAIN_MEAN, CARD)
COUNTS = "counts.csv"  # of all the run's methods; like every table, it has a .json of that name with what made it
RUN = ["model", "recipe", "sigma"]  # what names a run
ROW = {"idx": int, "label": int, "predict": int, "radius": float, "correct": int, "time": str}  # Cohen et al.'s columns
NOT_DRAWN = ABSTAIN - 1
ATTACKED = {  # the columns of attacked images, a row per image and radius; classes are NOT_DRAWN where nobody was asked
    "idx": int, "label": int, "attack": str, "steps": int,
    "nfe": int,  # evaluations of f and vector-Jacobian products that the attack spent on the image
    "radius": float, "distance": float,  # allowed, and taken
    "base": int,  # the base classifier's answer, without noise
    "n": int,  # votes of the reference method; 0: only the base classifier was attacked
    "own": int,  # the most frequent class among them
    "further": str,  # further votes for each class, as "0 380 20"; drawn where the first ones contradict a certificate
}  # fmt: skip
AT_MOST = {"n_a": "n", "k": "n_a", "m": "k", "n_2": "n_a", "n_1": "n_2", "n_wrong": "n_a", "n_differ": "n"}  # of the counts


def own(run: Run, name: str) -> Path:
    """A file of a run that is computed here."""
    return sealed.root() / "data" / run.profile.name / run.id / name


def tracked(run: Run, name: str) -> Path:
    """Where the shipped copy of a file of a run lies."""
    where = f"zoo/{run.profile.data.name}" if name in MODEL else f"results/{run.profile.name}"
    return sealed.root() / "data" / where / run.id / name


def find(run: Run, name: str) -> Path | None:
    """A file of a run, from here, else as shipped; None if there is neither."""
    return next((path for path in (own(run, name), tracked(run, name)) if path.is_file()), None)


def shown(profile: Profile, name: str) -> Path:
    """A table or figure that the reader sees."""
    return sealed.root() / "figures" / profile.name / name


def published(name: str) -> Path:
    """Numbers that others published, tracked."""
    return Path(__file__).resolve().parents[1] / "data" / "published" / f"{name}.csv"


def brought(*parts: str) -> Path:
    """What the user brought, below SRS_DATA: <data set>/<split>/<class>/*, or golden/<a result of others>."""
    return Path(os.environ.get("SRS_DATA") or sealed.root() / "data" / "raw").joinpath(*parts)


def card(run: Run) -> dict:
    """The model card of a run; empty if there is none."""
    return sealed.read_json(path, "model card", by="train") if (path := find(run, CARD)) else {}


def recipe_key(run: Run) -> str:
    """What a shipped model must have been made with to stand in for training the run."""
    return settings.fingerprint(*map(_changed, (run.profile.data, run.model, run.train)), run.sigma, run.profile.seed)


def _changed(record: object) -> dict:
    """The fields that differ from their default: a setting that is added later leaves the key of older models alone."""
    values = {f.name: (getattr(record, f.name), f.default) for f in fields(record)}
    return {k: _changed(v) if is_dataclass(v) else v for k, (v, default) in values.items() if v != default}


def ship(profile: Profile) -> list[Path]:
    """Put models and tables of the profile's finished runs where they are tracked; what was put."""
    put = []
    for run in dict.fromkeys((*profile.every_run, *(run.parent for run in profile.every_run if run.parent))):
        left = () if own(run, CARD).is_file() and not card(run).get("shipped") else MODEL  # not trained here
        left += () if _complete(run, own(run, COUNTS)) is not None else (COUNTS, "counts.json")
        for path in sorted(own(run, "any").parent.glob("*.*")):
            if path.suffix in (".safetensors", ".csv", ".json") and path.name not in left:
                put.append(tracked(run, path.name))
                sealed.write_changed(put[-1], path.read_bytes())
    return put


def save_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table of measurements with its seal, whole or not at all."""
    sealed.save(path, frame.to_csv(index=False, lineterminator="\n").encode())


def read_frame(path: Path, columns: Mapping[str, type], what: str, *, by: str) -> pd.DataFrame:
    """A stored table of measurements with these columns, of these types; raises what `sealed.read` raises."""
    return sealed.read(path, what, lambda body: _parse(body, columns), by=by)


def _parse(body: bytes, columns: Mapping[str, type]) -> pd.DataFrame:
    unknown = {name: ["", "nan"] for name, kind in columns.items() if kind is float}  # text may be "NA"
    return pd.read_csv(io.BytesIO(body), dtype=dict(columns), na_values=unknown, keep_default_na=False)[list(columns)]


def in_order(values: Iterable, order: Iterable | None = None) -> pd.Categorical:
    """The values as categories in the given order, else that of their first appearance, in which groups come out."""
    values = list(values)
    return pd.Categorical(values, list(dict.fromkeys(values if order is None else order)), ordered=True)


def read_attacks(run: Run, name: str = "attacks") -> pd.DataFrame:
    """The attacked images of a run, from what was computed here, else from what is shipped; columns as in ATTACKED."""
    return read_frame(find(run, f"{name}.csv") or own(run, f"{name}.csv"), ATTACKED, "table of attacked images", by="")


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image under one method; -1 where a count was not taken."""

    idx: int  # position in the test split
    label: int
    c_a: int  # most frequent class of the selection samples; ABSTAIN if no sample had a class
    n: int  # estimation samples
    n_a: int  # of them, votes for c_A
    k: int  # votes for c_A that the auditor (the reference method, or the method's own) solved again, drawn uniformly
    m: int  # of them, those that the auditor calls otherwise
    n_2: int  # votes for c_A among K samples drawn uniformly from all n (Theorem 3.1)
    n_1: int  # of them, those that the auditor calls c_A too
    n_wrong: int  # of the n_a votes, those that the auditor does not give (all n, same noise)
    n_differ: int  # of the n votes, those that differ from the reference method's (same noise)
    nfe_select: int
    nfe_estimate: int
    nfe_audit: int
    seconds: float  # wall time of all three stages


KINDS = {f.name: float if f.type is float else np.int64 for f in fields(ImageCounts)}
COLUMNS = tuple(KINDS)


def drawn_as(run: Run, method: settings.Method) -> dict:
    """What a method's votes are drawn by, but for weights and images."""
    return {"sigma": run.sigma, "method": asdict(method), "sampling": asdict(run.profile.sampling)}


def _contradict(made: object, now: object) -> bool:
    """Whether two records differ in a field that both have: fields come and go with releases."""
    both = made.keys() & now.keys() if isinstance(made, dict) and isinstance(now, dict) else None
    return made != now if both is None else any(_contradict(made[name], now[name]) for name in both)


def write_counts(run: Run, counted: Mapping[str, Iterable[ImageCounts]], made_by: Mapping[str, dict]) -> None:
    """Write the counts of a run by the methods' names, a row per image and method, and the `provenance` that made them."""
    path = own(run, COUNTS)
    if path.is_file() and {*read_frame(path, {"method": str}, "result file", by="certify")["method"]} - counted.keys():
        path.replace(path.with_name(f"{COUNTS}.before"))  # of other methods, or drawn by other code
    rows = [pd.DataFrame(counts, columns=COLUMNS).sort_values("idx").assign(method=name) for name, counts in counted.items()]
    save_frame(path, pd.concat(rows)[["method", *COLUMNS]])
    sealed.write_json(path.with_suffix(".json"), dict(made_by))


def read_counts(profile: Profile) -> pd.DataFrame:
    """Every stored count of a profile's DEQs, in the profile's order.

    Columns: model, recipe, sigma, method (ordered categories), and others of `label` and `ImageCounts`; n_max 0: n was fixed.
    """
    found = {run: rows for run in profile.runs if (rows := read_run(run)) is not None}
    settings.check(found != {}, "result file", str(own(profile.runs[0], COUNTS)), "one that is there; `srs certify` makes it")
    if left_out := [run.id for run in profile.runs if run not in found]:
        warnings.warn(f"not certified, so left out of what is shown: {', '.join(left_out)}", stacklevel=2)
    counts = pd.concat(found.values(), ignore_index=True)
    methods = [m.name for p in (profile, *(run.profile for run in profile.runs)) for m in p.methods]
    orders = {"model": None, "recipe": None, "sigma": sorted(set(counts["sigma"])), "method": methods}
    return counts.assign(**{name: in_order(counts[name], order) for name, order in orders.items()})


def read_run(run: Run) -> pd.DataFrame | None:
    """The counts of one run, from here, else as shipped; None where not all its methods are there."""
    found = _complete(run, own(run, COUNTS))
    return _complete(run, tracked(run, COUNTS)) if found is None else found


def _complete(run: Run, path: Path) -> pd.DataFrame | None:
    """The counts of a file; None where it is not there or lacks one of the run's methods."""
    if not path.is_file():
        return None
    found = sealed.read(path, "result file", lambda body: _checked(_parse(body, {"method": str} | KINDS)), by="certify")
    p, parts, made_by = run.profile, [], sealed.read_json(path.with_suffix(".json"), "record of counts", by="certify")
    for method in p.methods:
        rows = found[found["method"] == method.name].drop(columns="method")
        if rows.empty:
            return None
        enough = rows["n"] <= p.n if p.sampling.n_max(method) else rows["n"] == p.n
        right = np.array_equal(rows["idx"], p.evaluated) and enough.all() and rows["c_a"].max() < p.data.classes
        want = f"{p.images} images, every {p.stride}., with {p.n} votes for {p.data.classes} classes, as {p.name} has"
        settings.check(right, f"{method.name} in result file", str(path), f"{want}: `srs certify` counts anew")
        other = _contradict(made_by.get(method.name), json.loads(json.dumps(drawn_as(run, method))))
        settings.check(not other, f"{method.name} in result file", str(path), "counts of these settings, from `srs certify`")
        parts.append(label(run, method, rows))
    return pd.concat(parts, ignore_index=True)


def _checked(counts: pd.DataFrame) -> pd.DataFrame:
    """The counts themselves; ValueError if they contradict each other or an image is there twice."""
    more = any((counts[part] > counts[whole]).any() for part, whole in AT_MOST.items())
    less = (counts[[*AT_MOST, "c_a"]] < -1).any(axis=None) or (counts[["idx", "n_a", "nfe_estimate"]] < 0).any(axis=None)
    wrong = (counts["c_a"] == ABSTAIN) & (counts["n_a"] > 0) | (counts["k"] > 0) & (counts["m"] < 0)
    if more or less or wrong.any() or (counts["n"] < 1).any() or counts.duplicated(["method", "idx"]).any():
        raise ValueError
    return counts


def label(run: Run, method: settings.Method, counts) -> pd.DataFrame:
    """The counts of one method as rows of the long table."""
    rows = pd.DataFrame(counts)
    named = {
        "model": run.model.name, "recipe": run.train.recipe, "sigma": run.sigma, "method": method.name,
        "reference": run.profile.reference, "needs_audit": method.needs_audit, "n_max": run.profile.sampling.n_max(method),
    }  # fmt: skip
    return rows.assign(**named)[[*named, *rows.columns]]


def read_rows(path: str | Path) -> pd.DataFrame:
    """A table of certificates in Cohen et al.'s columns, ours or one of their logs."""
    parse = functools.partial(pd.read_csv, sep="\t", dtype=ROW, float_precision="round_trip")
    what = "table of certificates"
    return sealed.read(Path(path), what, lambda body: parse(io.BytesIO(body))[[*ROW]], by="certify", plain=True)


def provenance(**facts: object) -> dict:
    """What made a result: the given facts with the versions and the machine kind they were computed on."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "torch")}
    return {**facts, "python": platform.python_version(), "machine": platform.machine(), **versions}


@functools.cache  # the code that runs is the code that was imported, whatever is edited meanwhile
def code_digest(*modules: str, home: Path = Path(__file__).parent) -> str:
    """Sixteen hex digits of modules of this package but for docstrings and lines of comment, under every release of Python."""
    kept = []
    for module in modules:
        source = (home / f"{module}.py").read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                first, last = node.body[0].lineno, node.body[0].end_lineno
                lines[first - 1 : last] = [""] * (last - first + 1)
        kept += [line.rstrip() for line in lines if not line.lstrip().startswith("#") and line.strip()] + ["#"]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:16]
