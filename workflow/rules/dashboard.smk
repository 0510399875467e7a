# Everything about one coverage on one page. All that is known of it -> results/coverage_{coverage}/diagnostics_dashboard.html
from arena_cje.provenance import sha256

# Template, style and script: read as files, as the library that uses them takes a second to import on every start.
PAGE = [WORKFLOW / "arena_cje" / "report" / f"dashboard.{kind}" for kind in ("html.j2", "css", "js")]


def lower(coverage):
    """Configured coverages below one: their labels are bought with its own, so that looking at them costs seconds."""
    return [other for other in CONFIG.coverages if float(other) < float(coverage)]


rule dashboard:
    """Lay out the dashboard of coverage {wildcards.coverage}"""
    input:
        results=lambda w: estimates_at(w.coverage),
        influence=lambda w: f"results/coverage_{w.coverage}/{ESTIMATORS[0]}.influence.parquet",
        others=lambda w: expand(
            "results/coverage_{coverage}/{name}.json", coverage=lower(w.coverage), name=ESTIMATORS[:1]
        ),
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        draws=lambda w: draws_at_hand(w.coverage),
        validation=lambda w: validation_at(w.coverage),
    output:
        "results/coverage_{coverage}/diagnostics_dashboard.html",
    log:
        "logs/dashboard/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        configuration=canonical({k: v for k, v in settings_shown().items() if k != "coverages"}),
        code=code_hash("arena_cje.report.dashboard"),
        page=[sha256(path) for path in PAGE],
    script:
        "../scripts/dashboard.py"
