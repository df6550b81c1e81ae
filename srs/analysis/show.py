"""What the reader sees: a table as .md, .tex and .csv, a figure as .pdf and .png, and what the notebook displays of it.

Numbers are rounded here and nowhere else: percentages half up to one decimal, radii and ACR down.
"""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from srs.analysis import plots
from srs.settings import Profile
from srs.smoothing.bounds import Rule
from srs import sealed, store

RULE_LABELS = {Rule.COHEN: "cohen", Rule.AUDIT: "audit (ours)"}
RULE_LABELS |= {Rule.THEOREM31: "theorem31 (paper)", Rule.RELEASED: "released (unsound)"}
UNSOUND_NOTE = "Rows under 'released (unsound)' follow the authors' code; their certificates do not hold."
DOWN = ("ACR", "radius", "mean radius", "its radius", "RS at its NFE")  # columns of radii, rounded down to three decimals
DIGITS = dict.fromkeys(("seconds/image", *RULE_LABELS.values()), 3)  # decimals of other columns; "residual": as 1.2e-03
DIGITS |= dict.fromkeys(("NFE/vote", "speed-up (NFE)", "speed-up (seconds)", "disagreement %", "mean p_m %"), 2)
DIGITS |= dict.fromkeys(("votes/image", "NFE/image", "audit NFE", "parameters"), 0)
NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]\d+)?")
LATEX = str.maketrans({c: "\\" + c for c in "%_&#$"} | {"<": "$<$", ">": "$>$"})  # plain text as LaTeX wants it in a caption


@dataclass(frozen=True)
class Shown:
    """A table or figure as a notebook displays it, with its caption."""

    name: str
    caption: str
    frame: pd.DataFrame | None = None  # cells as printed
    png: bytes = b""

    def _ipython_display_(self) -> None:
        display(Image(self.png, width=480, alt=self.caption) if self.frame is None else Markdown(_markdown(self.frame)))
        display(Markdown(f"*{self.name}.* {self.caption}"))


def round_down(value: float, digits: int = 3) -> str:
    """A radius as printed: rounded down, never up, in decimal (0.3 stays 0.3 at one digit)."""
    return round_half_up(value, digits, ROUND_FLOOR)


def round_half_up(value: float, digits: int, how: str = ROUND_HALF_UP) -> str:
    """A number as printed, halves up in decimal; empty where there is none."""
    if value is None or not math.isfinite(value):
        return ""
    # repr: the shortest decimal that names this float, so that 0.3 is not taken for 0.29999...
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=how))


def cells(frame: pd.DataFrame, digits: Mapping[str, int] | None = None) -> pd.DataFrame:
    """The table as printed: its index as first columns, cells as text, numbers rounded by column as `digits` and DIGITS say."""
    if frame.index.names != [None]:
        frame = frame.reset_index()
    known = DIGITS | dict(digits or {})

    def cell(column: str, value: object) -> str:
        if isinstance(value, str) or pd.isna(value):
            return RULE_LABELS.get(value, value) if isinstance(value, str) else ""
        if column in DOWN:
            return round_down(value)
        if column == "sigma":
            return f"{value:.2f}"
        if column.startswith("residual"):
            return f"{value:.1e}"
        known_or_share = column in known or column.startswith("r=") or column.endswith("%")
        return round_half_up(value, known.get(column, 1)) if known_or_share else str(value)

    return pd.DataFrame({str(name): [cell(str(name), value) for value in frame[name]] for name in frame.columns})


def table(profile: Profile, name: str, frame: pd.DataFrame, caption: str, digits: Mapping[str, int] | None = None) -> Shown:
    """Write a table (numbers, see `cells`) to the profile's figures as .md, .tex and .csv; its note opens the caption."""
    caption, printed = f"{profile.note} {caption}".strip(), cells(frame, digits)
    label, columns = f"tab:{name}", "".join(_aligned(printed, "r", "l"))
    tex = printed.to_latex(index=False, escape=True, caption=caption.translate(LATEX), label=label, column_format=columns)
    texts = {"md": f"{_markdown(printed)}\n\n{caption}\n", "csv": printed.to_csv(index=False, lineterminator="\n"), "tex": tex}
    for kind, text in texts.items():
        sealed.write(store.shown(profile, f"{name}.{kind}"), text.encode())
    return Shown(name, caption, frame=printed)


def figure(profile: Profile, name: str, drawn: Figure, caption: str) -> Shown:
    """Write a figure to the profile's figures as .pdf and .png; the profile's note opens the caption."""
    silent = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
    with plots.style():
        drawn.get_layout_engine().execute(drawn)
        drawn.set_layout_engine("none")  # the layout is found: it takes longer than the drawing, so not once per file
        for kind, metadata in silent.items():
            file = io.BytesIO()
            drawn.savefig(file, format=kind, metadata=metadata)
            sealed.write(store.shown(profile, f"{name}.{kind}"), file.getvalue())
    return Shown(name, f"{profile.note} {caption}".strip(), png=file.getvalue())  # the last kind's


def finding(sentence: str) -> Markdown:
    """A sentence that states what the numbers say, as the notebook displays it."""
    return Markdown(f"**Finding.** {sentence}")


def _aligned(printed: pd.DataFrame, right: str, left: str) -> list[str]:
    """The mark of every column: `right` where all its cells are numbers or empty."""
    return [right if all(map(NUMBER.fullmatch, filter(None, printed[name]))) else left for name in printed.columns]


def _markdown(printed: pd.DataFrame) -> str:
    return printed.to_markdown(index=False, disable_numparse=True, colalign=_aligned(printed, "right", "left"))
