# As `include: "workflow/Snakefile"`, but its rule `all` is what `snakemake` alone runs.
workflow.include("workflow/Snakefile", overwrite_default_target=True)
