"""What determines the outputs of generation, scoring and the data set: parameters of the rules, which the jobs read.

What determines a grade stands in `grading.plan`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje import files
from arena_cje.config.records.values import REFERENCE
from arena_cje.data import prompts
from arena_cje.data.prompt_sets import hub
from arena_cje.data.prompt_sets.pool import Pool, Source, is_read, read_pool, stand_in
from arena_cje.data.prompt_sets.selection import Selection
from arena_cje.errors import UserError, file_errors
from arena_cje.grading import reference
from arena_cje.hosted import writer
from arena_cje.llama import generator, scorer
from arena_cje.provenance import code_hash
from arena_cje.stages.seals import MEND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.config.records import Config
    from arena_cje.files import Row
    from arena_cje.grading.plan import GraderPlan


def generation_parameters(config: Config, policy: str) -> dict[str, Any]:
    """What determines the responses of a policy, beside its model file, its system prompt, its template and the prompts."""
    block = config.policies[policy]
    if block.hosted:
        model = {"request": writer.request_identity(block, config.endpoint(block)), "version": writer.VERSION}
    else:
        model = {"n_ctx": config.models[block.model].n_ctx, "version": generator.VERSION}
    draws = config.draws(policy)
    return {**block.sampling, "max_tokens": block.max_tokens, "draws": draws, "seed": config.seed, **model}


def scoring_parameters(config: Config, context: str) -> dict[str, Any]:
    """What determines the log probabilities in a scoring context, beside the responses, the model file and the prompt files.

    Samplings, not policy names: a policy that shares a scored sampling adds nothing to do.
    """
    block, base = config.contexts[context], config.policies[config.base_policy]
    samplings = config.samplings(context)
    if block.hosted:
        request = writer.request_identity(block, config.endpoint(block), echoes_logprobs=True)
        return {"samplings": samplings, "request": request, "version": writer.VERSION}
    # In the context where the responses were drawn, a token on the edge of the nucleus counts as inside.
    drawn_from = base.sampling if base.context == context else None
    n_ctx = config.models[block.model].n_ctx
    return {"samplings": samplings, "drawn_from": drawn_from, "n_ctx": n_ctx, "version": scorer.VERSION}


def prompt_pool(config: Config, path: Path | None, folder: Path, *, makes_results: bool = True) -> Pool:
    """The prompts of the configured source in their order, read once and kept in a folder.

    path: of the source; None where it is a data set of the hub. makes_results: false for a plan or a cost estimate, in which
    other prompts stand in for those of the hub while there is no access token. Raises a `UserError` where there are fewer
    prompts than the configuration takes.
    """
    block = config.prompts
    selection = Selection(
        columns=block.columns.model_dump(exclude_none=True),
        language=block.language,
        min_chars=block.min_chars,
        max_chars=block.max_chars,
        flagged=block.flagged,
        duplicates=block.duplicates,
    )
    source = Source(block.source, path, block.split, block.revision, selection)
    if path is None and not (makes_results or is_read(source, folder) or hub.has_token()):
        return stand_in(source, config.n_prompts, folder)
    with file_errors(path):
        pool = read_pool(source, config.seed, folder)
    pool.check_size(config.n_prompts)
    return pool


def shard_fingerprints(config: Config, pool: Pool, cache: Path) -> dict[str, str]:
    """Hash of the prompts of each shard, by its name, after a check of the references.

    cache: a file that keeps the hashes for the next start of the workflow, as they take longer than to plan the jobs of a
    large experiment.
    """
    made_from = {
        "pool": pool.identity,
        "n_prompts": config.n_prompts,
        "shard_size": config.shard_size,
        "oracle": config.oracle.provider,
        "code": code_hash("arena_cje.data.prompts", "arena_cje.grading.reference"),
    }
    cache_content = _read_cache(cache)
    if cache_content.get("made_from") == made_from:
        return cache_content["fingerprints"]
    if config.oracle.provider == REFERENCE:
        reference.check(pool.rows(config.n_prompts))
    lines = pool.lines(config.n_prompts)
    if len(lines) < config.n_prompts:
        raise UserError(
            f"{pool.path}: is damaged: {len(lines)} prompts are left of {pool.summary['n_eligible']}; {MEND}"
        )
    names = prompts.shards(config.n_prompts, config.shard_size)
    fingerprints = {name: prompts.fingerprint(prompts.cut(lines, name, config.shard_size)) for name in names}
    files.write_json(cache, {"made_from": made_from, "fingerprints": fingerprints})
    return fingerprints


def shard_rows(pool: Path, start: int, stop: int, fingerprint: str) -> list[Row]:
    """The prompts of a shard, which are those that the plan has seen; raises a `UserError` where they are not."""
    if prompts.fingerprint(prompts.lines(pool, start, stop)) != fingerprint:
        raise UserError(f"{pool}: is damaged: prompts {start} to {stop} differ from the source; {MEND}")
    return prompts.read(pool, start, stop)


def _read_cache(path: Path) -> dict[str, Any]:
    """The content of a cache file; nothing where it is missing or damaged."""
    try:
        return files.read_json(path)
    except UserError:
        return {}


def dataset_provenance(config: Config, graders: Mapping[str, GraderPlan], pool: Pool) -> dict[str, Any]:
    """Everything that determines a data set and is not in its files: results record it as their provenance."""
    judges = {stage.removeprefix("judges/"): plan for stage, plan in graders.items() if stage.startswith("judges/")}
    judge, oracle = graders["judge"], graders["oracle"]
    return {
        "seed": config.seed,
        "n_prompts": config.n_prompts,
        "prompts": _recorded_prompts(config, pool),
        "base_policy": config.base_policy,
        "policies": {
            name: _recorded_generation(config, name)
            | {"context": block.context}
            | ({"template": block.template} if block.template else {})
            for name, block in config.policies.items()
        },
        "judge": judge.provenance,
        "judges": {name: plan.provenance for name, plan in judges.items()},
        "oracle": oracle.provenance
        | {"target_labels": config.oracle.target_labels or 0.0}
        | ({"design": config.oracle.design} if config.oracle.is_by_score else {}),
        "versions": {
            "score": {
                name: writer.VERSION if block.hosted else scorer.VERSION for name, block in config.contexts.items()
            },
            "judge": judge.version,
            "oracle": oracle.version,
        },
    }


def _recorded_prompts(config: Config, pool: Pool) -> dict[str, Any]:
    """What was selected from which source, with the counts; a source outside the working directory by its last part."""
    selected = config.prompts.model_dump(mode="json", exclude_defaults=True, exclude={"source"})
    source = Path(config.prompts.source)
    return selected | pool.summary | {"source": source.name if source.is_absolute() else str(source)}


def _recorded_generation(config: Config, policy: str) -> dict[str, Any]:
    """The parameters of generation under the names that results files have for them."""
    recorded = generation_parameters(config, policy)
    request = recorded.pop("request", None)
    return recorded if request is None else recorded | {"asked": request}
