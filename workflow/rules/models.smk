# The models: fetched and checked once, their hash recorded. resources/models/MODELS.yaml -> results/models/{model}.json


rule fetch_model:
    """Fetch {wildcards.file} and check its hash"""
    input:
        ancient(MODELS_YAML),
    output:
        str(RESOURCES / "models" / "{file}.gguf"),
    log:
        "logs/models/fetch-{file}.log",
    localrule: True
    conda:
        "../../envs/llama.yaml"
    script:
        "../scripts/fetch_model.py"


rule register_model:
    """Record the hash of model {wildcards.model}"""
    input:
        lambda w: gguf_parts(w.model),
    output:
        "results/models/{model}.json",
    log:
        "logs/models/{model}.log",
    localrule: True
    conda:
        "../../envs/llama.yaml"
    params:
        sha256=lambda w: CONFIG.models[w.model].sha256,
        n_ctx=lambda w: CONFIG.models[w.model].n_ctx,
    script:
        "../scripts/register_model.py"
