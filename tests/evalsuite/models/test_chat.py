"""Chat templates: the same text as transformers' `apply_chat_template`, prefill kept raw, faults named by line."""

from __future__ import annotations

import copy
import json
import pickle
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import CheckpointError
from evalsuite.models.chat import ChatTemplate, Rendered
from evalsuite.types import Message
from tests.tiny import make_tokenizer

HEADERS = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|end|>\\n\\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {{- '<|head|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|end|>\\n\\n' }}
{%- endif %}
"""  # in the manner of Llama 3: trims what it prints

CHATML = """\
{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
<|im_start|>system
You answer.<|im_end|>
    {% endif %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

TULU = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
    "{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)

STRICT = """\
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate') }}
{%- endif %}
[{{ message.role }}] {{ message.content | trim }}
{% endfor %}
{{ '[model] ' if add_generation_prompt }}"""  # in the manner of Gemma

FEATURES = """\
{%- macro turn(role, text) -%}<{{ role }}>{{ text }}{%- endmacro -%}
{%- set ns = namespace(n=0) -%}
{%- generation -%}{%- set inner = 'kept inside' -%}{{ inner }}{%- endgeneration -%}
{%- for message in messages -%}
    {%- if message.content == 'skip' %}{% continue %}{% endif -%}
    {%- if message.content == 'stop' %}{% break %}{% endif -%}
    {%- set ns.n = ns.n + 1 -%}
    {%- if message.role == 'assistant' -%}
        {% generation %}{% set inner = message.content %}{{ turn('a', inner) }}{{ eos_token }}{% endgeneration %}
    {%- else -%}
        {{ turn(message.role[:1], message | tojson) }}
    {%- endif -%}
{%- endfor -%}
{{ ns.n }} {{ tools is none }} {{ documents is none }} {{ nowhere }} {{ inner }} {{ {'é': '<&>'} | tojson(indent=1) }}
{%- if add_generation_prompt %}{{ '<a>' }}{% endif -%}
"""

TEMPLATES = {"headers": HEADERS, "chatml": CHATML, "tulu": TULU, "strict": STRICT, "features": FEATURES}


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(contents)
    said = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return ([{"role": "system", "content": system}] if system is not None else []) + said


CONVERSATIONS = {
    "one turn": turns("What is 2 + 2?"),
    "white space": turns("  two\n\nlines \n", " answer\n", "\tmore  "),
    "system": turns("Hi", system=" Be kind. "),
    "eight shots": turns(*[f"{'question' if i % 2 == 0 else 'answer'} {i}" for i in range(17)]),
    "awkward": turns("{{ x }} {% if %} <b>&amp;</b> </s> 🙂\x00\ud800", "skip", "", "stop", "after"),
    "ends with an answer": turns("Hi", "Hello"),
}


def make(folder: Path, template: str | None, **config: Any) -> Path:
    make_tokenizer(folder, 600, None)
    if template is not None:
        (folder / "chat_template.jinja").write_bytes(template.encode())
    content = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**content, **config}))
    return folder


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_transformers_renders_them(tmp_path: Path, name: str) -> None:
    from transformers import AutoTokenizer

    template = ChatTemplate.from_checkpoint(make(tmp_path, TEMPLATES[name]))
    peer = AutoTokenizer.from_pretrained(tmp_path)
    compared = 0
    for conversation in CONVERSATIONS.values():
        for generation_prompt in (True, False):
            if not generation_prompt and conversation[-1]["role"] == "assistant":
                continue  # a prefill, which we treat otherwise on purpose
            try:
                theirs = peer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generation_prompt)
            except Exception:
                with pytest.raises(CheckpointError):
                    template.render(conversation, generation_prompt)
                continue
            assert template.render(conversation, generation_prompt) == theirs
            compared += 1
    assert compared >= 6


def test_a_template_in_the_tokenizer_config_and_special_tokens_given_as_objects(tmp_path: Path) -> None:
    eos = {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    make(tmp_path, None, chat_template="{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|", eos_token=eos)
    template = ChatTemplate.from_checkpoint(tmp_path)
    assert template.render(turns("x")) == "<s>|</s>||"  # an absent special token prints nothing
    assert "tokenizer_config.json" in template.source


def test_line_ends_of_a_template_file_are_kept(tmp_path: Path) -> None:
    template = ChatTemplate.from_checkpoint(make(tmp_path, "a\r\nb{{ messages[0].content }}"))
    assert template.text == "a\r\nb{{ messages[0].content }}"


def test_a_prefill_is_appended_raw_after_the_generation_prompt(tmp_path: Path) -> None:
    template = ChatTemplate.from_checkpoint(make(tmp_path, HEADERS))
    conversation = turns("Write a function.", "```python\n")
    rendered = template.render(conversation, add_generation_prompt=False)
    assert rendered == template.render(conversation[:1]) + "```python\n"  # the template alone would trim the newline
    assert rendered.endswith("<|head|>assistant<|end|>\n\n```python\n")
    assert rendered.prefill == "```python\n"
    assert rendered.messages == (Message("user", "Write a function."),)


def test_without_a_prefill_the_conversation_rides_along_whole(tmp_path: Path) -> None:
    template = ChatTemplate.from_checkpoint(make(tmp_path, TULU))
    rendered = template.render(turns("a", "b", "c", system="s"))
    assert rendered.prefill == ""
    assert rendered.messages == (
        Message("system", "s"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"),
    )  # fmt: skip


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_rendered_text_keeps_its_conversation_when_copied(duplicate: Any) -> None:
    rendered = Rendered("text", [Message("user", "hi")], "pre")
    twin = duplicate(rendered)
    assert (twin, type(twin), twin.messages, twin.prefill) == ("text", Rendered, (Message("user", "hi"),), "pre")
    assert hash(rendered) == hash("text")
    assert json.dumps(rendered) == '"text"'


@pytest.mark.parametrize("kind", ["generate_until", "multiple_choice"])
@pytest.mark.parametrize("gen_prefix", [None, "Answer:"])
def test_rendered_prompts_pass_through_lm_eval_unchanged(tmp_path: Path, kind: str, gen_prefix: str | None) -> None:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    template = ChatTemplate.from_checkpoint(make(tmp_path, HEADERS))
    rows = [{"q": f"question {i}?", "a": "yes", "prefix": gen_prefix} for i in range(3)]
    config: dict[str, Any] = {
        "task": "t", "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}, "test_split": "test",
        "doc_to_text": "{{q}}", "doc_to_target": "a", "output_type": kind, "num_fewshot": 1, "gen_prefix": gen_prefix,
        "fewshot_config": {"sampler": "first_n", "samples": [{"q": "shot?", "a": "no", "prefix": gen_prefix}]},
    }  # fmt: skip
    if kind == "multiple_choice":
        config |= {"doc_to_choice": ["yes", "no"], "doc_to_target": 0}
        config["fewshot_config"]["samples"][0]["a"] = "yes"
    task = ConfigurableTask(config=config)
    task.build_all_requests(
        apply_chat_template=True, fewshot_as_multiturn=True, chat_template=template.render, tokenizer_name="t"
    )
    prompts = [instance.args[0] for instance in task.instances]
    assert len(prompts) == (3 if kind == "generate_until" else 6)
    for prompt in prompts:
        assert isinstance(prompt, Rendered)
        assert [m.role for m in prompt.messages] == ["user", "assistant", "user"]
        assert prompt.prefill == (gen_prefix or "")
        assert prompt.endswith("<|head|>assistant<|end|>\n\n" + (gen_prefix or ""))


def test_a_refused_system_message_is_an_error_naming_the_line(tmp_path: Path) -> None:
    template = ChatTemplate.from_checkpoint(make(tmp_path, STRICT))
    with pytest.raises(CheckpointError) as caught:
        template.render(turns("hi", system="be kind"))
    said = str(caught.value)
    assert "chat_template.jinja line 3" in said  # the raise_exception stands on the third line
    assert "System role not supported" in said
    assert "--drop-system" in said
    assert "\n" not in said


def test_drop_system_leaves_system_messages_out_on_purpose(tmp_path: Path) -> None:
    template = ChatTemplate.from_checkpoint(make(tmp_path, STRICT), drop_system=True)
    rendered = template.render(turns("hi", system="be kind"))
    assert rendered == "[user] hi\n[model] "
    assert rendered.messages == (Message("user", "hi"),)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\n{% for m in messages %}\n{{ m.content }}", 3, "does not parse"),
        ("a\n{{ messages | nofilter }}", 2, "does not parse"),
        ("a\n\n{{ messages[0].content + 1 }}", 3, "fails on a conversation of user"),
        ("a\n{{ nowhere.deeper }}", 2, "undefined"),
        ("\n\n\n{{ ().__class__.__mro__ }}", 4, "unsafe"),
        ("x{{ messages.append(1) }}", 1, "unsafe"),
    ],
)
def test_faults_of_a_template_are_named_with_their_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        ChatTemplate.from_checkpoint(make(tmp_path, text)).render(turns("x"))
    assert f"chat_template.jinja line {line}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_template_says_where_one_is_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no chat template.*--chat-template FILE"):
        ChatTemplate.from_checkpoint(make(tmp_path, None))


NAMED = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]


def test_one_of_several_named_templates_is_chosen(tmp_path: Path) -> None:
    make(tmp_path / "config", None, chat_template=NAMED)
    make(tmp_path / "files", "D", chat_template="hidden by the files")
    (tmp_path / "files" / "additional_chat_templates").mkdir()
    (tmp_path / "files" / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    for folder in (tmp_path / "config", tmp_path / "files"):
        assert ChatTemplate.from_checkpoint(folder).render(turns("x")) == "D"
        assert ChatTemplate.from_checkpoint(folder, "name:tool_use").render(turns("x")) == "T"
        with pytest.raises(CheckpointError, match=r"no chat template named 'tool-use'; did you mean 'tool_use'\?"):
            ChatTemplate.from_checkpoint(folder, "name:tool-use")


def test_named_templates_without_a_default_must_be_chosen(tmp_path: Path) -> None:
    make(tmp_path, None, chat_template=NAMED[1:])
    with pytest.raises(CheckpointError, match=r"no chat template named 'default' \(has: tool_use\)"):
        ChatTemplate.from_checkpoint(tmp_path)


def test_a_template_file_overrides_the_checkpoint(tmp_path: Path) -> None:
    folder = make(tmp_path / "ckpt", TULU)
    (tmp_path / "mine.jinja").write_text("mine {{ bos_token }}")
    template = ChatTemplate.from_checkpoint(folder, str(tmp_path / "mine.jinja"))
    assert template.render(turns("x")) == "mine <s>"
    assert template.digest != ChatTemplate.from_checkpoint(folder).digest
    with pytest.raises(CheckpointError, match=r"absent\.jinja.*No such file.*name:default"):
        ChatTemplate.from_checkpoint(folder, str(tmp_path / "absent.jinja"))


def test_the_digest_is_of_the_text_not_of_the_place(tmp_path: Path) -> None:
    from hashlib import sha256

    one = ChatTemplate.from_checkpoint(make(tmp_path / "one", TULU))
    two = ChatTemplate.from_checkpoint(make(tmp_path / "two", None, chat_template=TULU))
    assert one.digest == two.digest == sha256(TULU.encode()).hexdigest()


def test_a_template_that_prints_the_date_can_be_given_a_fixed_one(tmp_path: Path) -> None:
    make(tmp_path, "{{ strftime_now('%d %b %Y') }}")
    fixed = ChatTemplate.from_checkpoint(tmp_path, now=datetime(2024, 7, 26))
    assert fixed.render(turns("x")) == "26 Jul 2024"
    assert fixed.dated
    assert ChatTemplate.from_checkpoint(tmp_path).render(turns("x")) == datetime.now().strftime("%d %b %Y")


def test_fourteen_thousand_eight_shot_conversations_render_in_seconds(tmp_path: Path) -> None:
    template = ChatTemplate.from_checkpoint(make(tmp_path, HEADERS))
    conversation = turns(*["some words of a question or an answer " * 10] * 17)
    start = time.process_time()
    for _ in range(1400):
        template.render(conversation)
    assert time.process_time() - start < 0.6  # a tenth of them; 0.04 s was measured
