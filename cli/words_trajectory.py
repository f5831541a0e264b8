"""The way of a training over a surface, in words."""

from landscape.results import Trajectory

from . import words_surface


def sentences(result: Trajectory) -> list[str]:
    """What a person wants to know first."""
    first, *others = words_surface.sentences(result)
    step = result.step
    lines = [
        first,
        f"steps: {step.size} checkpoints from {step[0]:g} to {step[-1]:g} ({result.step_source})",
    ]
    if result.explained:
        shares = " and ".join(f"{100 * share:.3g} %" for share in result.explained)
        together = 100 * sum(result.explained)
        lines.append(f"plane: principal directions with {shares} of the variance, {together:.3g} %")
    away = result.path_off / result.path_far.max()
    worst = int(away.argmax())
    lines.append(
        f"projection: at most {100 * away[worst]:.3g} % of the way lies off the plane (step "
        f"{step[worst]:g}); there the surface is not the loss of the checkpoint"
    )
    return lines + others
