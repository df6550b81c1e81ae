"""What the reader sees: a table as .md, .tex and .csv, a figure as .pdf and .png, and what the notebook displays of it.

Builders return numbers; they are rounded here and nowhere else. Percentages go half up to one decimal, radii and ACR down.
The same content gives the same bytes: nothing written here holds a date or a version.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

import pandas as pd
import PIL.Image
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from srs.analysis import plots
from srs.settings import Profile
from srs.smoothing.bounds import Rule
from srs.store import paths, sealed

RULE_LABELS = {
    Rule.COHEN: "cohen",
    Rule.AUDIT: "audit (ours)",
    Rule.THEOREM31: "theorem31 (paper)",
    Rule.RELEASED: "released (unsound)",
}
UNSOUND_NOTE = (
    "Rows under 'released (unsound)' follow the authors' code, whose certificates do not hold: they are shown for "
    "comparison with the published tables only."
)
DOWN = {"ACR": 3, "radius": 3}  # columns of radii: decimals, rounded down
DIGITS = {  # decimals of other columns; a column that ends in % or begins with "r=" has one, any other is as it is
    "NFE/image": 0, "audit NFE": 0, "NFE/vote": 2, "seconds/image": 3, "speed-up (NFE)": 2, "speed-up (seconds)": 2,
    "disagreement %": 2, "mean p_m %": 2, "largest p_m %": 2, "mean gap %": 2, "parameters": 0,
}  # fmt: skip


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


def round_half_up(value: float, digits: int) -> str:
    """A number as printed, halves up in decimal; empty where there is none."""
    return _rounded(value, digits, ROUND_HALF_UP)


def round_down(value: float, digits: int = 3) -> str:
    """A radius as printed: rounded down, never up, in decimal."""
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, how: str) -> str:
    if value is None or not math.isfinite(value):
        return ""
    # repr: the shortest decimal that names this float, so that 0.3 is not taken for 0.29999...
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=how))


def outward(low: float, high: float) -> str:
    """An interval of shares in percent to one decimal, its ends rounded away from each other."""
    return f"{math.floor(1000 * low) / 10:.1f}-{math.ceil(1000 * high) / 10:.1f}"


def scientific(value: float | None) -> str:
    """A number as in 1.2e-03; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.1e}"


def cells(frame: pd.DataFrame, digits: Mapping[str, int] | None = None, down: Sequence[str] = ()) -> pd.DataFrame:
    """The table as printed: its index as first columns, every cell text, numbers rounded by the name of their column.

    Args:
        frame: numbers and text; a cell that is already text stays.
        digits: decimals of columns that DIGITS does not know.
        down: columns of radii besides those of DOWN: rounded down to three decimals.
    """
    if frame.index.names != [None]:
        frame = frame.reset_index()
    known, lowered = DIGITS | dict(digits or {}), DOWN | dict.fromkeys(down, 3)
    return pd.DataFrame({str(name): [_cell(str(name), value, known, lowered) for value in frame[name]] for name in frame.columns})


def _cell(column: str, value: object, digits: Mapping[str, int], down: Mapping[str, int]) -> str:
    if isinstance(value, str) or pd.isna(value):
        return RULE_LABELS.get(value, value) if isinstance(value, str) else ""
    if column in down:
        return round_down(value, down[column])
    if column == "sigma":
        return f"{value:.2f}"
    if column in digits or column.startswith("r=") or column.endswith("%"):
        return round_half_up(value, digits.get(column, 1))
    return str(value)


def table(
    profile: Profile, name: str, frame: pd.DataFrame, caption: str, digits: Mapping[str, int] | None = None, down: Sequence[str] = ()
) -> Shown:
    """Write a table to the profile's figures as .md, .tex and .csv, each whole or not at all.

    Args:
        profile: whose table it is; its note opens the caption.
        name: of the files.
        frame: numbers, see `cells`.
        caption: plain text.
        digits: decimals of columns of its own.
        down: columns of radii of its own.

    Returns:
        What the notebook displays.
    """
    caption, printed = _noted(profile, caption), cells(frame, digits, down)
    tex = printed.to_latex(
        index=False, escape=True, caption=_escape(caption), label=f"tab:{name}", column_format=_aligned(printed, "r", "l")
    )
    csv = printed.to_csv(index=False, lineterminator="\n")
    for ending, text in ((".md", f"{_markdown(printed)}\n\n{caption}\n"), (".tex", tex), (".csv", csv)):
        sealed.write(paths.shown(profile, name + ending), text.encode())
    return Shown(name, caption, frame=printed)


def figure(profile: Profile, name: str, drawn: Figure, caption: str) -> Shown:
    """Write a figure to the profile's figures as .pdf and .png, each whole or not at all; returns what the notebook displays."""
    silent = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
    content = {}
    with plots.style():
        drawn.get_layout_engine().execute(drawn)
        drawn.set_layout_engine("none")  # the layout is found: it takes longer than the drawing, so not once per file
        for kind, metadata in silent.items():
            file = io.BytesIO()
            drawn.savefig(file, format=kind, metadata=metadata)
            content[kind] = file.getvalue() if kind == "pdf" else _with_palette(file)
            sealed.write(paths.shown(profile, f"{name}.{kind}"), content[kind])
    return Shown(name, _noted(profile, caption), png=content["png"])


def _with_palette(png: io.BytesIO) -> bytes:
    """The picture in 256 colours of its own: a third of the bytes, so that a report of fifty figures stays small."""
    small = io.BytesIO()
    PIL.Image.open(png).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def finding(sentence: str) -> Markdown:
    """A sentence that states what the numbers say, as the notebook displays it."""
    return Markdown(f"**Finding.** {sentence}")


def _noted(profile: Profile, caption: str) -> str:
    return f"{profile.note} {caption}".strip()


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _aligned(printed: pd.DataFrame, right: str, left: str) -> list[str] | str:
    numeric = [all(_is_number(cell) for cell in printed[name] if cell) for name in printed.columns]
    marks = [right if number else left for number in numeric]
    return marks if len(right) > 1 else "".join(marks)


def _markdown(printed: pd.DataFrame) -> str:
    return printed.to_markdown(index=False, disable_numparse=True, colalign=_aligned(printed, "right", "left"))


def _escape(text: str) -> str:
    """Plain text as LaTeX wants it in a caption."""
    return text.translate({ord(c): "\\" + c for c in "%_&#$"} | {ord("<"): "$<$", ord(">"): "$>$"})
