"""Chat templates in the manner of well-known models', in words of our own, and the tokens that they write."""

# "special" as in the models' own files: turns of DeepSeek's, thoughts and calls are not.
CONTROLS = (
    *("<s>", "</s>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<start_of_turn>"),
    *("<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
)
UNMARKED = ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<|fim_pad|>")
EAT_BLANKS_AFTER = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")  # Phi 3's

_TURNS = "{% for m in messages %}"
_END = "{% endfor %}"
_CHATML_TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_CHATML_ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/…') }}{% endif %}"
)
_SPLIT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
)

TEMPLATES = {
    "ChatML": _TURNS + _CHATML_TURN + _END + _CHATML_ASK,
    "Qwen 1.5": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    + _TURNS
    + _CHATML_TURN
    + _END
    + _CHATML_ASK,
    "Qwen 2.5": "{%- if tools %}\n{{- '<|im_start|>system\n' }}\n{%- if messages[0]['role'] == 'system' %}\n{{- messages[0]['content'] }}\n"
    "{%- else %}\n{{- 'You help.' }}\n{%- endif %}\n{{- '\n\n# Tools\n<tools>' }}\n{%- for tool in tools %}"
    "\n{{- '\n' }}\n{{- tool | tojson }}\n"
    "{%- endfor %}\n{{- '\n</tools>\nAnswer in <tool_call></tool_call>.<|im_end|>\n' }}\n{%- else %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}\n{%- endif %}\n"
    "{%- endif %}\n{%- for m in messages %}\n{%- if (m.role == 'user') or (m.role == 'system' and not loop.first) or "
    "(m.role == 'assistant' and not m.tool_calls) %}\n{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\n"
    "{%- elif m.role == 'assistant' %}\n{{- '<|im_start|>assistant' }}\n{%- for call in m.tool_calls %}\n"
    '{{- \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' + '
    "(call.function.arguments | tojson) + '}\n</tool_call>' }}\n"
    "{%- endfor %}\n{{- '<|im_end|>\n' }}\n{%- elif m.role == 'tool' %}\n"
    "{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}\n{%- endif %}\n{%- endfor %}\n"
    + _CHATML_ASK,
    "Qwen 3": "{%- set ns = namespace(last=messages|length - 1, open=true) %}\n{%- for m in messages[::-1] %}\n"
    "{%- set index = (messages|length - 1) - loop.index0 %}\n{%- if ns.open and m.role == 'user' %}\n{%- set ns.open = false %}\n"
    "{%- set ns.last = index %}\n{%- endif %}\n{%- endfor %}\n{%- for m in messages %}\n{%- if m.role == 'assistant' %}\n"
    "{%- set content = m.content %}\n{%- set thought = '' %}\n{%- if '</think>' in content %}\n"
    "{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}\n"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}\n{%- endif %}\n{%- if loop.index0 > ns.last %}\n"
    "{{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}\n{%- else %}\n"
    "{{- '<|im_start|>assistant\n' + content }}\n{%- endif %}\n{{- '<|im_end|>\n' }}\n{%- else %}\n"
    + "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\n{%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "{{- '<|im_start|>assistant\n' }}\n{%- if enable_thinking is defined and enable_thinking is false %}\n"
    "{{- '<think>\n\n</think>\n\n' }}\n{%- endif %}\n{%- endif %}",
    "Llama 2": _SPLIT_SYSTEM
    + "{% for m in rest %}"
    + _ALTERNATE
    + "{% if loop.first and system %}{% set c = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}{% else %}"
    "{% set c = m['content'] %}"
    "{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "Llama 3": "{{ '<|begin_of_text|>' }}"
    + _TURNS
    + "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    + _END
    + "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "Llama 3.2": "{{- bos_token }}\n{%- if not date_string is defined %}\n{%- if strftime_now is defined %}\n"
    "{%- set date_string = strftime_now('%d %b %Y') %}\n{%- else %}\n{%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n{%- endif %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n{%- set system = messages[0]['content'] | trim %}\n{%- set messages = messages[1:] %}\n"
    "{%- else %}\n{%- set system = '' %}\n{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nKnowledge: December 2023\nToday: ' + date_string "
    "+ '\n\n' + system + '<|eot_id|>' }}\n"
    "{%- for m in messages %}\n"
    "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}",
    "Mistral 1": "{{ bos_token }}" + _TURNS + _ALTERNATE + "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token + ' ' }}{% endif %}" + _END,
    "Mistral 3": _SPLIT_SYSTEM + "{{ bos_token }}{% for m in rest %}" + _ALTERNATE + "{% if m.role == 'user' %}{% if tools and loop.last %}"
    "{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}{% if loop.last and system %}"
    "{{ '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}{% else %}{{ '[INST] ' + m.content + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}",
    "Zephyr": _TURNS + "{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + m['content'] + eos_token }}\n{% else %}\n{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n" + _END,
    "Vicuna": _SPLIT_SYSTEM + "{{ bos_token }}{% if system %}{{ system + ' ' }}{% else %}{{ 'A chat. ' }}{% endif %}{% for m in rest %}"
    "{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "Alpaca": _TURNS + "{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'user' %}"
    "{{ '### Instruction:\n' + m.content | trim + '\n\n' }}{% else %}"
    "{{ '### Response:\n' + m.content | trim + eos_token + '\n\n' }}{% endif %}"
    + _END
    + "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    "Gemma": "{{ '<bos>' }}" + _NO_SYSTEM + _TURNS + _ALTERNATE + "{% if m.role == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = m.role %}{% endif %}{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}"
    + _END
    + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "Phi 3": _TURNS
    + "{% if m['content'] %}{{ '<|' + m['role'] + '|>' + '\n' + m['content'] + '<|end|>' + '\n' }}{% endif %}"
    + _END
    + "{% if add_generation_prompt %}{{ '<|assistant|>' + '\n' }}{% else %}{{ eos_token }}{% endif %}",
    "Phi 4": _TURNS
    + "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}"
    + _END
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    "DeepSeek R1": _SPLIT_SYSTEM + "{{ bos_token }}{{ system }}{% for m in rest %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% else %}{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}",
    "OLMo 2": "{{ bos_token }}" + _TURNS + "{% if m['role'] == 'assistant' %}{% if not loop.last %}"
    "{{ '<|assistant|>\n' + m['content'] + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}"
    "{% else %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '\n' }}{% endif %}{% if loop.last and add_generation_prompt %}"
    "{{ '<|assistant|>\n' }}{% endif %}" + _END,
    "SmolLM 3": "{%- if messages[0].role == 'system' -%}\n{%- set system = messages[0].content -%}\n{%- if '/no_think' in system -%}\n"
    "{%- set mode = '/no_think' -%}\n{%- else -%}\n{%- set mode = '/think' -%}\n{%- endif -%}\n"
    "{%- set own = system.replace('/no_think', '').replace('/think', '').rstrip() -%}\n{%- else -%}\n{%- set mode = '/think' -%}\n"
    "{%- set own = '' -%}\n{%- endif -%}\n{{- '<|im_start|>system\nReasoning: ' + mode + '\n\n' + own + '<|im_end|>\n' -}}\n"
    "{%- for m in messages -%}\n{%- if m.role == 'user' -%}\n{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' -}}\n"
    "{%- elif m.role == 'assistant' -%}\n{%- generation -%}\n{%- if mode == '/think' -%}\n"
    "{{- '<|im_start|>assistant\n' + m.content.lstrip('\n') + '<|im_end|>\n' -}}\n{%- else -%}\n"
    "{{- '<|im_start|>assistant\n<think>\n\n</think>\n' + m.content.lstrip('\n') + '<|im_end|>\n' -}}\n{%- endif -%}\n"
    "{%- endgeneration -%}\n{%- endif -%}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n{%- if mode == '/think' -%}\n"
    "{{- '<|im_start|>assistant\n' -}}\n{%- else -%}\n{{- '<|im_start|>assistant\n<think>\n\n</think>\n' -}}\n{%- endif -%}\n{%- endif -%}",
    "Granite": _TURNS + "{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
    "{%- if loop.last and add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}" + _END,
    "Command R": _SPLIT_SYSTEM + "{{ bos_token }}{% if system %}"
    "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for m in rest %}"
    "{% set content = m.content %}{% if m.role == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% else %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
    "Falcon": _TURNS
    + "{% if not loop.first %}{{ '\n' }}{% endif %}{{ m.role | capitalize + ': ' + m.content | trim }}"
    + _END
    + "{% if add_generation_prompt %}{{ '\nAssistant:' }}{% endif %}",
    "a summary of the first turn": "{{ messages[0].content[:12] | upper }}{% if messages[0].content | length > 20 %}"
    "{{ ' …' }}{% endif %}\n" + _TURNS + _CHATML_TURN + _END + _CHATML_ASK,
}
