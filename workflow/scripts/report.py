"""Make exhibits: one of them, or all of a coverage from sources that are read once."""

from arena_cje.config.exhibits import EXHIBITS
from arena_cje.report import making
from arena_cje.report.sources import Sources
from arena_cje.stages.jobs import job


def read_spending():
    """Calls to APIs that were paid for; only the dashboard shows them."""
    from arena_cje.money import account

    return account.read_ledger()


with job(snakemake) as log:
    outputs = dict(snakemake.output.items())
    files = {name: [value] if isinstance(value, str) else list(value) for name, value in snakemake.input.items()}
    if "validate" in outputs:
        files["validation"] = [outputs["validate"]]  # made first, and other exhibits read it
    sources = Sources(files, snakemake.wildcards.get("coverage"), dict(snakemake.params.items()), read_spending)
    for exhibit in EXHIBITS:
        if exhibit.name in outputs:
            making.make(exhibit, sources, outputs[exhibit.name])
            log.info("%s", outputs[exhibit.name])
