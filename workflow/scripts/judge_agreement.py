"""Compare the judge with people on the texts that both have scored."""

from pathlib import Path

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.labeling import agreement, cells, sentences, tasks
from arena_cje.labeling.records import Scale
from arena_cje.stages import people
from arena_cje.stages.jobs import configuration, job


def by_policy(table, paths):
    """Rows of shards by policy, which is the folder of the files."""
    rows = {Path(path).parent.name: [] for path in paths}
    for path in paths:
        rows[Path(path).parent.name] += table.read(path)
    return rows


with job(snakemake) as log:
    labeling, inputs = configuration(snakemake).labeling, snakemake.input
    key = tasks.read_key(inputs.key)
    labels = {row["item_id"]: row["label"] for row in schemas.LABELS.read(inputs.labels)}
    scores = people.judge_scores(key, by_policy(schemas.GRADES, inputs.judge))
    comparison = agreement.with_judge(labels, scores, Scale(*labeling.scale, labeling.step))
    log.info(sentences.of_judge(comparison))
    files.write_json(snakemake.output.report, comparison)
    texts = people.texts(key, by_policy(schemas.RESPONSES, inputs.responses))
    rows = [row | texts[row["item_id"]] for row in comparison["most_apart"]]
    columns = ("item_id", "policies", "label", "judge", "difference", "prompt", "response")
    files.write_bytes(snakemake.output.apart, cells.csv_bytes(rows, columns))
