# A user's own data: the same data set files, from a logged data set in the CJE format instead of models.
# --config logged_data=FILE fresh_draws=DIR -> results/coverage_{coverage}/cje_dataset.jsonl, summary.json, fresh_draws/{policy}.jsonl
# logged_data={format: promptfoo, file: F}  -> results/converted/logged.jsonl, fresh_draws/{policy}.jsonl first
# probes=DIR calibration_data=FILE          -> their labels in fresh_draws/{policy}.jsonl, calibration_data.jsonl
if FOREIGN:

    rule convert_data:
        """Convert files of another tool into logged data and fresh draws"""
        input:
            [input_path(str(path)) for path in convert.source_files(FOREIGN.file)],
        output:
            list(IMPORTED.values()),
            logged=f"{CONVERTED}/logged.jsonl",
            summary=f"{CONVERTED}/conversion.json",
        log:
            "logs/import/convert.log",
        conda:
            "../../envs/stats.yaml"
        params:
            foreign=literal(canonical(FOREIGN.model_dump(mode="json"))),
            code=code_hash("arena_cje.data.convert", convert.get(FOREIGN.format).__name__),
        script:
            "../scripts/convert_data.py"


rule import_data:
    """Read the user's own data, with labels on a share {wildcards.coverage}"""
    input:
        logged=CONFIG.logged_data,
        draws=[input_path(str(path)) for path in IMPORTED.values()],
        probes=[input_path(str(path)) for path in PROBED.values()],
        calibration=CONFIG.calibration_data or [],
    output:
        *draw_files("{coverage}"),
        calibration_file("{coverage}"),
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
    log:
        "logs/import/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        fresh_draws=literal(CONFIG.fresh_draws),
        probes=literal(CONFIG.probes),
        seed=CONFIG.seed,
        target_labels=CONFIG.oracle.target_labels,
        scale=CONFIG.analysis.scale,
        judge_scale=CONFIG.analysis.judge_scale,
        label_scale=CONFIG.analysis.label_scale,
        judge=CONFIG.analysis.judge,
        base_policy=OWN_BASE,
        thresholds=data_thresholds(),
        code=code_hash("arena_cje.data.user_data", "arena_cje.data.write", "arena_cje.results.account"),
    script:
        "../scripts/import_data.py"
