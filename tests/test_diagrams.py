"""diagrams: every text stands free and inside the picture, and the example's numbers are what the theorem gives."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from scipy import stats

from srs import diagrams, figures, profiles, shown

DIAGRAMS = {"srs": diagrams.standard_and_srs, "votes": diagrams.vote_conversion}


@pytest.fixture(params=DIAGRAMS.values(), ids=DIAGRAMS)
def drawn(request):
    """A diagram and its texts, each with the rectangle that it covers, in pixels."""
    with figures.style():
        fig = request.param()
        fig.set_dpi(200)
        FigureCanvasAgg(fig).draw()
        texts = [(text.get_text(), text.get_window_extent()) for text in fig.axes[0].texts if text.get_text()]
    return fig, texts


def test_texts_neither_overlap_nor_leave_the_picture(drawn):
    fig, texts = drawn
    assert len(texts) > 10
    for (one, here), (other, there) in itertools.combinations(texts, 2):
        assert not here.overlaps(there), f"{one!r} lies over {other!r}"
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1, text


def test_a_text_is_inside_a_box_or_outside_of_it(drawn):
    """Edges never cut a text; a band that holds boxes holds their texts whole."""
    fig, texts = drawn
    for patch in fig.axes[0].patches:
        box = patch.get_window_extent()
        for text, extent in texts:
            shared = box.intersection(box, extent)
            area = max(0, shared.width) * max(0, shared.height) if shared is not None else 0
            whole = extent.width * extent.height
            assert area < 0.02 * whole or area > 0.95 * whole, (text, box)


def test_column_width(drawn):
    fig, _ = drawn
    assert fig.get_size_inches()[0] == figures.WIDTH and fig.get_size_inches()[1] < 1.1 * figures.WIDTH


def test_example_is_what_the_theorem_gives():
    """Clopper-Pearson from scipy's beta distribution, by hand."""
    e = diagrams.Example()
    assert e.n_1 <= e.n_2 <= e.k and e.n_2 <= e.n_a <= e.n
    p_m = 1 - stats.beta.ppf(e.alpha / 2, e.n_1, e.n_2 - e.n_1 + 1)
    assert e.p_m_upper == pytest.approx(p_m, abs=1e-9)
    kept = e.n_a - p_m * e.n_a
    p_lower, radius = e.certificate
    by_hand = stats.beta.ppf(e.alpha / 2, kept, e.n - kept + 1)
    assert p_lower == pytest.approx(by_hand, abs=1e-3) and p_lower <= by_hand + 1e-9  # a fraction of a vote is no vote
    assert radius == pytest.approx(e.sigma * stats.norm.ppf(p_lower), abs=1e-9)


def test_bars_have_the_example_s_proportions():
    e = diagrams.Example()
    patches = diagrams.vote_conversion().axes[0].patches
    bars = [p for p in patches if type(p) is Rectangle]
    shares = np.array([bar.get_width() for bar in bars]) / diagrams.WIDE
    lost = e.p_m_upper * e.n_a / e.n
    n_a = e.n_a / e.n
    audited = [e.n_1 / e.k, (e.n_2 - e.n_1) / e.k, 1 - e.n_2 / e.k]
    assert shares == pytest.approx([n_a, 1 - n_a, *audited, n_a - lost, lost, 1 - n_a])


def test_standard_rows_start_at_zero_and_warm_starts_name_the_row_above():
    texts = [text.get_text() for text in diagrams.standard_and_srs().axes[0].texts]
    assert texts.count("$0$") == 4  # three standard rows and the first of a chain
    assert texts.count("$z_1$") == texts.count("$z_2$") == 2 and texts.count("warm start") == 2


def test_files_are_the_same_bytes_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    folder = tmp_path / "figures" / "smoke"
    seen = []
    for _ in range(2):
        diagrams.make_diagrams(profiles.get_profile("smoke"))
        seen.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert seen[0] == seen[1]
    assert {n.kind for n in shown.listed(folder).values()} == {"figure"} and len(seen[0]) == 6
