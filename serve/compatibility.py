"""Fields of requests that this server does not have: what changes nothing is ignored, and named in the response; the rest is refused.

Other servers and newer clients have many such fields.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from serve.errors import ApiError

IGNORED_HEADER = "X-Ignored-Fields"
MAX_UNKNOWN, MAX_NAMED, MAX_NAME = 64, 20, 64
SLIP = 0.8  # of a name's letters that another name has; difflib's ratio
# Of fields that would change the answer: the values with which they do not.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "chat_template": (),
    "choice": (),
    "conversation": (),
    "diversity_penalty": (0,),
    "documents": ([],),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "early_stopping": (False,),
    "ebnf": (),
    "echo": (False,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "grammar": ("",),
    "guided_choice": ([],),
    "guided_grammar": ("",),
    "guided_json": (),
    "guided_regex": ("",),
    "include_stop_str_in_output": (False,),
    "json_schema": ({},),
    "length_penalty": (0, 1),
    "lora": ([],),
    "max_completion_tokens": (),
    "max_new_tokens": (),
    "max_tokens": (),
    "messages": (),
    "mirostat": (0,),
    "n": (1,),
    "n_predict": (),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "prompt": (),
    "prompt_logprobs": (),
    "regex": ("",),
    "response_format": ({"type": "text"},),
    "repeat_penalty": (1,),
    "skip_special_tokens": (True,),
    "stop_sequences": ([],),
    "structured_outputs": (),
    "tfs_z": (1,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_a": (0,),
    "truncate_prompt_tokens": (),
    "typ_p": (0, 1),
    "typical_p": (0, 1),
    "use_beam_search": (False,),
    "web_search_options": (),
    "xtc_probability": (0,),
}
_INSTEAD = {
    "function_call": "tool_choice",
    "functions": "tools",
    "guided_json": "response_format",
    "json_schema": "response_format",
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_tokens": "max_output_tokens",
    "n_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "response_format": "text",
    "stop_sequences": "stop",
    "structured_outputs": "response_format",
}


def check(unknown: Mapping[str, Any], request: type[BaseModel]) -> tuple[str, ...]:
    """The names of fields that a kind of requests does not have, which are ignored.

    ``ApiError`` 400 for one that would change the answer, for one whose name is nearly that of a field, and for very many.
    """
    if len(unknown) > MAX_UNKNOWN:
        raise ApiError(400, f"{len(unknown)} unknown fields are more than {MAX_UNKNOWN}", code="unknown_field")
    known = sorted(request.model_fields)
    for name, value in unknown.items():
        if name in _NEUTRAL:
            if not any(value == neutral for neutral in _NEUTRAL[name]):
                instead = f"; use {_INSTEAD[name]}" if _INSTEAD.get(name) in known else ""
                raise ApiError(400, f"{name} would change the answer and is not supported{instead}", param=name, code="unsupported_field")
        elif closest := difflib.get_close_matches(name[:MAX_NAME].lower(), known, n=1, cutoff=SLIP):
            raise ApiError(400, f"there is no such field; did you mean {closest[0]}?", param=header_name(name), code="unknown_field")
    return tuple(unknown)


def header(names: Iterable[str]) -> dict[str, str]:
    """The header that names ignored fields; none where none was."""
    listed = sorted({header_name(name) for name in names})
    return {IGNORED_HEADER: ", ".join([*listed[:MAX_NAMED], *(["and more"] if len(listed) > MAX_NAMED else [])])} if listed else {}


def header_name(name: str) -> str:
    """The name of a field as a header may hold it."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) else "other"
