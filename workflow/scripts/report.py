"""Make exhibits: one of them, or all of a coverage from sources that are read once."""

from arena_cje.config.exhibits import EXHIBITS
from arena_cje.report import making
from arena_cje.report.sources import Sources
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    made = dict(snakemake.output.items())
    files = {name: [value] if isinstance(value, str) else list(value) for name, value in snakemake.input.items()}
    if "validate" in made:
        files["validation"] = [made["validate"]]  # comes first, and others are made of it
    sources = Sources(files, snakemake.wildcards.get("coverage"), dict(snakemake.params.items()))
    for exhibit in (one for one in EXHIBITS if one.name in made):
        making.make(exhibit, sources, made[exhibit.name])
        log.info("%s", made[exhibit.name])
