"""What a server can do, found out with a few two-token calls before anything is spent on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from evalsuite.errors import EngineError, did_you_mean
from evalsuite.models.api.client import Client
from evalsuite.models.api.health import ApiError, explain
from evalsuite.models.encoding import Encoder

Body = dict[str, Any]
FEW_STOPS = 4  # what the original API allows


@dataclass(frozen=True, slots=True)
class Features:
    """True: shown to work. `stops`: how many stop strings a request may have; `vllm`: it takes vLLM's own fields.

    `max_tokens_field` is what a chat request calls its token limit.
    """

    vllm: bool = False
    completions: bool = False
    chat: bool = False
    token_prompts: bool = False
    token_ids: bool = False
    seed: bool = False
    prefill: bool = False
    echo: bool = False
    logprob_token_ids: bool = False
    stops: int = FEW_STOPS
    max_tokens_field: str = "max_tokens"
    max_model_len: int | None = None

    def names(self) -> str:
        """The features that work, for messages and scorecards."""
        return ", ".join(f.name for f in fields(self) if getattr(self, f.name) is True) or "none"


def model_card(client: Client, served_model: str) -> Mapping[str, Any]:
    """What `/models` says about the model; empty when the server has no such list or does not list it.

    Raises EngineError when the server cannot be reached or refuses the key.
    """
    try:
        answer = client.call("/models")
    except ApiError as error:
        if error.status in (404, 405, 501):
            return {}
        raise explain(error, client.key.variable) if error.status in (401, 403) else EngineError(str(error)) from None
    listed = answer.get("data")
    cards = {str(card.get("id")): card for card in listed if isinstance(card, dict)} if isinstance(listed, list) else {}
    return cards.get(served_model) or ({"near": did_you_mean(served_model, cards)} if cards else {})


def probe(client: Client, served_model: str, encoder: Encoder | None) -> Features:
    """Asks for each feature once. Raises EngineError when neither kind of completion works."""
    card = model_card(client, served_model)
    ids = encoder.encode("The cat", chat=False) if encoder else []
    text: Body = {"model": served_model, "prompt": "The cat", "max_tokens": 2, "temperature": 0}
    tokens: Body = text | {"prompt": ids}
    user = {"role": "user", "content": "Hi"}
    talk: Body = {"model": served_model, "messages": [user], "max_tokens": 2, "temperature": 0}
    begun: Body = talk | {"messages": [user, {"role": "assistant", "content": "Sure"}]}
    go_on = {"continue_final_message": True, "add_generation_prompt": False}
    asked: dict[str, tuple[str, Body]] = {
        "completions": ("/completions", text),
        "chat": ("/chat/completions", talk),
        "chat_new": ("/chat/completions", _renamed(talk)),
        "begun": ("/chat/completions", begun),
        "go_on": ("/chat/completions", begun | go_on),
        "seed": ("/completions", text | {"seed": 1}),
        "chat_seed": ("/chat/completions", talk | {"seed": 1}),
        "stops": ("/completions", text | {"stop": list("#$%&@")}),
        "chat_stops": ("/chat/completions", talk | {"stop": list("#$%&@")}),
        "echo": ("/completions", text | {"echo": True, "logprobs": 1, "max_tokens": 0}),
    }
    if encoder:
        asked["token_prompts"] = ("/completions", tokens)
        asked["token_ids"] = ("/completions", tokens | {"return_token_ids": True})
        asked["next_tokens"] = ("/completions", tokens | next_tokens(ids[-1:]))
    answers = client.calls(asked)

    def works(name: str, shows: Callable[[Body], bool] = lambda choice: True) -> bool:
        found = answers.get(name)
        if found is None or isinstance(found, ApiError):
            return False
        try:
            return bool(shows(found["choices"][0]))
        except (KeyError, IndexError, TypeError, ValueError):
            return False

    completions = works("completions", lambda c: isinstance(c["text"], str))
    new_name = not works("chat") and works("chat_new")
    chat = new_name or works("chat", lambda c: isinstance(c["message"], dict))
    if not (completions or chat):
        raise _neither(client, answers, str(card.get("near", "")))
    either = "completions" if completions else "chat"
    limit = card.get("max_model_len")
    return Features(
        vllm=card.get("owned_by") == "vllm",
        completions=completions,
        chat=chat,
        token_prompts=works("token_prompts", lambda c: isinstance(c["text"], str)),
        token_ids=works("token_ids", lambda c: isinstance(c["token_ids"][0], int)),
        seed=works("seed" if completions else "chat_seed"),
        prefill=_fewer_tokens(answers["go_on"], answers["begun"]),
        echo=works("echo", lambda c: any(isinstance(x, float) for x in c["logprobs"]["token_logprobs"])),
        logprob_token_ids=works(
            "next_tokens", lambda c: f"token_id:{ids[-1]}" in c["logprobs"]["top_logprobs"][0] and c["prompt_logprobs"]
        ),
        stops=1024 if works("stops" if either == "completions" else "chat_stops") else FEW_STOPS,
        max_tokens_field="max_completion_tokens" if new_name else "max_tokens",
        max_model_len=limit if isinstance(limit, int) else None,
    )


def next_tokens(tokens: list[int]) -> Body:
    """Fields that ask vLLM for the log-probabilities of given next tokens, and of the prompt's own with their ranks."""
    return {
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": tokens,
        "return_tokens_as_token_ids": True,
        "prompt_logprobs": 0,
    }


def _renamed(body: Body) -> Body:
    """The same chat request with the newer name of its limit (some hosted models know only that)."""
    changed = {name: value for name, value in body.items() if name not in ("max_tokens", "temperature")}
    return changed | {"max_completion_tokens": body["max_tokens"]}


def _fewer_tokens(going_on: Body | ApiError, begun: Body | ApiError) -> bool:
    """Whether an unfinished last message was left open: a server that ignores the fields renders a longer prompt."""
    try:
        return going_on["usage"]["prompt_tokens"] < begun["usage"]["prompt_tokens"]  # type: ignore[index,no-any-return]
    except (KeyError, TypeError):
        return False


def _neither(client: Client, answers: Mapping[str, Body | ApiError], near: str) -> EngineError:
    said = {name: answers[name] for name in ("chat", "completions")}
    errors = [error for error in said.values() if isinstance(error, ApiError)]
    if not errors:
        return EngineError(
            f"{client.base_url} answers, but not like an OpenAI-compatible server: {client.clean(str(said['chat']))!r}"
        )
    # What is not "no such address" says more.
    error = next((e for e in errors if e.status != 404), errors[0])
    return EngineError(f"{explain(error, client.key.variable)}{near}")
