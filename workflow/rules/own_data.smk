# A user's own data when a run is planned: which files there are, and whether they can be analysed as configured.
from arena_cje.data import draws as data_draws
from arena_cje.data import user_data

OWN_BASE = None if BASE == "base" else BASE  # the default leaves it to the data to say

if FOREIGN:
    IMPORTED = {policy: f"{CONVERTED}/fresh_draws/{policy}.jsonl" for policy in OVERVIEW["targets"]}
    own_files = (CONFIG.calibration_data,)
else:
    # Files by policy. The names of the policies are in the data: the name of a file may spell them otherwise.
    POLICIES = or_exit(user_data.policy_names, CONFIG.logged_data, CONFIG.base_policy) if CONFIG.fresh_draws else ()
    IMPORTED = or_exit(data_draws.draw_paths, CONFIG.fresh_draws, POLICIES) if CONFIG.fresh_draws else {}
    own_files = (CONFIG.logged_data, CONFIG.calibration_data, *IMPORTED.values())

PROBED = or_exit(data_draws.find_probes, CONFIG.probes, tuple(IMPORTED))
for path in (*own_files, *PROBED.values()):
    if path is not None:
        or_exit(user_data.check_user_file, path, results=Path("results"))


def check_own_data():
    """End the workflow where the data cannot be analysed as configured; say what they lack."""
    from arena_cje.config import own_data

    data = overview_of_conversion() if FOREIGN else preview_of_files()
    named = targets.file_targets(ARGUMENTS)
    stems = [Path(path).name.split(".")[0] for path in named]
    estimates = [name for name in stems if name in CONFIG.analyses] if named else ESTIMATORS
    or_exit(own_data.check, CONFIG, data, estimates)
    coverages = [coverage for path in named if (coverage := targets.coverage_in(path))] or CONFIG.coverages
    notes = own_data.notes(CONFIG, data, estimates, list(dict.fromkeys(coverages)), own)
    if WITHOUT_LOGPROBS:
        notes.insert(0, f"left out because the data have no log probabilities: {', '.join(WITHOUT_LOGPROBS)}")
    for note in notes:
        print(printable(f"NOTE {note}"), file=sys.stderr)


def overview_of_conversion():
    """What the files of another tool give; whether they can be converted is known by then."""
    from arena_cje.data.preview import Preview

    policies = tuple(OVERVIEW["targets"])
    has_labels = OVERVIEW["has_labels"] or CONFIG.calibration_data is not None
    return Preview(OVERVIEW["base"], policies if OVERVIEW["has_logprobs"] else (), policies, has_labels)


def preview_of_files():
    """What files in the CJE format give; ends the workflow where they cannot be analysed."""
    from arena_cje.data import preview

    sources = preview.OwnFiles(
        CONFIG.logged_data, CONFIG.fresh_draws, IMPORTED, CONFIG.probes and PROBED, CONFIG.calibration_data
    )
    return or_exit(preview.preview, sources, own_reading(), OWN_BASE)


if CHECKS_DATA:
    check_own_data()
