"""Read the votes of people, and make a label of each text and a report of how far raters agree."""

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.labeling import labels, sentences, tasks, votes
from arena_cje.labeling.records import Scale
from arena_cje.stages import people
from arena_cje.stages.jobs import configuration, job

with job(snakemake) as log:
    config = configuration(snakemake)
    labeling = config.labeling
    scale = Scale(*labeling.scale, labeling.step)
    placed = [row for path in snakemake.input.votes for row in votes.read(path, labeling.columns)]
    key = tasks.read_key(snakemake.input.key)
    ballot = votes.collect(placed, key, scale, votes=labeling.votes_per_item)
    prompts = [row for path in snakemake.input.prompts for row in schemas.PROMPTS.read(path)]
    apart = people.items_of(key, prompts, config.validation_span) if config.validation_span else ()
    labelled = labels.make(ballot, scale, labeling.aggregation, apart)
    for sentence in sentences.of_votes(labelled.report):
        log.info(sentence)
    schemas.LABELS.write(snakemake.output.labels, labelled.rows)
    files.write_json(snakemake.output.report, labelled.report)
