"""Results in Python: load, print, ask, plot.

python docs/example.py results/coverage_0.1/calibrated-ips.json
"""

import sys
from pathlib import Path

import arena_cje

path = Path(sys.argv[1] if len(sys.argv) > 1 else "results/coverage_0.1/calibrated-ips.json")
result = arena_cje.load(path)
print(result)  # the table; in a notebook `result` alone shows it

for policy, entry in result.decision["policies"].items():  # against the base policy, by simultaneous intervals
    print(f"{policy}: {entry['status']}. {entry['sentence']}")
print(f"refused: {', '.join(result.refused) or 'none'}")

for policy, weights in result.diagnose_weights().items():
    print(f"{policy}: {weights.status}, ESS {weights.ess_share:.0%}; {'; '.join(weights.reasons) or 'nothing to say'}")

logged = path.with_name("cje_dataset.jsonl")  # what the result was made from
for name, figure in {
    "estimates": result.plot_estimates(),
    "weights": result.plot_weight_diagnostics(logged),
}.items():
    figure.save(f"{name}.png", verbose=False)  # a ggplot: add to it what you like
    print(f"wrote {name}.png")
