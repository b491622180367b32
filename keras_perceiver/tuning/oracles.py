"""KerasTuner's oracles, within a budget, that propose only what can be built."""

import dataclasses
import time
import warnings

import keras_tuner as kt

_MAX_TRIES = 1000
_COLUMNS = ("trial", "status", "score", "best", "parameters", "GFLOPs", "seconds")


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a search may cost. It ends with what is used up first.

    Attributes:
        trials: Integer, number of trials, or `None`.
        epochs: Integer, passes over the training data in all trials together, or `None`.
        minutes: Float, or `None`. No trial begins later; one that runs is not cut. Counted
            anew when a search is resumed.
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
                    f"`{name}` must be positive. Received: {name}={value}. Leave it out "
                    "for no such limit."
                )


class _Limited:
    """What all our oracles do besides their search.

    KerasTuner's own would propose models that cannot be, each of which is a trial that
    fails, and it gives up after a few of these.
    """

    def limit(self, hyper_model, budget, epochs, report):
        """Sets what the constructors of the oracles have no arguments for.

        Args:
            hyper_model: `PerceiverHyperModel`.
            budget: `Budget`.
            epochs: Integer, of a trial, where the oracle does not say.
            report: Callable that is given lines of the table of trials.
        """
        self._hyper_model = hyper_model
        self._budget = budget
        self._epochs = epochs
        self._report = report
        self._deadline = None
        self.seconds = {}
        self._started = {}
        self._has_header = False

    def begin(self):
        """Starts the clock."""
        if self._budget.minutes is not None:
            self._deadline = time.monotonic() + 60 * self._budget.minutes

    def can_be(self, values):
        """Tells whether there can be a model with these values."""
        hp = self.get_space()
        hp.values = dict(values)
        return self._hyper_model.reason_against(self._hyper_model.values(hp)) is None

    def num_epochs(self, values):
        """Returns the passes over the training data of a trial."""
        first = values.get("tuner/initial_epoch", 0)
        return values.get("tuner/epochs", self._epochs) - first

    def _is_used_up(self):
        budget = self._budget
        if self._deadline is not None and time.monotonic() > self._deadline:
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
        if found["status"] != "RUNNING" or self.can_be(values):
            return found
        return self._instead_of(values, trial_id)

    def _instead_of(self, values, trial_id):
        """Returns another proposal."""
        values = self._random_values()
        if values is None:
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": values}

    def _random_values(self):
        if not self.trials:  # a search begins with what is known
            values = {hp.name: hp.default for hp in self.get_space().space}
            if self.can_be(values):
                return values
        for _ in range(_MAX_TRIES):
            values = super()._random_values()
            if values is None or self.can_be(values):
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
        # Not all of them, which would be several lines of a terminal.
        start = self._hyper_model.defaults
        changed = {n: values[n] for n in free if values.get(n) != start.get(n)}
        text = ", ".join(f"{name}={_cell(v)}" for name, v in changed.items())
        self._report("  ".join([*cells, text]))
        if trial.status != "COMPLETED" and trial.message:
            self._report(f"{'':>12}{trial.message.strip().splitlines()[-1]}")

    def row(self, trial):
        """Returns what the table of trials has of one, by column."""
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
        """Lets a search go on: each failure is in the table."""


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

        # A setting that has not mattered yet has no best length scale, each time.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().populate_space(trial_id)


class _Hyperband(_Limited, kt.oracles.HyperbandOracle):
    pass


class _Grid(_Limited, kt.oracles.GridSearchOracle):
    def _instead_of(self, values, trial_id):
        """Lets the grid's next value come when this one has failed, at once."""
        return {"status": "RUNNING", "values": values}


ALGORITHMS = ("hyperband", "bayesian", "random", "grid")
_KINDS = dict(zip(ALGORITHMS, (_Hyperband, _Bayesian, _Random, _Grid), strict=True))


def make_oracle(algorithm, hyper_model, budget, epochs, seed, report, hyperparameters):
    """Returns an oracle.

    Args:
        algorithm: String, one of `ALGORITHMS`.
        hyper_model: `PerceiverHyperModel`.
        budget: `Budget`.
        epochs: Integer, of a trial; for Hyperband the greatest number.
        seed: Integer, seed of the proposals.
        report: Callable that is given lines of the table of trials.
        hyperparameters: `keras_tuner.HyperParameters` of the user's, or `None`.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"`algorithm` must be one of {ALGORITHMS}. Received: algorithm={algorithm!r}. "
            "Choose one of them."
        )
    ranges = {n: s for n, s in hyper_model.space.items() if isinstance(s, tuple)}
    if algorithm == "grid" and ranges:
        raise ValueError(
            f"A grid has no ranges. Received: {ranges}. Give lists of values, or one value."
        )
    options = {
        "objective": hyper_model.objective,
        "seed": seed + 1,  # KerasTuner takes 0 for none
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
