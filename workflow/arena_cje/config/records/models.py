"""Models, the APIs that serve some of them, and the policies made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from arena_cje.calls import apis
from arena_cje.config.records.values import HUMAN, LOCAL, REFERENCE, Address, KeyName, Record, system_prompt_file


class Model(Record):
    """A local model: its file and how it runs."""

    file: str | None = Field(
        None, description="name of a file in `resources/models/MODELS.yaml`, downloaded and verified on first use"
    )
    path: str | None = Field(None, description="path of any other GGUF file; give this or `file`")
    sha256: str | None = Field(
        None,
        description="expected SHA-256 of the file at `path` (of all parts in order, where it is split); null: recorded unchecked",
    )
    n_ctx: int = Field(
        2048,
        ge=64,
        description="longest prompt and response together, in tokens; a longer one becomes a row with a status",
    )
    n_gpu_layers: int = Field(
        -1, ge=-1, description="number of layers on the GPU, -1 for all; a build without GPU support ignores this"
    )
    n_threads: int = Field(
        1, ge=1, description="threads per process; on CPUs, one process per core with one thread each is fastest"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.file is None) == (self.path is None):
            raise ValueError("give either `file` (a name in MODELS.yaml) or `path` (a GGUF file), not both or neither")
        if self.sha256 is not None and self.path is None:
            raise ValueError("`sha256` belongs to `path`; a `file` has its hash in MODELS.yaml")
        return self


class Provider(Record):
    """An API: its address, its key and the limits of its use."""

    api: Literal[apis.NAMES] = Field("openai", description="API of the server; most servers implement `openai`")
    base_url: Address = Field(None, description="address of the server; null: the default address of the client")
    api_key_env: KeyName = Field(None, description="environment variable with the API key; null: no key is sent")
    max_concurrency: int = Field(
        8, ge=1, le=1000, description="largest number of requests in flight, over all jobs of a user on a machine"
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="largest number of requests a minute, over all jobs of a user on a machine; null: no limit",
    )
    timeout: float = Field(120.0, gt=0, description="seconds after which a request without a reply counts as failed")
    max_attempts: int = Field(8, ge=1, description="attempts per request in one run; the next run tries again")
    completions: bool | None = Field(
        None,
        description="whether its completions endpoint returns log probabilities of given text with `echo` (vLLM and "
        "llama_cpp.server do); null: true for `fireworks`, false for `openai`",
    )
    echo_max_tokens: Literal[0, 1] | None = Field(
        None,
        description="`max_tokens` of requests for log probabilities of given text: 0, or 1 where the server takes 0 for no limit "
        "(llama_cpp.server) or refuses 0 (vLLM); null: 0 for `fireworks`, 1 for `openai`",
    )
    json_reply: Literal["schema", "object", "text"] = Field(
        "schema",
        description="how requests ask for a structured answer: by a JSON schema (`schema`), as any JSON object (`object`, for "
        "llama_cpp.server), or by the prompt alone (`text`)",
    )
    token_limit: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        None,
        description="name of the parameter that limits the new tokens of a chat (reasoning models behind Azure or a gateway "
        "accept `max_completion_tokens` only); null: `max_completion_tokens` at OpenAI's own address, `max_tokens`"
        " elsewhere",
    )
    template: str | None = Field(
        None,
        description="chat template that replaces those of its policies, for a server that runs another model under their "
        "names; null: each policy's own template",
    )
    seed: Literal["send", "omit"] = Field(
        "send",
        description="whether requests contain a seed; `omit` for servers that reject it (replies are then not reproducible)",
    )


class Price(Record):
    """Price of a model."""

    input: float = Field(ge=0, description="US dollars for a million prompt tokens")
    output: float = Field(ge=0, description="US dollars for a million completion tokens")


class ModelBlock(Record):
    """Common keys of policies, judges and the oracle: the provider of their model."""

    provider: str = Field(
        LOCAL, description="`llama_cpp`: the model runs in the job itself; otherwise a name under `providers`"
    )
    base_url: Address = Field(
        None,
        description="address that replaces the provider's; it receives only the key of `api_key_env` in this block",
    )
    api_key_env: KeyName = Field(None, description="environment variable of an API key that replaces the provider's")
    extra: dict[str, Any] = Field(
        {}, description="further parameters of each request, under the API's names (such as `reasoning_effort: low`)"
    )

    @property
    def hosted(self) -> bool:
        """Whether the model is behind an API."""
        return self.provider not in (LOCAL, REFERENCE, HUMAN)


class Policy(ModelBlock):
    """A policy: a model, a system prompt and sampling."""

    model: str = Field(
        min_length=1, description="a name under `models`; for a model behind an API, its name at the provider"
    )
    template: str | None = Field(
        None,
        description="chat template, for providers that return log probabilities of given text: a file of "
        "`resources/templates/` or a path; null: requests are chats, and only `direct` can estimate this policy",
    )
    system_prompt: str | None = Field(
        None,
        description="the text itself (several words), a file of `resources/policies/` or a path; null: no system message is "
        "sent",
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=10,
        description="sampling temperature; 0 (greedy) is refused for a base policy whose responses get importance weights",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="probability mass of the nucleus; below 1 the policy cannot produce every response of the base",
    )
    max_tokens: int = Field(
        256,
        ge=1,
        description="tokens after which a response is cut; must be equal for all policies with importance weights (see below)",
    )
    draws_per_prompt: int | None = Field(
        None, ge=1, description="fresh draws of this target per prompt; null: the top-level `draws_per_prompt`"
    )
    description: str | None = Field(None, description="one line of description for readers")

    @property
    def context(self) -> str:
        """Name of the scoring context (model, system prompt): policies that share it share one forward pass."""
        system_prompt = Path(system_prompt_file(self.system_prompt)).stem if self.system_prompt else "none"
        model = f"{self.provider}-{self.model}" if self.hosted else self.model
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{model}-{system_prompt}")

    @property
    def sampling(self) -> dict[str, float]:
        """The parameters that turn the logits of the context into the policy's distribution."""
        return {"temperature": self.temperature, "top_p": self.top_p}
