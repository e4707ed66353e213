"""Chat templates: what transformers writes, and templates from strangers, which are stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tests.gguf_files import gguf
from tinyedge.convert.chat import ChatTemplate
from tinyedge.convert.checks import Place
from tinyedge.errors import ArgumentError, ModelFormatError

SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = """{{- bos_token }}
{%- if strftime_now is defined %}{% set date = "1 Jan" %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|system|>\n" ~ date ~ "\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}
{%- endif %}
{{- system }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|' + message['role'] + '|>\n' + message['content'] | trim + '<|end|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls|length != 1 %}{{- raise_exception("Only single tool-calls!") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}
"""
QWEN = """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string
           and not(message.content.startswith('<t>')) %}
        {%- set ns.multi_step = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- macro block(text, n=1) -%}
  [{{ text.split('</think>')[-1].lstrip('\n') }}{{ '!' * n }}]
{%- endmacro %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}{% generation %}{{ block(message.content, n=2) }}{% endgeneration %}
    {%- elif message.content is string %}{{ block(message.content) }}{{ loop.index0 == ns.last }}
    {%- else %}{%- for part in message.content | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}
    {%- endif %}
    {%- if loop.last %}{{ ['a', message.role] | join(', ') | upper }}{% continue %}{% endif %}{{ '---' }}
{%- endfor %}"""
TALK = [
    {"role": "system", "content": "  Be brief. "},
    {"role": "user", "content": 'Grüße <b> & "you"'},
    {"role": "assistant", "content": "<think>hm</think>\n\nHello"},
    {"role": "user", "content": "What is 2 + 2?\n"},
]
CALL = {"name": "add", "arguments": {"ä": [1, 2.5, None]}}
CALLS = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [{"function": CALL}]}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"a": "int"}}}]
CASES = {
    "turns": (SMOLLM, TALK, {}),
    "a prompt": (SMOLLM, TALK[1:], {"add_generation_prompt": True}),
    "a system": (LLAMA, TALK, {"add_generation_prompt": True}),
    "tools": (LLAMA, CALLS, {"tools": TOOLS}),
    "macros": (QWEN, TALK, {}),
    "parts": (QWEN, [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], {}),
}


def made(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>"}, Place("chat_template", "a.gguf", "chat template"))


@pytest.mark.parametrize("case", CASES)
def test_it_writes_what_transformers_writes(case: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    tokenizers: Any = pytest.importorskip("tokenizers")
    source, messages, options = CASES[case]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0}, unk_token="<s>"))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", chat_template=source)
    assert made(source).render(messages, **options) == theirs.apply_chat_template(messages, tokenize=False, **options)


def test_turns_by_hand() -> None:
    text = made(SMOLLM).render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    system = "<|im_start|>system\nYou are helpful<|im_end|>\n"
    assert text == f"{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    text = made(LLAMA).render(CALLS, tools=TOOLS)
    assert text.endswith('<|user|>\n?<|end|>{"name": "add", "parameters": {"ä": [1, 2.5, null]}}')
    assert made(QWEN).render(TALK[1:3]).startswith('[Grüße <b> & "you"!]True---[Hello!!]A, ASSISTANT')
    assert made("{{ x | upper }}{{ bos_token }}").render([], x="a") == "A<s>"


def test_what_the_caller_is_told() -> None:
    with pytest.raises(ArgumentError, match="Only single"):
        made(LLAMA).render([{"role": "assistant", "tool_calls": [1, 2]}])
    with pytest.raises(ArgumentError, match="plain data"):
        made(SMOLLM).render([{"role": "user", "content": object()}])
    with pytest.raises(ModelFormatError, match="chat template"):
        made(SMOLLM).render([{"role": "user"}])


HOSTILE = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99) %}{% endfor %}"
                      "{% endfor %}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(200) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "times": "{{ ('a' * 1000000) * 1000000 }}",
    "a list": "{{ ([0] * 1000000) * 1000000 }}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "products": "{% set n = namespace(x=10) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "doubling": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "adding": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "lists in lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
                      "{{ n.x }}",
    "replacing": "{% set a = 'a' * 100000 %}{{ a.replace('a', a) }}",
    "the filter": "{% set a = 'a' * 100000 %}{{ a | replace('a', a) }}",
    "joining": "{% set a = 'a' * 100000 %}{{ a.join(a) }}",
    "margins": "{{ ('\\n' * 1000000) | indent(9999999) }}",
    "widths": "{{ '%999999999d' % 1 }}",
    "format": "{{ '{:999999999}'.format(1) }}",
    "constants": "{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}",
    "a block": "{% set x %}{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}{% endset %}",
    "slices": "{% set a = 'a' * 2000000 %}{% set n = namespace(x=[]) %}{% for i in range(9999) %}"
              "{% set n.x = n.x + [a[1:]] %}{% endfor %}",
    "centre": "{{ 'a'.center(999999999) }}",
    "the class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the counter": "{% macro __tick__() %}{% endmacro %}{{ __tick__() }}",
    "another file": "{% include '/etc/passwd' %}",
    "imports": "{% import 'os' as os %}",
    "a dict": "{{ messages.append(1) }}",
    "depth": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "no end": "{% for a in b %}",
    "length": "x" * (2**18 + 1),
    "dates": "{{ strftime_now('%9999999Y') }}",
    "blocks that call each other twice": "".join(
        f"{{% block b{n} %}}{{{{ self.b{n + 1}() }}}}{{{{ self.b{n + 1}() }}}}{{% endblock %}}" for n in range(40)
    ) + "{% block b40 %}{% endblock %}",
    "lists that are compared": "{% set x = range(99999)|list %}{% set y = range(99999)|list %}"
                               "{% for i in range(99999) %}{{ x == y }}{% endfor %}",
    "a place that is looked for": "{% set x = range(99999)|list %}"
                                  "{% for i in range(99999) %}{{ x.index(99998) }}{% endfor %}",
    "letters that are counted": "{% set t = 'a' * 2000000 %}"
                                "{% for i in range(99999) %}{{ t.count('a') }}{% endfor %}",
    "the largest of many": "{% set x = range(99999)|list %}{% for i in range(99999) %}{{ x|max }}{% endfor %}",
    "none of many": "{% set x = range(99999)|list %}"
                    "{% for i in range(99999) %}{{ x|select('lt', 0)|first }}{% endfor %}",
    "steps that are passed over": "{% for i in range(999) %}{% for k in range(99999) if k < 0 %}{% endfor %}"
                                  "{% endfor %}",
    "a long source": "{{ a }}" * 50000,
}  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_hostile_templates_are_stopped(source: str) -> None:
    with pytest.raises(ModelFormatError, match="the chat template"):
        made(source).render([{"role": "user", "content": "a"}])


def test_templates_of_files(tmp_path: Path) -> None:
    strings = {"tokenizer.chat_template": "{{ bos_token }}a", "tokenizer.chat_template.tool_use": "b{{ eos_token }}"}
    data: dict[str, tuple[str, Any]] = {name: ("str", text) for name, text in strings.items()}
    data |= {"tokenizer.ggml.tokens": ("[str]", ["<s>", "</s>"]), "tokenizer.ggml.bos_token_id": ("u32", 0),
             "tokenizer.ggml.eos_token_id": ("u32", 1)}  # fmt: skip
    (tmp_path / "a.gguf").write_bytes(gguf(data, {}))
    assert te.convert.chat_template(tmp_path / "a.gguf").render([]) == "<s>a"
    assert te.convert.chat_template(tmp_path / "a.gguf", "tool_use").render([]) == "b</s>"
    with pytest.raises(ArgumentError, match="'default', 'tool_use'"):
        te.convert.chat_template(tmp_path / "a.gguf", "rag")
    config = tmp_path / "tokenizer_config.json"
    with pytest.raises(ArgumentError, match="it has none"):
        te.convert.chat_template(tmp_path)
    config.write_text(json.dumps({"chat_template": "{{ bos_token }}c", "bos_token": {"content": "<b>"}}))
    assert te.convert.chat_template(tmp_path).render([]) == "<b>c"
    config.write_text(
        json.dumps({"chat_template": [{"name": "default", "template": "d"}, {"name": "x", "template": "e"}]})
    )
    assert te.convert.chat_template(tmp_path, "x").render([]) == "e"
    (tmp_path / "chat_template.jinja").write_text("f")
    assert te.convert.chat_template(tmp_path).render([]) == "f"
    for content in ("{", "[1]", "[" * 100_000):
        config.write_text(content)
        with pytest.raises(ModelFormatError, match="tokenizer_config"):
            te.convert.chat_template(tmp_path)
    (tmp_path / "b.bin").write_bytes(b"abcd")
    with pytest.raises(ModelFormatError, match="no GGUF"):
        te.convert.chat_template(tmp_path / "b.bin")
