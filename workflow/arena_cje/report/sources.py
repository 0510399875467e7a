"""The sources of exhibits: the files of a coverage, or of all coverages, read into records.

Scores and labels are mapped to [0, 1] as they are in the analysis, so that the figures of data and results have one scale.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Each property imports what only it needs.
if TYPE_CHECKING:
    import polars as pl

    from arena_cje.data.dataset import Dataset
    from arena_cje.data.reading import Reading
    from arena_cje.data.rows import Response
    from arena_cje.estimation.records import Draws, Labelled, Logged
    from arena_cje.files import Row
    from arena_cje.report.exports import Truths
    from arena_cje.results.result import Result
    from arena_cje.results.validation import Truth

Summary = Mapping[str, Any]  # of results/coverage_*/summary.json


class Sources:
    """The sources of the exhibits of one coverage, or of all coverages, each read at its first use.

    files: paths by the name of a rule's input; params: parameters of the rule; read_spending: reads the ledger of API calls.
    `config.exhibits.READS` lists the inputs and parameters of each source.
    """

    def __init__(
        self,
        files: Mapping[str, Sequence[str]],
        coverage: str | None,
        params: Mapping[str, Any],
        read_spending: Callable[[], list[Row]] = list,
    ):
        self.coverage = coverage
        self._files, self._params, self._read_spending = files, params, read_spending

    def _single_file(self, name: str) -> str | None:
        """The file of an input with a single file, None without one."""
        return next(iter(self._files.get(name, ())), None)

    @cached_property
    def results(self) -> list[Result]:
        """Results of the configured estimators."""
        return [_load(path) for path in self._files["results"]]

    @property
    def ordered_results(self) -> list[Result]:
        """The same results, the recommended one first."""
        from arena_cje.results.recommendation import recommended_first

        return recommended_first(self.results)

    @property
    def paired_results(self) -> list[Result]:
        """The same results with influence values, for differences; the recommended one first."""
        return self.ordered_results

    @property
    def paired_recommended(self) -> Result:
        """The result of the recommended estimator with influence values."""
        return self.paired_results[0]

    @cached_property
    def first(self) -> Result:
        """The result of the first configured estimator."""
        return self._result("first")

    @property
    def paired_first(self) -> Result:
        """The result of the first estimator with influence values, for differences."""
        return self.first

    @property
    def base_policy(self) -> str:
        """Name of the base policy."""
        return self.first.base_policy

    def _result(self, name: str) -> Result:
        """The result of an input; an element of `results` if the file is one of theirs."""
        path, listed = self._single_file(name), self._files.get("results", ())
        return self.results[list(listed).index(path)] if path in listed else _load(path)

    @cached_property
    def labelled_truths(self) -> dict[str, Truth]:
        """Truth by policy, from the judge's and the oracle's grades of its responses."""
        from arena_cje.data.schemas import GRADES
        from arena_cje.results.validation import truth_of

        judge = {Path(path).stem: path for path in self._files["judge"]}
        oracle = {Path(path).parent.name: path for path in self._files["oracle"]}
        return {policy: truth_of(GRADES.read(judge[policy]), GRADES.read(path)) for policy, path in oracle.items()}

    @cached_property
    def _validation(self) -> pl.DataFrame | None:
        """validation.csv, None where the truth is unknown."""
        from arena_cje.report.exports import read_validation

        path = self._single_file("validation")
        return read_validation(path) if path else None

    @property
    def validation(self) -> list[Row]:
        """Rows of validation.csv; empty where the truth is unknown."""
        return [] if self._validation is None else self._validation.to_dicts()

    @property
    def validated_first(self) -> Truths:
        """Rows of validation.csv of the first estimator, by policy."""
        from arena_cje.report.exports import truths_of

        return truths_of(self._validation, self.first.name)

    @property
    def truth(self) -> dict[str, float]:
        """Truth by policy, where it is known."""
        return {row["policy"]: row["truth"] for row in self.validation if row["truth"] is not None}

    @cached_property
    def summary(self) -> Summary:
        """Summary of the data set at this coverage."""
        from arena_cje.files import read_json

        return read_json(self._single_file("summary"))

    @property
    def _reading(self) -> Reading:
        """The mapping of scores and labels to [0, 1], with the scores of the configured judge."""
        from arena_cje.data.reading import Reading

        return replace(Reading.from_summary(self.summary), judge=self._params["scores_of"])

    @cached_property
    def logged(self) -> Logged:
        """The logged rows with the scores of the configured judge."""
        from arena_cje.data.dataset import load_logged

        return load_logged(
            self._single_file("dataset"), base_policy=self.summary["base_policy"], reading=self._reading
        )[0]

    @cached_property
    def draws(self) -> dict[str, Draws]:
        """Fresh draws by policy."""
        return draws(self._files["draws"], self.logged, self.summary, self._reading)

    @cached_property
    def account(self) -> dict[str, Any]:
        """The account of the data set before its analysis."""
        import json

        from arena_cje.results.account import account

        return account(
            self._single_file("dataset"),
            {Path(path).stem: path for path in self._files["draws"]},
            json.loads(self._params["thresholds"]),
            base_policy=self.summary["base_policy"],
            reading=self._reading,
        )

    @cached_property
    def fitted(self) -> Result:
        """The result of the first configured estimator that calibrates its rewards, of the first if none does."""
        return self._result("fitted")

    @cached_property
    def _fitted_data(self) -> Dataset:
        """The data set with the scores that `fitted` used."""
        from arena_cje.data.dataset import load_dataset
        from arena_cje.data.rows import NO_TEXTS

        base_policy, reading = self.summary["base_policy"], self.fitted.reading
        return load_dataset(
            self._single_file("dataset"),
            self._single_file("calibration"),
            base_policy=base_policy,
            reading=reading,
            texts=NO_TEXTS,
        )

    @property
    def fitted_logged(self) -> Logged:
        """The logged rows as the calibrator of `fitted` reads them."""
        return self._fitted_data.logged

    @property
    def fitted_calibration(self) -> Labelled | None:
        """Labelled responses for the calibrator alone; None without calibration data."""
        return self._fitted_data.calibration

    @cached_property
    def responses(self) -> list[Response]:
        """The rows of the logged responses, with the texts that the dashboard shows."""
        from arena_cje.data.logged import read_logged

        result = self.paired_recommended
        return read_logged(
            self._single_file("dataset"),
            result.base_policy,
            result.policies,
            reading=result.reading,
            texts=self._listed_prompts,
        )[0]

    @cached_property
    def _listed_prompts(self) -> Collection[str] | None:
        """Prompts of the rows whose texts the dashboard shows; None for all."""
        from arena_cje.report.dashboard_items import listed_prompts

        return listed_prompts(self.paired_recommended)

    @cached_property
    def fresh_responses(self) -> dict[str, list[Response]]:
        """The rows of the fresh draws by policy, with the same texts."""
        from arena_cje.data.draws import read_draws
        from arena_cje.data.names import policy_of

        files = {policy_of(Path(path).stem): path for path in self._files["draws"]}
        return {
            policy: read_draws(path, policy, reading=self.paired_recommended.reading, texts=self._listed_prompts)
            for policy, path in files.items()
            if policy in self.paired_recommended.policies
        }

    @property
    def lower_results(self) -> list[tuple[str, Result]]:
        """Results of the recommended estimator at lower coverages."""
        name = f"{self.paired_recommended.name}.json"
        return [(coverage_of(path), _load(path)) for path in self._files["lower"] if Path(path).name == name]

    @property
    def look(self) -> dict[str, Any] | None:
        """The account of the planned looks up to this coverage; None where none are planned."""
        from arena_cje.files import read_json

        path = self._single_file("look")
        return read_json(path) if path else None

    @property
    def throughput(self) -> list[Row]:
        """Benchmarks of the jobs."""
        from arena_cje.report.dashboard import read_benchmarks

        return read_benchmarks("logs/benchmarks")

    @property
    def spending(self) -> list[Row]:
        """Calls to APIs and their costs, from the ledger."""
        return self._read_spending()

    @property
    def configuration(self) -> Mapping[str, Any]:
        """Settings of the experiment."""
        import json

        return json.loads(self._params["configuration"])

    @cached_property
    def _exported(self) -> tuple[list[Row], list[float | None]]:
        """The logged rows and their calibrated scores, on the scale of the data."""
        from arena_cje.report import exports

        return exports.logged_rows(self._single_file("dataset"), self.first, self._single_file("calibration"))

    @cached_property
    def propensities(self) -> list[Row]:
        """The logged rows, without log probabilities that do not match their policy's sampling distribution."""
        from arena_cje.report import exports

        return exports.without_logprobs(self._exported[0], self._params["non_propensity"], self.first.base_policy)

    @property
    def rewards(self) -> list[float | None]:
        """Calibrated scores of the logged rows, on the scale of the data."""
        return self._exported[1]

    @property
    def token_logprobs(self) -> dict[str, list[float]]:
        """Log probabilities of the base responses by token, by prompt id, where they are known and propensities."""
        from arena_cje.report import exports

        path, is_propensity = (
            self._single_file("logprobs"),
            self.first.base_policy not in self._params["non_propensity"],
        )
        return exports.token_logprobs(path) if path and is_propensity else {}

    @cached_property
    def all_results(self) -> list[tuple[str, Result]]:
        """Coverage and result, in configured order."""
        return [(coverage_of(path), _load(path)) for path in self._files["all_results"]]

    @property
    def results_by_coverage(self) -> dict[str, list[Result]]:
        """Results by coverage, the lowest coverage first, those of a coverage in configured order."""
        by_coverage: dict[str, list[Result]] = {}
        for coverage, result in self.all_results:
            by_coverage.setdefault(coverage, []).append(result)
        return dict(sorted(by_coverage.items(), key=lambda item: float(item[0])))

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan of the next study."""
        from arena_cje.files import read_json

        return read_json(self._single_file("plan"))

    @property
    def all_validations(self) -> dict[str, pl.DataFrame]:
        """validation.csv by coverage."""
        from arena_cje.report.exports import read_validation

        return {coverage_of(path): read_validation(path) for path in self._files["all_validations"]}

    @property
    def last_truth(self) -> dict[str, float]:
        """Truth by policy, from the last configured coverage."""
        from arena_cje.report.exports import read_validation

        path = self._single_file("last_validation")
        rows = read_validation(path).iter_rows(named=True) if path else ()
        return {row["policy"]: row["truth"] for row in rows if row["truth"] is not None}


def _load(path: str | Path) -> Result:
    """The result in a results file."""
    from arena_cje.results.result import load

    return load(path)


def draws(files: Iterable[str | Path], responses: Logged, summary: Summary, reading: Reading) -> dict[str, Draws]:
    """Fresh draws of the targets by policy, from files named POLICY.jsonl; responses: the logged rows."""
    from arena_cje.data.dataset import load_draws
    from arena_cje.data.names import policy_of

    paths = {policy_of(Path(file).stem): file for file in files}
    return {
        policy: load_draws(path, policy, responses.prompt_id.tolist(), reading=reading)[0]
        for policy, path in paths.items()
        if policy != summary["base_policy"]
    }


def coverage_of(file: str | Path) -> str:
    """The coverage of a file, from the name of its folder coverage_{coverage}."""
    return Path(file).parent.name.removeprefix("coverage_")
