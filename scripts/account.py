"""`keyfed account` and `keyfed mechanisms`: what a federated run costs its devices, and what noise that buys."""

import dataclasses
import json
from typing import Annotated

import typer

Rounds = Annotated[int, typer.Option(help="Server steps.")]
MinSeparation = Annotated[
    int, typer.Option(help="b: two rounds of a device are at least b apart (|i - j| >= b).")
]
MaxParticipations = Annotated[
    int | None, typer.Option(help="k: rounds of one device at the most; default: as many as fit.")
]
Bands = Annotated[int | None, typer.Option(help="toeplitz: bands, at most b; 32 by default.")]
Buffers = Annotated[int | None, typer.Option(help="blt: buffers; 4 by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def account(
    rounds: Rounds,
    delta: Annotated[float, typer.Option(help="Of (epsilon, delta).")],
    mechanism: Annotated[
        str, typer.Option(help="gaussian, tree, toeplitz, blt, or skellam: noise of the devices'.")
    ] = "tree",
    noise_multiplier: Annotated[
        float | None, typer.Option(help="z, noise on the updates (tree: on a node), in clip norms.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="In place of z: finds the least z that meets it.")
    ] = None,
    min_separation: MinSeparation = 1,
    max_participations: MaxParticipations = None,
    restart_every: Annotated[int | None, typer.Option(help="tree: rounds of each tree.")] = None,
    bands: Bands = None,
    buffers: Buffers = None,
    count_stddev: Annotated[
        float | None,
        typer.Option(help="gaussian: adaptive clipping's noise on the count of unclipped devices."),
    ] = None,
    sampling_rate: Annotated[
        float | None, typer.Option(help="gaussian: Poisson sampling's chance of a device a round.")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="skellam: bits of a value of a message.")] = None,
    parameters: Annotated[int | None, typer.Option(help="skellam: of the model.")] = None,
    cohort: Annotated[
        int | None, typer.Option(help="skellam: most devices that report in a round.")
    ] = None,
    min_reports: Annotated[
        int | None, typer.Option(help="skellam: fewest of them; default: the cohort.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Privacy of a federated run: zCDP rho and (epsilon, delta), or the noise that meets an epsilon."""
    from federated.accounting import account as account_strategy
    from federated.accounting import calibrate_noise_multiplier
    from federated.mechanism_choice import MechanismChoice
    from federated.sensitivity import most_participations
    from federated.skellam import padded_dimension
    from federated.strategies import Skellam, Strategy

    participations = most_participations(
        rounds, min_separation, rounds if max_participations is None else max_participations
    )
    if (noise_multiplier is None) == (epsilon is None):
        raise ValueError("give either --noise-multiplier or --epsilon")
    run = (rounds, min_separation, max_participations, delta)
    own = {"bits": bits, "parameters": parameters, "cohort": cohort, "min_reports": min_reports}
    options = (restart_every, bands, buffers, count_stddev, sampling_rate)
    strategy: Strategy
    if mechanism == Skellam.name:
        if bits is None or parameters is None or cohort is None:
            missing = [n for n, value in own.items() if value is None and n != "min_reports"]
            raise ValueError(f"mechanism skellam needs {', '.join(missing)}")
        if any(option is not None for option in options):
            raise ValueError(f"mechanism skellam has no options but {', '.join(own)}")
        dimension = padded_dimension(parameters)
        least = cohort if min_reports is None else min_reports
        strategy = Skellam(bits, 1.0, dimension, cohort, least)  # a draft
    else:
        others = [name for name, value in own.items() if value is not None]
        if others:
            raise ValueError(f"{', '.join(others)}: for mechanism skellam only, leave it out")
        strategy = MechanismChoice(mechanism, *options).build(
            rounds, min_separation, participations
        )
    if epsilon is not None:
        noise_multiplier = calibrate_noise_multiplier(strategy, epsilon, *run)
    assert noise_multiplier is not None
    if isinstance(strategy, Skellam):
        strategy = strategy.for_noise(noise_multiplier)
    guarantee = account_strategy(strategy, noise_multiplier, *run)
    if as_json:
        print(json.dumps(dataclasses.asdict(guarantee)))
        return
    print(f"mechanism            {guarantee.mechanism}")
    print(f"noise multiplier     {noise_multiplier:.5g} clip norms")
    print(f"squared sensitivity  {guarantee.squared_sensitivity:.6g} clip norms squared")
    if guarantee.rho is not None:
        print(f"rho                  {guarantee.rho:.4g} (zCDP)")
    if isinstance(strategy, Skellam):
        print(
            f"grid                 {strategy.scale:,.0f} steps a clip norm, modulo 2^{strategy.bits}"
        )
        print(f"a message            {strategy.message_bytes:,} bytes")
        print(f"epsilon              {guarantee.epsilon:.2f} (Renyi orders) at delta {delta:g}")
        return
    kind = "exact" if guarantee.rho is not None else "privacy loss distribution"
    print(f"epsilon              {guarantee.epsilon:.2f} ({kind}) at delta {delta:g}")
    print(f"epsilon              {guarantee.epsilon_rdp:.2f} (grid RDP) at delta {delta:g}")


def mechanisms(
    rounds: Rounds,
    min_separation: MinSeparation = 1,
    max_participations: MaxParticipations = None,
    rho: Annotated[float, typer.Option(help="zCDP of each; noise goes with rho ** -0.5.")] = 0.5,
    bands: Bands = None,
    buffers: Buffers = None,
    as_json: AsJson = False,
) -> None:
    """Noise in the model with each mechanism, for the same run at the same rho."""
    from federated.comparison import compare_mechanisms

    rows = compare_mechanisms(rounds, min_separation, max_participations, rho, bands, buffers)
    if as_json:
        print(json.dumps({"rho": rho, "mechanisms": [dataclasses.asdict(row) for row in rows]}))
        return
    tree = next(row for row in rows if row.mechanism == "tree")
    print(f"noise in the sum of the rounds so far, in clip norms, at rho {rho:g}; kept: in models")
    print(f"{'mechanism':10}{'z':>9}{'worst':>9}{'RMS':>9}{'RMS / tree':>12}{'kept':>6}")
    for row in rows:
        print(
            f"{row.mechanism:10}{row.noise_multiplier:9.3f}{row.max_deviation:9.2f}{row.rms_deviation:9.2f}"
            f"{row.rms_deviation / tree.rms_deviation:12.3f}{row.models_kept:6}"
        )
