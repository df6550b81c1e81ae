"""Do a DEQ's gradients lie? Intermediate-state gradients against the exact one (Yang, Pang, Liu 2022).

A black-box solver hides how the answer came about, so an attacker who differentiates only at its end may be misled.
Here the loss is differentiated at the solver's intermediate states instead, by unrolling from them or by the
simultaneous adjoint iteration; what that is worth is measured on a DEQ and on the same DEQ trained against such attacks.

`python -m srs.white_box --profile digits --model SMALL --sigma 0.12`
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from srs import adversary, attacks, config, data, models, paths, points, results, store, threats, train
from srs.config import Run
from srs.solvers import relative_residual
from srs.threats import Gradient, WhiteBox

COLUMNS = ("idx", "state", "gradient", "cosine")
RESIDUAL = "residual"  # stands in the column `gradient` where `cosine` is the relative residual of z_n


def hardened_run(run: Run) -> Run:
    """The same model, trained on with attacks through intermediate states."""
    return replace(run, train=threats.white_box(run).hardening)


def cosines_file(run: Run) -> Path:
    """The stored cosines of a run."""
    return points.folder(run) / "cosines.tsv"


def cosines(model: models.DEQ, x: Tensor, y: Tensor, setting: WhiteBox) -> dict[tuple[int, str], Tensor]:
    """Cosine (B,) of each gradient of the cross-entropy at each state to the converged exact one, and the residual there.

    Args:
        model: the DEQ, in eval mode.
        x: images (B, C, H, W).
        y: their classes.
        setting: states and gradients.
    """

    def gradient(g: Gradient) -> Tensor:
        found = adversary.loss_gradient(model, x, lambda logits: adversary.smoothed_cross_entropy(logits, y), g)
        return found.double().flatten(1)

    exact = gradient(setting.exact)
    found = {}
    for n in setting.states:
        with torch.no_grad():
            u = model.inject(x)
            z = adversary.solve(model, u, replace(setting.exact, state=n))
            found[n, RESIDUAL] = relative_residual(z, model.f(z, u))
        for name, g in setting.gradients:
            at_n = replace(g, state=n, backward=n)
            found[n, name] = torch.nn.functional.cosine_similarity(gradient(at_n), exact)
    return found


def measure(run: Run, *, device: str = "cpu", progress: bool = True) -> tuple[Run, Run]:
    """Train the hardened DEQ, compare gradients and attack on both, and store it all; what is there is not done again.

    Args:
        run: which trained model.
        device: a torch device.
        progress: whether to show progress bars.

    Returns:
        The run and its hardened one.
    """
    setting, both = threats.white_box(run), (run, hardened_run(run))
    for one in both:
        train.train(one, device=device, progress=progress)
        attacks.run_battery(one, setting.battery, device=device, progress=progress)
        _store_cosines(one, setting, device)
    return both


def _store_cosines(run: Run, setting: WhiteBox, device: str) -> None:
    p, target = run.profile, cosines_file(run)
    key = _key(run, setting)
    told = target.with_suffix(".key")
    if store.present(target) and store.present(told) and told.read_bytes() == key.encode():
        return
    model = models.load(paths.weights(run), run.model, p.data).to(device).requires_grad_(False)
    images, loaded = list(p.evaluated[: setting.battery.images]), data.load(p.data, "test")
    found = cosines(model, loaded.x(images).to(device), loaded.labels[images].to(device), setting)
    lines = [COLUMNS, *((i, n, name, repr(v)) for (n, name), vs in found.items() for i, v in zip(images, vs.tolist()))]
    store.save(target, "".join("\t".join(map(str, line)) + "\n" for line in lines).encode())
    store.write(told, key.encode())


def _key(run: Run, setting: WhiteBox) -> str:
    code = results.code_digest("models", "solvers", "losses", "adversary", "white_box")
    compared = [[name, vars(g)] for name, g in setting.gradients]
    return config.fingerprint(
        models.digest(paths.weights(run)), setting.states, compared, setting.exact, setting.battery.images, code
    )


def main(argv: list[str] | None = None) -> None:
    """Compare gradients and attacks on one run and on its hardened one."""
    parser = argparse.ArgumentParser(prog="python -m srs.white_box", description=main.__doc__)
    config.add_run_arguments(parser)
    parser.set_defaults(sigma=0.12)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    try:
        run = config.get_run(args.profile, args.model, args.sigma, args.recipe)
        for one in measure(run, device=args.device):
            print(one.id, points.folder(one))
    except (config.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
