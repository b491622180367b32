"""Number, position and weight sharing of cross-attends: Tables 6 and 7 at small scale.

    KERAS_BACKEND=jax python tools/ablation_study.py

Trains a Perceiver with four blocks in every arrangement, prints accuracy, parameters
and FLOPs, and writes a CSV and a figure.

Reference:
    [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), appendix, tables 6 and 7.
"""

import argparse
import sys

import study
from common import markdown_table

NUM_BLOCKS = 4
# Name -> arguments of `Perceiver`.
ARRANGEMENTS = {
    "interleaved": {},
    "at start": {"use_cross_attends_at_start": True},
    "interleaved, not shared": {"share_weights": False},
}
NUM_CROSS_ATTENDS = (1, 2, 4)


def main(arguments=None):
    options = parser().parse_args(arguments)
    runs = [
        {
            "arrangement": arrangement,
            "cross_attends": count,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "seed": seed,
        }
        for seed in options.seeds
        for arrangement in ARRANGEMENTS
        for count in options.cross_attends
        # A single cross-attend at the start is the same as one in the first block.
        if not (arrangement == "at start" and count == 1)
    ]
    path = options.output / f"ablation-{options.recipe}.csv"
    try:
        study.load_splits(options, 0)  # reports errors early
        rows = study.run_all(path, runs, lambda run: _run(options, run))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"\n{table(rows)}")
    plot(path.with_suffix(".png"), rows, options.recipe)
    print(f"\nwritten: {path}, {path.with_suffix('.png')}")


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    study.add_arguments(parser, epochs=60)
    parser.add_argument(
        "--cross-attends",
        type=int,
        nargs="+",
        default=NUM_CROSS_ATTENDS,
        help=f"numbers of them, up to {NUM_BLOCKS}; default: 1 2 4",
    )
    return parser


def _run(options, run):
    import keras

    import keras_perceiver as kp

    keras.utils.clear_session()
    keras.utils.set_random_seed(run["seed"])
    splits = study.load_splits(options, run["seed"])
    shape = tuple(splits.train.element_spec[0].shape[1:])
    encoder = kp.Perceiver(
        kp.Image(shape, num_bands=max(shape[0] // 2, 2)),
        num_latents=16,
        latent_dim=64,
        num_blocks=NUM_BLOCKS,
        num_self_attends_per_block=1,
        num_cross_attends=run["cross_attends"],
        cross_attend=kp.CrossAttend(dropout=0.1),
        self_attend=kp.SelfAttend(num_heads=4, dropout=0.1),
        **ARRANGEMENTS[run["arrangement"]],
    )
    model = kp.PerceiverClassifier(encoder, len(splits.class_names))
    accuracy = study.fit_and_score(model, splits, options.epochs)
    return {
        "parameters": model.count_params(),
        "mflops": round(kp.flops(model) / 1e6, 2),
        "accuracy": round(accuracy, 4),
    }


def table(rows):
    """Returns a Markdown table of the test accuracies in percent."""
    found = study.means(rows, ("arrangement", "cross_attends"))
    costs = {(row["arrangement"], row["cross_attends"]): row for row in rows}
    lines = [["Cross-attends", "Where", "Parameters", "MFLOPs", "Test accuracy, %"]]
    for (where, count), (mean, deviation, _) in found.items():
        cost = costs[where, count]
        lines.append(
            [
                count,
                where,
                f"{int(cost['parameters']):,}",
                cost["mflops"],
                f"{100 * mean:.2f} ± {100 * deviation:.2f}",
            ]
        )
    return markdown_table(lines)


def plot(path, rows, recipe):
    """Plots accuracy against the number of cross-attends, with one line per arrangement."""
    from matplotlib import pyplot as plt

    found = study.means(rows, ("arrangement", "cross_attends", "mflops"))
    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    arrangements = list(dict.fromkeys(row["arrangement"] for row in rows))
    flops = {count: mflops for _, count, mflops in found}
    counts = sorted(flops, key=int)
    for index, arrangement in enumerate(arrangements):
        points = [
            (counts.index(count), 100 * mean, 100 * deviation)
            for (where, count, _), (mean, deviation, _) in found.items()
            if where == arrangement
        ]
        places, scores, deviations = zip(*sorted(points), strict=True)
        # Shifted horizontally, so that all error bars are visible.
        shift = 0.1 * (index - (len(arrangements) - 1) / 2)
        axis.errorbar(
            [place + shift for place in places],
            scores,
            deviations,
            marker="o",
            capsize=4,
            label=arrangement,
        )
    ticks = [f"{count}\n{float(flops[count]):.2f} MFLOPs" for count in counts]
    axis.set_xticks(range(len(counts)), ticks)
    seeds = len({row["seed"] for row in rows})
    axis.set(
        xlabel="cross-attends",
        ylabel="test accuracy, %",
        title=f"{recipe}: mean and standard deviation of {seeds} seeds",
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
