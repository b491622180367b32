"""KerasTuner's oracles with a budget, which only propose feasible models."""

import dataclasses
import time
import warnings

import keras_tuner as kt

_MAX_TRIES = 1000
# Key of the last epoch of a trial that was cut, named like those of KerasTuner.
CUT = "tuner/cut_after_epoch"
_COLUMNS = ("trial", "status", "score", "best", "parameters", "GFLOPs", "seconds")


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of a search, which ends at the first limit that is reached.

    Attributes:
        trials: Integer, number of trials, or `None`.
        epochs: Integer, number of epochs in all trials together, or `None`.
        minutes: Float, or `None`. When the time is up, the running trial ends with its
            current epoch, is validated, and counts. The clock is reset when a search is
            resumed.
    """

    trials: int | None = None
    epochs: int | None = None
    minutes: float | None = None

    def __post_init__(self):
        given = dataclasses.asdict(self)
        if all(value is None for value in given.values()):
            raise ValueError(
                "A budget must have a limit. Received: none. Set `trials`, `epochs` or "
                "`minutes`."
            )
        for name, value in given.items():
            if value is not None and not value > 0:
                raise ValueError(
                    f"`{name}` must be positive. Received: {name}={value}. Remove it for "
                    "no limit."
                )


class _Limited:
    """Mixin for oracles with a budget, feasible proposals and a table of trials.

    KerasTuner's own oracles would propose infeasible models, each of which would be a
    failed trial, and stop after a few failures.
    """

    def limit(self, hyper_model, budget, epochs, report):
        """Sets options for which the constructors of the oracles have no arguments.

        Args:
            hyper_model: `PerceiverHyperModel`.
            budget: `Budget`.
            epochs: Integer, epochs per trial, unless the oracle sets them.
            report: Callable that takes the lines of the table of trials.
        """
        self._hyper_model = hyper_model
        self._budget = budget
        self._epochs = epochs
        self._report = report
        self._deadline = None
        self.seconds = {}
        self._started = {}
        self._has_header = False

    def begin(self, deadline):
        """Starts the clock.

        Args:
            deadline: Float, in seconds as returned by `time.time()`, or `None`.
        """
        self._deadline = deadline

    def is_feasible(self, values):
        """Returns whether the model with these values is feasible."""
        hp = self.get_space()
        hp.values = dict(values)
        return self._hyper_model.infeasibility(self._hyper_model.values(hp)) is None

    def num_epochs(self, values):
        """Returns the number of epochs of a trial."""
        first = values.get("tuner/initial_epoch", 0)
        return values.get(CUT, values.get("tuner/epochs", self._epochs)) - first

    def _is_used_up(self):
        budget = self._budget
        if self._deadline is not None and time.time() > self._deadline:
            return True
        if budget.trials is not None and len(self.trials) >= budget.trials:
            return True
        if budget.epochs is None:
            return False
        spent = sum(
            self.num_epochs(trial.hyperparameters.values)
            for trial in self.trials.values()
        )
        return spent >= budget.epochs

    def populate_space(self, trial_id):
        if self._is_used_up():
            return {"status": "STOPPED", "values": None}
        found = super().populate_space(trial_id)
        values = found.get("values")
        if values is not None:  # Hyperband copies them from a trial that it continues
            values.pop(CUT, None)
        if found["status"] != "RUNNING" or self.is_feasible(values):
            return found
        return self._replacement(values, trial_id)

    def _replacement(self, values, trial_id):
        """Returns a proposal that replaces an infeasible one."""
        values = self._random_values()
        if values is None:
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": values}

    def _random_values(self):
        if not self.trials:  # a search starts with the defaults
            values = {hp.name: hp.default for hp in self.get_space().space}
            if self.is_feasible(values):
                return values
        for _ in range(_MAX_TRIES):
            values = super()._random_values()
            if values is None or self.is_feasible(values):
                return values
        return None

    @kt.synchronized
    def create_trial(self, tuner_id):
        trial = super().create_trial(tuner_id)
        if trial.status == "RUNNING":
            self._started.setdefault(trial.trial_id, time.monotonic())
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        started = self._started.pop(trial.trial_id, None)
        if started is not None:
            self.seconds[trial.trial_id] = time.monotonic() - started
        super().end_trial(trial)
        self.save()
        self._report_trial(self.trials[trial.trial_id])

    def _report_trial(self, trial):
        best = [t.score for t in self.trials.values() if t.status == "COMPLETED"]
        values = self.row(trial)
        pick = max if self.objective.direction == "max" else min
        values["best"] = pick(best) if best else None
        space = self._hyper_model.space
        free = [n for n, s in space.items() if isinstance(s, (list, tuple))]
        if not self._has_header:
            header = [*(f"{name:>10}" for name in _COLUMNS), "changed settings"]
            self._report("  ".join(header))
            self._has_header = True
        cells = [f"{_cell(values[name]):>10}" for name in _COLUMNS]
        # Only those that differ from the defaults, to fit on one line.
        start = self._hyper_model.defaults
        changed = {n: values[n] for n in free if values.get(n) != start.get(n)}
        text = ", ".join(f"{name}={_cell(v)}" for name, v in changed.items())
        self._report("  ".join([*cells, text]))
        if CUT in trial.hyperparameters.values:
            self._report(
                f"{'':>12}stopped after {values['epochs']} epochs: the time is up"
            )
        if trial.status != "COMPLETED" and trial.message:
            self._report(f"{'':>12}{trial.message.strip().splitlines()[-1]}")

    def row(self, trial):
        """Returns the row of a trial in the table of trials, a dict by column."""
        hp = trial.hyperparameters.copy()
        values = self._hyper_model.values(hp)
        sizes = self._hyper_model.sizes(values)
        return {
            "trial": trial.trial_id,
            "status": trial.status,
            "score": trial.score,
            "parameters": sizes.parameters,
            "GFLOPs": sizes.flops / 1e9,
            "seconds": self.seconds.get(trial.trial_id),
            "epochs": self.num_epochs(trial.hyperparameters.values),
            "after_epochs": trial.hyperparameters.values.get("tuner/initial_epoch", 0),
            **values,
        }

    def get_state(self):
        return {**super().get_state(), "seconds": self.seconds}

    def set_state(self, state):
        super().set_state(state)
        self.seconds = dict(state["seconds"])

    def _check_consecutive_failures(self):
        """Does nothing, so that a search continues after failures."""


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


class _Random(_Limited, kt.oracles.RandomSearchOracle):
    pass


class _Bayesian(_Limited, kt.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id):
        from sklearn.exceptions import ConvergenceWarning

        # There is no best length scale for settings without an effect so far.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().populate_space(trial_id)


class _Hyperband(_Limited, kt.oracles.HyperbandOracle):
    pass


class _Grid(_Limited, kt.oracles.GridSearchOracle):
    def _replacement(self, values, trial_id):
        """Keeps the proposal, which fails immediately, so that the grid advances."""
        return {"status": "RUNNING", "values": values}


ALGORITHMS = ("hyperband", "bayesian", "random", "grid")
"""How a search chooses its trials: arguments of `make_tuner`."""
_KINDS = dict(zip(ALGORITHMS, (_Hyperband, _Bayesian, _Random, _Grid), strict=True))


def make_oracle(algorithm, hyper_model, budget, epochs, seed, report, hyperparameters):
    """Returns an oracle.

    Args:
        algorithm: String, one of `ALGORITHMS`.
        hyper_model: `PerceiverHyperModel`.
        budget: `Budget`.
        epochs: Integer, epochs per trial, the maximum for Hyperband.
        seed: Integer, seed of the proposals.
        report: Callable that takes the lines of the table of trials.
        hyperparameters: The user's `keras_tuner.HyperParameters`, or `None`.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"`algorithm` must be one of {ALGORITHMS}. Received: algorithm={algorithm!r}. "
            "Choose one of them."
        )
    ranges = {n: s for n, s in hyper_model.space.items() if isinstance(s, tuple)}
    if algorithm == "grid" and ranges:
        raise ValueError(
            f"A grid has no ranges. Received: {ranges}. Pass lists of values, or one value."
        )
    options = {
        "objective": hyper_model.objective,
        "seed": seed + 1,  # for KerasTuner, 0 means no seed
        "hyperparameters": hyperparameters,
    }
    if algorithm == "hyperband":
        # As many brackets as the budget allows.
        options |= {"max_epochs": epochs, "hyperband_iterations": 10**6}
    else:
        options |= {"max_trials": budget.trials}
    if algorithm == "bayesian":
        options |= {"num_initial_points": 6}
    oracle = _KINDS[algorithm](**options)
    oracle.limit(hyper_model, budget, epochs, report)
    oracle.verbose = 0
    return oracle
