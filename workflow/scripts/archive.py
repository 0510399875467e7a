"""Put everything of a run that people keep into one zip file."""

import json
from pathlib import Path

import arena_cje
from arena_cje.report import archive
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    content = archive.members(
        snakemake.input.results,
        root=Path("results"),
        configuration=json.loads(snakemake.params.configuration),
        package_version=arena_cje.__version__,  # no parameter: an archive is not stale for it
        texts=snakemake.input.texts,
        throughput=Path("logs/benchmarks"),
    )
    archive.write(snakemake.output[0], content)
    log.info("%d files, %.1f MB", len(content) + 1, Path(snakemake.output[0]).stat().st_size / 1e6)
