"""What the ablations vary: one thing at a time, with the profile's sampling, under names that clash with nothing."""

import dataclasses

import pytest

from srs import config, variants
from srs.attacks.settings import smoothadv
from srs.config import PROFILES, replace

DIGITS = PROFILES["digits"]
RUN = variants.base(DIGITS)
ABLATED = {name: p for name, p in PROFILES.items() if variants.base(p) is not None}


def differing(one, other):
    """The fields in which two settings differ."""
    return {f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def test_which_profiles_are_ablated():
    assert set(ABLATED) == {"digits", "cifar10", "cifar10_gpu", "paper", "smoke"}
    assert RUN.id == "SMALL-s0.50-paper"
    assert variants.base(replace(DIGITS, sigmas=(0.25,))) is None


@pytest.mark.parametrize("profile", ABLATED.values(), ids=ABLATED)
def test_a_name_stands_for_one_way_to_vote(profile):
    """Names are folders of votes and keys of counts."""
    methods = (*profile.methods, *variants.every(profile), *variants.unaudited(profile))
    methods += tuple(variants.drawn(profile, m) for m in methods)
    assert len({m.name for m in methods}) == len(set(methods))
    assert all(m.audit in (0, variants.usual_k(profile)) for m in methods if m not in profile.methods)
    for run in (variants.base(profile), *variants.further(variants.base(profile))):
        assert run.profile.name == profile.name and run.profile.sampling == profile.sampling
    assert len({run.id for run in (*profile.every_run, *variants.further(variants.base(profile)))}) == len(
        profile.every_run
    ) + len(variants.further(variants.base(profile)))


@pytest.mark.parametrize(
    ("made", "allowed"),
    [
        (variants.solvers, {"name", "solver", "steps"}),
        (variants.chains, {"name", "batch", "steps"}),
        (variants.warmups, {"name", "warmup", "steps"}),
    ],
)
def test_one_thing_is_varied(made, allowed):
    for variant in made(DIGITS):
        parent = DIGITS.method("SRS-MDEQ-3A" if variant.method.serialized else "MDEQ-30A")
        assert differing(variant.method, parent) <= allowed
        told = {variants.solvers: "solver", variants.chains: "batch", variants.warmups: "warmup"}[made]
        assert variant.value == str(getattr(variant.method, told))


def test_what_is_stored_is_not_varied_anew():
    """The profile's own batch, warm-up, solver and starts are its own methods, whose votes are there."""
    own = set(DIGITS.methods)
    assert {v.method.name for v in variants.chains(DIGITS) if v.method in own} == {"SRS-MDEQ-1A", "SRS-MDEQ-3A"}
    assert {v.method.name for v in variants.warmups(DIGITS) if v.method in own} == {"SRS-MDEQ-1A", "SRS-MDEQ-3A"}
    assert {v.method.name for v in variants.solvers(DIGITS) if v.method in own} == {"MDEQ-5A", "MDEQ-30A", "SRS-MDEQ-3A"}
    assert {v.method.name for v in variants.starts(DIGITS) if v.method in own} == {"MDEQ-1A", "SRS-MDEQ-1A", "SRS-MDEQ-3A"}
    assert PROFILES["cifar10"].method("MDEQ-ANCHOR-3A") in [v.method for v in variants.starts(PROFILES["cifar10"])]
    assert [v.value for v in variants.starts(DIGITS)] == 2 * ["zero", "clean", "previous", "centroid", "calibrated", "anchor"]


def test_votes_are_drawn_without_an_audit_unless_they_are_stored_with_one():
    for method in variants.every(DIGITS):
        drawn = variants.drawn(DIGITS, method)
        if method in DIGITS.methods or not method.serialized:
            assert drawn == method
        else:
            assert differing(drawn, method) == {"name", "audit"} and drawn.audit == 0 and drawn.name.endswith("-K0")


def test_n_and_k_stay_within_what_is_there_and_say_what_is_not():
    assert variants.stored_ns(DIGITS) == (100, 200, 400) and variants.far_ns(DIGITS) == (1_000, 10_000, 100_000)
    assert variants.ks(DIGITS) == (10, 25, 50, 100, 200, 400)
    assert variants.far_ns(PROFILES["paper"]) == (100_000,) and variants.stored_ns(PROFILES["paper"])[-1] == 10_000
    assert variants.ks(PROFILES["smoke"]) == (10, 20, 25, 50, 100), "K = 20 is the profile's own"


def test_recipes_change_what_they_are_named_after():
    recipe = RUN.train
    without = variants.nojacobian_recipe(RUN)
    assert differing(without, recipe) == {"recipe", "jacobian_weight", "jacobian_frequency"} and without.jacobian_frequency == 0
    hard = variants.smoothadv_recipe(RUN)
    assert (hard.adversarial.radius, hard.adversarial.steps, hard.adversarial.vectors) == (0.5, 2, 4)
    assert hard.begin == recipe
    paper = variants.base(PROFILES["paper"])
    assert variants.smoothadv_recipe(paper) == smoothadv(paper.train), "from random weights, as published"
    assert [run.train.recipe for run in variants.further(paper)] == ["nojacobian", "smoothadv"]


def test_the_main_profile_does_not_change():
    """Its tables would show further models and methods."""
    assert [run.id for run in DIGITS.runs] == [run.id for run in config.get_profile("digits").runs]
    assert not {run.id for run in variants.further(RUN)} & {run.id for run in DIGITS.every_run}
    assert variants.images(DIGITS) == 5 and variants.images(PROFILES["paper"]) == 500
