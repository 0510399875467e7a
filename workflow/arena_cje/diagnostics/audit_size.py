"""How many labels of a target's own responses the transport audit needs, before they are bought.

    P(PASS) = 2 Phi(margin / s - z_{1 - alpha/2K}) - 1,   s^2 = sigma^2 (1/m + 1/m_base)
    m = 1 / (1/m_0 - 1/m_base),   m_0 = ((z_{1 - alpha/2K} + z_{1 - beta/2}) sigma / margin)^2

for a calibration that holds exactly, K audited policies and a power of 1 - beta. sigma is the standard deviation of the
residuals, label minus calibrated score; m are labelled prompts of the target, m_base those that the calibrator is fitted to,
whose error is about that of their mean residual. With fewer than m_0 of them no number of the target's own labels is enough.

Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach"; Phillips (1990), "Power of
the two one-sided tests procedure in bioequivalence", both Journal of Pharmacokinetics and Biopharmaceutics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds

RESIDUAL_SD = 0.165  # of labels between 0 and 1 about the calibrated score, measured on chats of the Chatbot Arena
POWER = 0.8


def chance_to_pass(
    labels: float,
    thresholds: Thresholds,
    *,
    family: int,
    residual_sd: float = RESIDUAL_SD,
    base_labels: float = math.inf,
) -> float:
    """Probability of PASS with this many labelled prompts of a target among `family` audited ones."""
    from scipy.special import ndtr  # slow to import, and notes about a configuration seldom need it

    if labels < thresholds.transport_prompts or not base_labels > 0:
        return 0.0
    error = residual_sd * math.sqrt(1 / labels + 1 / base_labels)
    if error == 0:  # labels without residuals
        return 1.0
    return max(0.0, float(2 * ndtr(thresholds.transport_margin / error - _quantile(thresholds, family)) - 1))


def labels_to_pass(
    thresholds: Thresholds,
    *,
    family: int,
    residual_sd: float = RESIDUAL_SD,
    base_labels: float = math.inf,
    power: float = POWER,
) -> int | None:
    """Labelled prompts of a target with which it passes with this probability; None where no number of them is enough."""
    alone = _alone(thresholds, family, residual_sd, power)
    if alone >= base_labels:
        return None
    needed = alone / (1 - alone / base_labels)
    return math.ceil(max(needed, thresholds.transport_prompts) - 1e-9)


def labels_of_both_to_pass(
    thresholds: Thresholds, *, family: int, residual_sd: float = RESIDUAL_SD, power: float = POWER
) -> int:
    """Labelled prompts with which a target passes with this probability if the base has as many: 2 m_0."""
    return math.ceil(max(2 * _alone(thresholds, family, residual_sd, power), thresholds.transport_prompts) - 1e-9)


def _alone(thresholds: Thresholds, family: int, residual_sd: float, power: float) -> float:
    """m_0: labelled prompts of a target where the calibrator is exact."""
    from scipy.special import ndtri

    reach = _quantile(thresholds, family) + float(ndtri((1 + power) / 2))
    return (reach * residual_sd / thresholds.transport_margin) ** 2


def _quantile(thresholds: Thresholds, family: int) -> float:
    """z_{1 - alpha/2K}."""
    from scipy.special import ndtri

    return float(ndtri(1 - thresholds.transport_alpha / (2 * family)))
