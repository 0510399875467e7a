"""Record what a model file is: its hash, its size, its tokenizer's hash, the library that runs it."""

from arena_cje.data import schemas
from arena_cje.llama.gguf import describe
from arena_cje.llama.model import open_model
from arena_cje.stages.jobs import job

with job(snakemake):
    record = describe(snakemake.input[0], snakemake.params.sha256)
    with open_model(snakemake.input[0], n_ctx=snakemake.params.n_ctx) as model:
        record["tokenizer_sha256"] = model.tokenizer_sha256
    schemas.write_json(snakemake.output[0], record)
