"""The ablations' votes: drawn where they are missing, then counted for every N and K that is shown.

What a stored vote can tell is not drawn again. The first n of N stored votes are those that n votes would have been; and
since the full solve's votes on the same noise are stored too, an audit of any size is read from them.

`python -m srs.ablations --profile digits`
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from srs import ablation_report, ablation_tables, profiles, recounts, settings, variants
from srs.deq import inference
from srs.recounts import Key
from srs.settings import Method, Profile, Run
from srs.smoothing import bounds, certify, noise, votes
from srs.store.sealed import paths, results, sealed
from srs.training import train

Counted = dict[Key, list[results.Tally]]
Draw = Callable[..., object]  # `certify.certify` on a device, by so many workers


def recount(
    drawn: votes.ImageVotes, method: Method, sampling: settings.Sampling, standard: votes.ImageVotes, *, n: int, k: int,
    auditor: votes.ImageVotes | None = None,
) -> results.Tally:
    """The tally that the first n votes with K = k give, as if no more had been drawn (Theorem 3.1 and the rule `audit`).

    Seconds are nan: nobody has measured them. Votes and audited votes cost what the stored ones did on average.

    Args:
        drawn: one image's votes, at least n.
        method: how they were drawn.
        sampling: of the profile.
        standard: the reference method's votes on the same noise, which tell what an audit finds...
        auditor: ... but for a method with its own auditor, whose votes these are.
        n: votes that are counted.
        k: K; 0 for votes that need no audit.
    """
    settings.check(1 <= n <= len(drawn.estimate), "n", n, f"1 to the {len(drawn.estimate)} votes that are stored")
    estimate, order = drawn.estimate[:n], noise.audit_order(sampling.seed, drawn.idx, n)
    c_a = bounds.top_class(drawn.select, sampling.classes)
    audited = order[estimate[order] == c_a][:k] if c_a != bounds.ABSTAIN else order[:0]
    longer = method.warmup - method.steps if method.start == "previous" and method.warmup else 0
    certified = auditor or standard
    per_vote = (drawn.nfe[1] - min(method.batch, len(drawn.estimate)) * longer) / len(drawn.estimate)
    per_audit = certified.nfe[1] / len(certified.estimate)
    nfe = (drawn.nfe[0], round(n * per_vote + min(method.batch, n) * longer), round(len(audited) * per_audit))
    first = replace(
        drawn, estimate=estimate, audited=audited.astype(np.int32), standard=certified.estimate[audited],
        nfe=np.array(nfe), seconds=np.full(3, np.nan),
    )
    whole, certified = (replace(v, estimate=v.estimate[:n]) for v in (standard, certified))
    return certify.count_votes(first, replace(method, audit=k), sampling, whole, certified)


def measure(profile: Profile, *, training: bool = True, device: str = "cpu", workers: int = 1, progress: bool = True) -> None:
    """Draw what votes are missing, train what models are missing, and store all counts that the ablations show.

    Nothing is done for a profile without the run that is ablated. Warns of what has to be left out.

    Args:
        profile: whose run of model SMALL at sigma 0.5, recipe `paper`, is ablated.
        training: train the models of other recipes; if not, only those take part whose weights are there.
        device: a torch device.
        workers: processes that share the images.
        progress: whether to show progress bars.
    """
    run = variants.base(profile)
    if run is None:
        return
    inference.check_device(device)
    draw = partial(certify.certify, device=device, workers=workers, progress=progress)
    if not _has_votes(run, device):
        if ablation_tables.has_tallies(run):
            warnings.warn(f"the votes of {run.id} are not here, only their counts: nothing new is measured", stacklevel=2)
            return
        train.train(run, device=device, progress=progress)
        draw(run)
    counted = _count_base(run, draw, device)
    for other in variants.further(run):
        if training or paths.weights(other).is_file():
            train.train(other, device=device, progress=progress)
            counted |= _count_further(other, draw, variants.usual_k(profile), device)
    path = paths.measured(run, recounts.NAME)
    recounts.write(path, counted)
    sealed.write_json(paths.provenance(path), results.provenance(
        run=run.id, profile=profile.name, runs=sorted({key.run for key in counted}), device=inference.device_name(device),
        votes=certify.vote_key(run, device).shared,
    ))  # fmt: skip


def _has_votes(run: Run, device: str) -> bool:
    if not paths.weights(run).is_file():
        return False
    key = certify.vote_key(run, device)
    return all(certify.vote_file(run, m, key, idx).is_file() for m in run.profile.methods for idx in run.profile.evaluated)


def _count_base(run: Run, draw: Draw, device: str) -> Counted:
    """Everything about the run itself: its methods, the variants of them, K on all images and N on all images."""
    profile, three = run.profile, variants.three_steps(run.profile)
    everywhere = tuple(dict.fromkeys((*profile.methods, *three)))
    few = tuple(m for m in variants.every(profile) if m not in everywhere)
    counted: Counted = {}
    for methods, images in ((everywhere, profile.images), (few, variants.images(profile))):
        part = replace(run, profile=replace(profile, methods=_with(profile, methods), images=images))
        missing = tuple(m.name for m in map(lambda m: variants.drawn(profile, m), methods) if m not in profile.methods)
        if missing:
            draw(part, methods=missing)
        key = certify.vote_key(part, device)
        for method in methods:
            ns = variants.stored_ns(profile) if method in (*three, profile.method(profile.reference)) else ()
            ks = variants.ks(profile) if method in profile.methods else ()
            counted |= _count(part, key, method, variants.drawn(profile, method), variants.usual_k(profile), ns, ks)
    return counted


def _count_further(run: Run, draw: Draw, k: int, device: str) -> Counted:
    """A run of another recipe: the profile's methods, all votes, K = k."""
    draw(run)
    key, counted = certify.vote_key(run, device), Counted()
    for method in run.profile.methods:
        name = method.name.removesuffix(variants.NO_AUDIT)
        counted |= _count(run, key, replace(method, name=name), method, k)
    return counted


def _with(profile: Profile, methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """The profile's methods and those that are drawn for `methods`, each once."""
    return tuple(dict.fromkeys((*profile.methods, *(variants.drawn(profile, m) for m in methods))))


def _count(
    run: Run, key: certify.Key, method: Method, drawn: Method, usual: int, ns: tuple[int, ...] = (), ks: tuple[int, ...] = ()
) -> Counted:
    """The tallies of a method's stored votes: all of them with the usual K, then the first n of them, then with other K."""
    profile = run.profile
    reference = profile.method(profile.reference)
    stored, standard, certified = (
        [votes.read(certify.vote_file(run, m, key, idx)) for idx in profile.evaluated]
        for m in (drawn, reference, method.auditor or reference)
    )
    wanted = [(profile.n, usual), *((n, min(usual, n)) for n in ns), *((profile.n, k) for k in ks)]
    pairs = dict.fromkeys((n, k if method.serialized else 0) for n, k in wanted)
    return {
        Key(run.id, method.name, n, k): [
            recount(v, method, profile.sampling, s, n=n, k=k, auditor=c) for v, s, c in zip(stored, standard, certified)
        ]
        for n, k in pairs
    }


def main(argv: list[str] | None = None) -> None:
    """Measure what the ablations of a profile need, then make their tables and figures."""
    parser = argparse.ArgumentParser(prog="python -m srs.ablations", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=settings.one_of(profiles.PROFILES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-training", action="store_true", help="leave out models that are not trained yet")
    args = parser.parse_args(argv)
    try:
        profile = profiles.get_profile(args.profile)
        measure(profile, training=not args.no_training, device=args.device, workers=args.workers)
        for made in ablation_report.make(profile):
            print(*made, sep="\n")
    except (settings.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
