"""Bodies of requests to an OpenAI-compatible server, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.models.api.health import ApiError
from evalsuite.models.api.probe import Body, Features
from evalsuite.models.encoding import Encoder
from evalsuite.models.stops import Ending, Thinking, finish_text, finish_thinking, finish_tokens
from evalsuite.types import Finish, GenerateRequest, Response, Sampling

CHAT, COMPLETIONS = "/chat/completions", "/completions"
SEED_MASK = (1 << 63) - 1  # servers take signed 64-bit seeds


@dataclass(frozen=True, slots=True)
class Speaker:
    """How one model on one server is spoken to. `encoder` is the local tokenizer, when there is one."""

    served_model: str
    features: Features
    encoder: Encoder | None = None
    thinking: Thinking | None = None

    @property
    def takes_tokens(self) -> bool:
        """Prompts go as tokens made here: prefill, BOS and stops are then those of a local engine."""
        return self.encoder is not None and self.features.token_prompts

    def path(self, request: GenerateRequest) -> str:
        return CHAT if request.prompt.chat and not self.takes_tokens else COMPLETIONS

    def missing(self, request: GenerateRequest) -> str:
        """The feature that this request needs and the server lacks; empty when all is there."""
        sampling, features = request.sampling, self.features
        if self.path(request) == CHAT:
            if not features.chat:
                return "chat completions (or --tokenizer DIR and token prompts over /completions)"
            if request.prompt.messages is None:
                return "a conversation in the prompt (it was rendered without one)"
            if request.want_tokens:
                return "token ids of a chat answer (give --tokenizer DIR)"
        elif not features.completions:
            return "/completions for plain prompts"
        if request.want_tokens and not features.token_ids:
            return "return_token_ids"
        if (sampling.top_k or sampling.min_p) and not features.vllm:
            return "top_k and min_p (only known of vLLM)"
        return ""

    def body(self, request: GenerateRequest, ids: Sequence[int] | None, limit: int) -> Body:
        """The request as JSON, for at most `limit` new tokens. `ids` is the prompt when the server takes tokens."""
        body: Body = {"model": self.served_model, **self._sampling(request.sampling)}
        n_top = request.top_logprobs
        if not self.thinking and request.sampling.stop:  # what is thought may contain a stop string
            body["stop"] = list(request.sampling.stop[: self.features.stops])
        if self.path(request) == CHAT:
            return body | self._chat(request, limit) | ({"logprobs": True, "top_logprobs": n_top} if n_top else {})
        body |= {"max_tokens": limit, "prompt": request.prompt.text if ids is None else list(ids)}
        if self.features.vllm and self.encoder is not None:
            body |= {"skip_special_tokens": False, "spaces_between_special_tokens": False}
            body["stop_token_ids"] = sorted(self.encoder.eos_ids)
        if self.features.token_ids:
            body["return_token_ids"] = True
        if request.want_tokens or n_top:
            body["logprobs"] = max(1, n_top)
        return body

    def response(self, request: GenerateRequest, answer: Body, limit: int) -> Response:
        """What the answer says. Raises ApiError when it is not a whole answer."""
        choice = first_choice(answer)
        said = choice.get("finish_reason")
        if said == "content_filter":
            raise ApiError("refused: the server's content filter cut the answer (finish_reason 'content_filter')")
        if said not in ("stop", "length"):
            raise ApiError(f"the answer is not whole: finish_reason is {said!r}, expected 'stop' or 'length'")
        ids = choice.get("token_ids") if self.path(request) == COMPLETIONS else None
        ending = self._ending(request, choice, said, ids)
        tokens = tuple(ids) if request.want_tokens and ids is not None else None
        return Response(
            text=ending.text,
            # A server knows better that it stopped; that the text holds a stop string after all, we do.
            finish="stop" if said == "stop" and not self.thinking else ending.finish,
            n_tokens=usage(answer)[1] or len(ids or ()),
            tokens=tokens,
            logprobs=None if tokens is None else tuple(choice["logprobs"]["token_logprobs"]),
            thinking=ending.thinking,
            shrunk=limit < request.sampling.max_tokens,
            top=_top(choice) if request.top_logprobs else (),
        )

    def _chat(self, request: GenerateRequest, limit: int) -> Body:
        prompt, features = request.prompt, self.features
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages or ()]
        body: Body = {"messages": messages, features.max_tokens_field: limit}
        if prompt.prefill and features.prefill:
            messages.append({"role": "assistant", "content": prompt.prefill})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _sampling(self, sampling: Sampling) -> Body:
        """Said in full: what is left out, vLLM takes from the checkpoint's generation_config.json."""
        body: Body = {"temperature": sampling.temperature}
        if sampling.temperature == 0 and self.features.max_tokens_field != "max_tokens":
            body = {}  # models that know only the newer name take no temperature but their own
        if sampling.temperature > 0:
            body["top_p"] = sampling.top_p
            if self.features.seed:
                body["seed"] = sampling.seed & SEED_MASK
        if self.features.vllm:
            body |= {"top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p}
            body["repetition_penalty"] = 1.0
        return body

    def _ending(self, request: GenerateRequest, choice: Body, said: Finish, ids: list[int] | None) -> Ending:
        """The text by our own rules about stops and special tokens, from token ids where there are any."""
        stops, encoder = request.sampling.stop, self.encoder
        opened = self.thinking is not None and request.prompt.text.rstrip().endswith(self.thinking.open)
        if ids is not None and encoder is not None:
            return finish_tokens(encoder, ids, stops, self.thinking, opened=opened)
        text, reasoning = _text(choice)
        eos, specials = (encoder.eos_text, encoder.special_texts) if encoder else ("", ())
        if self.thinking is not None and not reasoning:
            return finish_thinking(text, self.thinking, stops, eos, specials, ended=said == "stop", opened=opened)
        answer, hit = finish_text(text, stops, eos, specials)
        return Ending(answer, "stop" if hit else said, reasoning)


def in_form(schema: str) -> Body:
    """What asks a chat endpoint for an answer by a JSON schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(schema)}}}


def first_choice(answer: Body) -> dict[str, Any]:
    """The one choice of an answer. Raises ApiError with the first 200 characters of something else."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ApiError(f"the answer has no choices: {str(answer)[:200]!r}")
    return choices[0]


def usage(answer: Body) -> tuple[int, int]:
    """(prompt tokens, new tokens) as the server counts them; zeros when it does not say."""
    said = answer.get("usage")
    counts = [said.get(name) if isinstance(said, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, new = (count if isinstance(count, int) and count >= 0 else 0 for count in counts)
    return prompt, new


def _top(choice: Body) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens in either form (chat: a list of objects; text: an object); empty without any."""
    try:
        found = choice["logprobs"]
        if "content" in found:
            rows = [(row["token"], row["logprob"]) for row in found["content"][0]["top_logprobs"]]
        else:
            rows = list(found["top_logprobs"][0].items())
        return tuple((str(token), float(value)) for token, value in rows)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return ()


def _text(choice: Body) -> tuple[str, str]:
    """(answer, what was thought before it). Raises ApiError when there is neither text nor message."""
    if isinstance(choice.get("text"), str):
        return choice["text"], ""
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ApiError(f"the choice has neither text nor message: {str(choice)[:200]!r}")
    content = message.get("content") or message.get("refusal") or ""
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if not isinstance(content, str) or not isinstance(reasoning, str):
        raise ApiError(f"the message's content is no text: {str(message)[:200]!r}")
    return content, reasoning
