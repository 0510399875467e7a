"""Convert files of another tool into logged data and fresh draws."""

import json
from pathlib import Path

from arena_cje.data import convert
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    foreign = json.loads(snakemake.params.foreign)
    name, files = foreign.pop("format"), foreign.pop("file")
    conversion = convert.convert(name, files, convert.Choices(**foreign))
    log.info("%s\n%s", name, convert.summary_text(conversion.summary))
    convert.write(conversion, Path(snakemake.output.logged).parent)
