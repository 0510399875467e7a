# The models: fetched and checked once, their hash recorded. resources/models/MODELS.yaml -> results/models/{model}.json

import functools

from arena_cje.llama import fetch
from arena_cje.llama.gguf import check_magic, parts, size

MODELS_YAML = RESOURCES / "models" / "MODELS.yaml"


@functools.cache  # the input functions of every job ask
def gguf(model):
    """The GGUF file of a configured model; a name without a recipe, or a path without a file, ends the workflow."""
    block = CONFIG.models[model]
    if block.path:
        said(check_magic, block.path)
        return block.path
    file = RESOURCES / "models" / block.file
    if not file.exists():
        said(fetch.read_entry, block.file, MODELS_YAML)
    return str(file)


def model_record(block):
    """What is recorded of the model that a policy or a grader runs here; nothing where it runs elsewhere."""
    return f"results/models/{block.model}.json" if block.provider == configuration.LOCAL else []


def memory(path):
    """Megabytes that a process with this model asks for: its file, as much again for caches, and buffers; told once it is there."""
    return 500 + 2 * size(path) // 10**6


rule fetch_model:
    """Fetch {wildcards.file} and check its hash"""
    input:
        ancient(MODELS_YAML),
    output:
        str(RESOURCES / "models" / "{file}.gguf"),
    log:
        "logs/models/fetch-{file}.log",
    conda:
        "../../envs/llama.yaml"
    script:
        "../scripts/fetch_model.py"


rule register_model:
    """Record the hash of model {wildcards.model}"""
    input:
        lambda w: said(parts, gguf(w.model)),
    output:
        "results/models/{model}.json",
    log:
        "logs/models/{model}.log",
    conda:
        "../../envs/llama.yaml"
    params:
        sha256=lambda w: CONFIG.models[w.model].sha256,
        n_ctx=lambda w: CONFIG.models[w.model].n_ctx,
    script:
        "../scripts/register_model.py"
