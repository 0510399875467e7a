"""Compare every model that labels or judges with people, on the texts that both have scored."""

import json
from pathlib import Path

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.labeling import cells, oracles, sentences, tasks
from arena_cje.stages import people
from arena_cje.stages.jobs import job

COLUMNS = ("model", "item_id", "policies", "label", "judge", "difference", "prompt", "response")

with job(snakemake) as log:
    inputs, params = snakemake.input, snakemake.params
    key, names = tasks.read_key(inputs.key), json.loads(params.policies)
    labels = {row["item_id"]: row["label"] for row in schemas.LABELS.read(inputs.labels)}
    grades = json.loads(params.grades)  # files by model and policy
    responses = {policy: [] for policy in names}
    for path in inputs.responses:
        responses[Path(path).parent.name] += schemas.RESPONSES.read(path)
    texts, compared, rows = people.texts(key, responses), {}, []
    for model, of_model in grades.items():
        scores = people.scores(
            {policy: [row for path in paths for row in schemas.GRADES.read(path)] for policy, paths in of_model.items()}
        )
        one = oracles.side_by_side(oracles.pairs(key, labels, scores), names, params.alpha)
        compared[model] = one
        rows += [{"model": model} | row | texts[row["item_id"]] for row in one["most_apart"]]
        for sentence in sentences.of_oracles(model, one):
            log.info(sentence)
    files.write_json(snakemake.output.report, {"alpha": params.alpha, "models": compared})
    files.write_bytes(snakemake.output.apart, cells.csv_bytes(rows, COLUMNS))
