# Where the files of this workflow are, for this process and for every job.
#
# A workflow on this machine has them around its Snakefile. One that another workflow takes from Git, as a module with
# `github(...)` or `git+file:`, has them in a commit, where Snakemake would find rule files, scripts and environments, but
# nothing would find the library and the resources: so the commit is unpacked to .arena-cje/ in the working directory, and all
# that follows is as it is on a machine. Paths stay the same from commit to commit: a new version of the workflow makes stale
# what its changed files determine, and nothing else.
import json
import os
import sys
from pathlib import Path

from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile

UNPACKED = ("config", "envs", "resources", "workflow")


def root_folder():
    """The folder that holds `workflow/`, `resources/` and `config/`."""
    rules = workflow.current_basedir
    if isinstance(rules, LocalSourceFile):
        return Path(rules).parents[1]
    if isinstance(rules, LocalGitFile):
        import git

        repository = git.Repo(rules.repo_path)
    elif isinstance(rules, HostingProviderFile):
        repository = rules.hosted_repo.repo
    else:
        sys.exit(
            f"ERROR {rules}: the files of arena-cje cannot be found from this address; name the "
            "workflow by a path, by git+file:///REPOSITORY/workflow/Snakefile@TAG or by github(REPOSITORY, ...)"
        )
    folder = Path(".arena-cje")
    # What runs and what its jobs read is one commit, even where a branch moves in the meantime.
    if workflow.is_main_process or not (folder / "revision.json").exists():
        try:
            write_commit(repository.commit(rules.ref), Path(rules.path).parents[1], folder)
        except OSError as error:
            sys.exit(f"ERROR {folder.absolute()}: cannot be written ({error}); choose another --directory")
    return folder


def write_commit(commit, root, folder):
    """Write the files of a commit that are not in `folder` yet; `root` is the workflow's place in the repository."""
    record = folder / "revision.json"
    before = json.loads(record.read_text()) if record.exists() else {"commit": None, "files": {}}
    if before["commit"] == commit.hexsha:
        return
    files = {}
    for part in UNPACKED:
        for blob in (commit.tree / (root / part).as_posix()).traverse(lambda item, _: item.type == "blob"):
            name = Path(blob.path).relative_to(root).as_posix()
            files[name] = blob.hexsha
            if before["files"].get(name) != blob.hexsha:
                time = None if name in before["files"] else commit.committed_date
                write_file(folder / name, blob.data_stream.read(), time)
    for name in before["files"].keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    write_file(folder / ".gitignore", b"*\n", None)
    write_file(record, json.dumps({"commit": commit.hexsha, "files": files}, indent=1).encode(), None)


def write_file(path, content, time):
    """Put a file in place in one step.

    `time`: its modification time; None is now, by which Snakemake sees that a file has changed. A file that was not there
    before has the time of its commit, so that it is not newer than results that were made from the same content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}")
    half.write_bytes(content)
    if time is not None:
        os.utime(half, (time, time))
    os.replace(half, path)


ROOT = root_folder()
if set(str(ROOT)) & set("{}<>"):
    sys.exit(
        f"ERROR {ROOT}: the workflow lies in a folder with {{, }}, < or > in its path, which Snakemake reads as wildcards of rules; "
        "move or link the workflow to a folder without them (your own files may have any path)"
    )
WORKFLOW = ROOT.absolute() / "workflow"
RESOURCES = ROOT / "resources"

# Jobs import the library from here, installed or not: a conda environment has it from nowhere else.
sys.path.insert(0, str(WORKFLOW))
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys([str(WORKFLOW), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
)


envvars:
    "PYTHONPATH",


try:
    import arena_cje.config.parse
except ModuleNotFoundError as error:
    sys.exit(
        f"ERROR the Python that runs Snakemake ({sys.executable}) has no module {error.name!r}, which arena-cje reads its "
        f"configuration with; install it there: pip install {error.name}"
    )
