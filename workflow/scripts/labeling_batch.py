"""Make the tasks of a labelling batch: tables and a page for raters, and the private key."""

from pathlib import Path

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.labeling import cells, page, sentences, tasks
from arena_cje.labeling.records import Scale
from arena_cje.stages import people
from arena_cje.stages.jobs import configuration, job, text

with job(snakemake) as log:
    config, output, name = configuration(snakemake), snakemake.output, snakemake.wildcards.batch
    labeling = config.labeling
    prompts = [row for path in snakemake.input.prompts for row in schemas.PROMPTS.read(path)]
    responses = {policy: [] for policy in config.human_shares}
    for path in snakemake.input.responses:
        responses[Path(path).parent.name] += schemas.RESPONSES.read(path)
    answers, left_out = people.answers(prompts, responses)
    for status, count in left_out.items():
        log.warning("%d responses cannot be labelled: %s", count, status)
    batch = tasks.make(
        answers,
        name=name,
        limit=tasks.Limit(**labeling.batches[name].model_dump()),
        terms=tasks.Terms(labeling.votes_per_item, labeling.usd_per_vote, labeling.duplicates),
        n_prompts=len(prompts),
        seed=config.seed,
        secret=tasks.study_secret("results/labeling/secret.key"),
        shares=config.human_shares,
        validation=config.validation_span,
        earlier=tasks.read_key(snakemake.input.earlier),
    )
    log.info(sentences.of_batch(batch))
    files.write_bytes(output.tasks, tasks.tasks_csv(batch, byte_order_mark=labeling.byte_order_mark))
    files.write_json(output.label_studio, tasks.label_studio(batch))
    files.write_bytes(output.mturk, tasks.mturk_csv(batch))
    html = page.render(batch, Scale(*labeling.scale, labeling.step), text(snakemake.input.instructions))
    files.write_bytes(output.page, html.encode())
    reading = labeling.model_dump(mode="json", include={"votes_per_item", "scale", "step"})
    files.write_json(output.summary, batch.summary | reading)
    cells.write_private(output.key, tasks.key_csv(batch))
