"""The README's example runs as it stands, and the README names files that exist."""

import re
import warnings
from pathlib import Path

from srs import profiles
from srs.analysis import show
from srs.experiments import readme
from srs.smoothing import bounds

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_certifies_a_model(capsys):
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    exec(compile(example, "README.md", "exec"), {})
    assert "Certificate(predict=" in capsys.readouterr().out


def test_every_notebook_is_listed():
    listed = set(re.findall(r"\b(\d\d_[a-z_]+)\b", README))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_tables_are_those_of_the_shipped_results():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runs that are not shipped yet are left out, and say so
        assert readme.filled(README) == README, "run `make readme`"
    assert len(readme.BLOCK.findall(README)) == sum(README.count(f"<!-- {kind}:") for kind in ("table", "speed", "cards", "levels")) > 2


def test_largest_radii_are_those_of_the_profile():
    p = profiles.get_profile("cifar10")
    for rule in (bounds.Rule.COHEN, bounds.Rule.AUDIT):
        cap = bounds.largest_radius(rule, p.n, p.method("SRS-MDEQ-3A").audit, 1.0, p.alpha)
        assert f"{show.round_down(float(cap))} sigma" in README
