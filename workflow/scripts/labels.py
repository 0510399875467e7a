"""Read the votes of people, and make a label of each text and a report of how far raters agree."""

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.labeling import labels, sentences, tasks, votes
from arena_cje.labeling.records import Scale
from arena_cje.stages.jobs import configuration, job

with job(snakemake) as log:
    labeling = configuration(snakemake).labeling
    scale = Scale(*labeling.scale, labeling.step)
    placed = [row for path in snakemake.input.votes for row in votes.read(path, labeling.columns)]
    key = tasks.read_key(snakemake.input.key)
    labelled = labels.make(
        votes.collect(placed, key, scale, votes=labeling.votes_per_item), scale, labeling.aggregation
    )
    for sentence in sentences.of_votes(labelled.report):
        log.info(sentence)
    schemas.LABELS.write(snakemake.output.labels, labelled.rows)
    files.write_json(snakemake.output.report, labelled.report)
