"""Whether a configuration suits a user's own data, before any job runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.files import user_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from arena_cje.config.records import Config
    from arena_cje.data.preview import Preview


def check(config: Config, data: Preview, estimates: Sequence[str]) -> None:
    """Raise a `UserError` where the data cannot give the estimates that a run is to make; estimates: their names."""
    against, where = config.decision.against, user_path(config.logged_data)
    if against is not None and against not in data.policies:
        raise UserError(
            f"config: `decision.against` is {against!r}, which is not a policy of the data"
            f"{did_you_mean(against, data.policies)}; its policies: {', '.join(data.policies)}"
        )
    by_weights = [name for name in estimates if config.needs_weights(name)]
    if by_weights and not data.with_logprobs:
        raise UserError(
            f"{where}: no row has target_policy_logprobs, needed by {', '.join(by_weights)}; 'direct' needs fresh draws alone "
            "(fresh_draws=DIR)"
        )
    calibrated = [name for name in estimates if config.estimator_of(name)[1]["rewards"] != "judge"]
    if calibrated and not data.has_labels:
        raise UserError(
            f"{where}: no row has an oracle_label{data.label_hint}, needed to calibrate the judge for {', '.join(calibrated)}; "
            f"label responses to prompts drawn at random ({MIN_LABELLED_PROMPTS} prompts at the very least, 50 for a decision), "
            "or give labelled responses as calibration_data"
        )


def notes(
    config: Config, data: Preview, estimates: Sequence[str], coverages: Sequence[str], user_keys: Mapping[str, Any]
) -> list[str]:
    """Sentences for the start of a run: what the data lack, and what of the configuration is not used.

    estimates, coverages: those that a run is to make; user_keys: the keys that the user wrote.
    """
    sentences = list(data.notes)
    if "policies" in user_keys:
        sentences.append(
            f"`policies` are not used beside `logged_data`; the policies are those of the data: {', '.join(data.policies)}"
        )
    left_out = [name for name in config.estimators if not config.can_run(name)]
    if left_out and {*estimates} == {*config.estimators} - {*left_out}:
        sentences.append(f"left out because there are no fresh draws: {', '.join(left_out)} (fresh_draws=DIR)")
    without_draws = [name for name in data.with_logprobs if name not in data.with_draws]
    if any(map(config.needs_draws, estimates)) and without_draws:
        sentences.append(f"no fresh draws of {', '.join(without_draws)}, which estimators by draws therefore refuse")
    without_logprobs = [name for name in data.with_draws if name not in data.with_logprobs]
    if any(map(config.needs_weights, estimates)) and without_logprobs:
        sentences.append(
            f"no log probabilities of {', '.join(without_logprobs)}, which estimators by weights therefore refuse"
        )
    if data.n_rows is not None and data.n_labels:
        larger = [coverage for coverage in coverages if round(float(coverage) * data.n_rows) > data.n_labels]
        if larger:
            sentences.append(
                f"{user_path(config.logged_data)} has labels on {data.n_labels} of {data.n_rows} rows, so that coverage "
                f"{', '.join(larger)} uses all of them, as coverage {data.n_labels / data.n_rows:.3g} would"
            )
    return sentences
