"""The `snakemake` object of a job that calls an API."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from arena_cje.config.records import Config

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-Zq81mW0xLr57TbVn"


def snakemake(folder: Path, url: str, **keys) -> SimpleNamespace:
    """The object that Snakemake gives to a script. keys: further keys of the configuration."""
    (folder / "logs").mkdir(exist_ok=True)

    class Logs(list):
        benchmark = str(folder / "logs" / "job.tsv")

    config = Config(
        providers={"local": {"base_url": url, "api_key_env": "MY_KEY", "max_attempts": 2}},
        judge={"provider": "local", "model": "m"},
        prices={"m": {"input": 1000, "output": 0}},
        **keys,
    )
    return SimpleNamespace(
        rule="judge",
        wildcards=["base"],
        input=[],
        output=[],
        params={},
        config=config.model_dump(mode="json"),
        log=Logs([str(folder / "logs" / "job.log")]),
    )
