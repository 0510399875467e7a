"""Two oracles side by side: a model against people on the texts that both have labelled.

    mean difference    d = mean_i (model_i - label_i),   se(d) = sqrt(G / (G - 1) sum_g (sum_{i in g} (d_i - d))^2) / n

over n texts of G prompts, as texts of one prompt are alike; intervals are those of Student's t with G - 1 degrees of freedom.
A difference that is the same for all policies moves levels alone. What a comparison of policies is off by, if the model labels in
place of people, is the difference's own difference between a policy and the base on the prompts that both have.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.labeling.agreement import most_apart, spearman

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.files import Row
    from arena_cje.labeling.records import KeyRow

Place = tuple[str, str, int]  # policy, prompt and draw of a response


@dataclass(frozen=True)
class Pair:
    """Both labels of a policy's response, in [0, 1]."""

    item_id: str
    policy: str
    prompt_id: str
    people: float
    model: float

    @property
    def difference(self) -> float:
        """How much higher the model's label is."""
        return self.model - self.people


def pairs(key: Iterable[KeyRow], labels: Mapping[str, float], scores: Mapping[Place, float | None]) -> list[Pair]:
    """Responses with both labels. labels: of people, by item; scores: of the model."""
    both = []
    for row in key:
        score = scores.get((row.policy, row.prompt_id, row.draw_idx))
        if score is not None and row.item_id in labels:
            both.append(Pair(row.item_id, row.policy, row.prompt_id, labels[row.item_id], score))
    return both


def side_by_side(of: Sequence[Pair], policies: Sequence[str], alpha: float = 0.05) -> dict[str, Any]:
    """Rank correlation, mean difference with its interval and where they part most; and by policy, the base first.

    policies: whose responses people label. A text of several policies counts once but for the numbers of its policies.
    """
    texts = list({pair.item_id: pair for pair in of}.values())
    base = {pair.prompt_id: pair.difference for pair in of if pair.policy == policies[0]}
    by_policy = {}
    for policy in policies:
        own = [pair for pair in of if pair.policy == policy]
        rest = [(pair.prompt_id, pair.difference - base[pair.prompt_id]) for pair in own if pair.prompt_id in base]
        against = {} if policy == policies[0] else {"beyond_the_base": mean_by_prompt(rest, alpha)}
        by_policy[policy] = _compared(own, alpha) | against
    people, model = ({pair.item_id: getattr(pair, name) for pair in texts} for name in ("people", "model"))
    apart = most_apart(people, model)
    return _compared(texts, alpha) | {"policies": by_policy, "most_apart": apart}


def _compared(of: Sequence[Pair], alpha: float) -> dict[str, Any]:
    people, model = (np.array([getattr(pair, name) for pair in of]) for name in ("people", "model"))
    return {
        "n_texts": len(of),
        "spearman": spearman(people, model),
        "mean_difference": mean_by_prompt([(pair.prompt_id, pair.difference) for pair in of], alpha),
    }


def mean_by_prompt(values: Iterable[tuple[str, float]], alpha: float = 0.05) -> Row:
    """Mean of values of prompts with an interval; null where there is no value, or one prompt alone."""
    from scipy.special import stdtrit

    of_prompt = defaultdict(list)
    for prompt, value in values:
        of_prompt[prompt].append(value)
    n, prompts = sum(map(len, of_prompt.values())), len(of_prompt)
    mean = sum(map(sum, of_prompt.values())) / n if n else None
    row = {"estimate": mean, "se": None, "ci_lower": None, "ci_upper": None, "n_prompts": prompts}
    if prompts < 2:
        return row
    sums = np.array([sum(of_one) - len(of_one) * mean for of_one in of_prompt.values()])
    se = float(np.sqrt(prompts / (prompts - 1) * (sums**2).sum()) / n)
    half = float(stdtrit(prompts - 1, 1 - alpha / 2)) * se
    return row | {"se": se, "ci_lower": mean - half, "ci_upper": mean + half}
