"""The families of models in Hugging Face's config.json: what each is beside a Llama, read strictly and written.

Field names and defaults are those of transformers' configuration classes.
"""

from collections.abc import Callable
from typing import Any

from model.config import FULL, LLAMA, NO_ROPE, SLIDING, Family
from model.rope import LinearScaling, LongRopeScaling, RopeScaling, Scaling, YarnScaling, mscale

Raw = dict[str, Any]

# What config.json may leave out, because it is the default of its model_type.
DEFAULTS: dict[str, Raw] = {
    "llama": {},
    "mistral": {"sliding_window": 4096, "max_position_embeddings": 131072},
    "qwen2": {"max_position_embeddings": 32768, "max_window_layers": 28, "sliding_window": 4096},
    "qwen3": {"max_position_embeddings": 32768, "max_window_layers": 28, "sliding_window": 4096, "head_dim": 128},
    "gemma3_text": {
        **{"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072},
        **{"tie_word_embeddings": True, "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6},
        **{"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    },
    "olmo2": {"rms_norm_eps": 1e-5},
    "smollm3": {
        **{"num_key_value_heads": 4, "max_position_embeddings": 32768, "tie_word_embeddings": True, "no_rope_layer_interval": 4},
        "rope_theta": 2e6,
    },
    "granite": dict.fromkeys(("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier"), 1.0),
    "phi3": {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096},
}
# Fields that change what a model computes, in a way that is not built here.
REFUSED = (
    # attn_logit_softcapping: transformers reads it in Gemma 3 and then does not apply it.
    *("attention_bias", "mlp_bias", "attn_logit_softcapping", "use_bidirectional_attention"),
    *("qk_layernorm", "use_qk_norm", "clip_qkv", "lm_head_bias"),
)


def text_part(raw: Raw) -> Raw:
    """The configuration of the language model, where ``raw`` is of one that also reads images."""
    text = raw.get("text_config")
    if raw.get("model_type") != "gemma3" or not isinstance(text, dict):
        return raw
    outer = {name: raw[name] for name in ("torch_dtype", "dtype", "eos_token_id", "bos_token_id", "quantization_config") if name in raw}
    return {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], **outer, **text}


def with_defaults(raw: Raw) -> Raw:
    """The configuration with all that may be left out. ``ValueError`` for an unknown ``model_type`` or a field that is not supported."""
    name = raw.get("model_type")
    if name not in DEFAULTS:
        raise ValueError(f"model_type is {name!r}; supported are {', '.join(map(repr, sorted([*DEFAULTS, 'gemma3'])))}")
    for field in REFUSED if name == "gemma3_text" else (*REFUSED, "final_logit_softcapping"):
        if raw.get(field):
            raise ValueError(f"{field} is not supported")
    activation = "gelu_pytorch_tanh" if name == "gemma3_text" else "silu"
    field = "hidden_activation" if "hidden_activation" in raw else "hidden_act"
    if raw.get(field, activation) != activation:
        raise ValueError(f"{field} is {raw[field]!r}; only {activation!r} is supported")
    return DEFAULTS[str(name)] | raw


def family(raw: Raw) -> Family:
    """What the model is beside a Llama, from a configuration ``with_defaults``."""
    return FAMILIES[raw["model_type"]](raw)


def head_dim(raw: Raw) -> int:
    """D."""
    return int(raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"])


def _windows(raw: Raw, window: int | None, layers: tuple[str, ...]) -> Raw:
    """Fields of a Family for layers of which some see a window; none where no text is longer than it."""
    if window is None or window >= raw["max_position_embeddings"] or SLIDING not in layers:
        return {}
    return {"window": window, "layers": layers}


def _layer_types(raw: Raw, sliding: Callable[[int], bool]) -> tuple[str, ...]:
    """The kinds of all layers: those that the file lists, else by their index."""
    kinds = {"full_attention": FULL, "sliding_attention": SLIDING}
    listed = raw.get("layer_types") or ["sliding_attention" if sliding(n) else "full_attention" for n in range(raw["num_hidden_layers"])]
    if unknown := sorted({str(kind) for kind in listed if kind not in kinds}):
        raise ValueError(f"layer_types names {', '.join(unknown)}; supported are {', '.join(kinds)}")
    return tuple(kinds[kind] for kind in listed)


def _mistral(raw: Raw) -> Family:
    windows = _windows(raw, raw["sliding_window"], (SLIDING,) * raw["num_hidden_layers"])
    return Family("mistral", **windows) if windows else LLAMA


def _qwen_windows(raw: Raw) -> Raw:
    window = raw["sliding_window"] if raw.get("use_sliding_window") else None
    return _windows(raw, window, _layer_types(raw, lambda n: window is not None and n >= raw["max_window_layers"]))


def _qwen2(raw: Raw) -> Family:
    return Family("qwen2", qkv_bias=True, **_qwen_windows(raw))


def _qwen3(raw: Raw) -> Family:
    return Family("qwen3", qk_norm="head", **_qwen_windows(raw))


def _gemma3(raw: Raw) -> Family:
    layers = _layer_types(raw, lambda n: (n + 1) % raw["sliding_window_pattern"] != 0)
    local = _rope_of(raw, "sliding_attention")
    theta: float = local.get("rope_theta") or raw["rope_local_base_freq"]
    if local.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type {local['rope_type']!r} of sliding_attention is not supported; 'default' is")
    return Family(
        "gemma3_text",
        qk_norm="head",
        block_norms="both",
        norm_adds_one=True,
        activation="gelu_tanh",
        embedding_scale=raw["hidden_size"] ** 0.5,
        attention_scale=raw["query_pre_attn_scalar"] ** -0.5,
        layers=layers,
        window=raw["sliding_window"],  # also where it never acts: these layers have a rope of their own
        sliding_theta=float(theta),
        logit_cap=raw.get("final_logit_softcapping"),
    )


def _olmo2(_: Raw) -> Family:
    return Family("olmo2", qk_norm="all", block_norms="after")


def _smollm3(raw: Raw) -> Family:
    if raw.get("use_sliding_window"):
        raise ValueError("use_sliding_window is not supported")
    interval, count = raw["no_rope_layer_interval"], raw["num_hidden_layers"]
    turns = raw.get("no_rope_layers") or [(n + 1) % interval != 0 for n in range(count)]
    return Family("smollm3", layers=tuple(FULL if turning else NO_ROPE for turning in turns))


def _granite(raw: Raw) -> Family:
    return Family(
        "granite",
        embedding_scale=float(raw["embedding_multiplier"]),
        residual_scale=float(raw["residual_multiplier"]),
        attention_scale=float(raw["attention_multiplier"]),
        output_scale=1 / raw["logits_scaling"],
    )


def _phi3(raw: Raw) -> Family:
    share: float = rope(raw).get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0
    windows = _windows(raw, raw.get("sliding_window"), (SLIDING,) * raw["num_hidden_layers"])
    return Family("phi3", rotary_dim=int(head_dim(raw) * share), **windows)


FAMILIES: dict[str, Callable[[Raw], Family]] = {
    "llama": lambda _: LLAMA,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3_text": _gemma3,
    "olmo2": _olmo2,
    "smollm3": _smollm3,
    "granite": _granite,
    "phi3": _phi3,
}


def rope(raw: Raw) -> Raw:
    """The settings of rotary positions: transformers 5 writes rope_parameters, earlier versions rope_scaling and rope_theta."""
    return _rope_of(raw, "full_attention")


def _rope_of(raw: Raw, kind: str) -> Raw:
    # Gemma 3's, of transformers 5, are those of each kind of layer.
    settings = raw.get("rope_parameters") or (raw.get("rope_scaling") if kind == "full_attention" else None) or {}
    nested = settings.get(kind, settings)
    return nested if isinstance(nested, dict) else {}


def scaling(raw: Raw) -> Scaling | None:
    """How the rotary frequencies are stretched. ``ValueError`` names a type that is not supported."""
    settings = rope(raw)
    kind = settings.get("rope_type", settings.get("type", "default"))
    if raw["model_type"] == "phi3" and kind in ("su", "yarn"):
        kind = "longrope"  # its earlier names
    # Dynamic scaling begins beyond the context (transformers' _compute_dynamic_ntk_parameters).
    if kind in ("default", "dynamic"):
        return None
    if kind not in SCALINGS:
        raise ValueError(f"rope_type {kind!r} is not supported; {', '.join(map(repr, ('default', 'dynamic', *SCALINGS)))} are")
    return SCALINGS[kind](settings, raw)


def context(raw: Raw) -> int:
    """Positions of a text, at most. With LongRoPE, whose factors change beyond its original context, that one."""
    positions = raw.get("max_position_embeddings", 2048)
    return min(positions, original_context(raw)) if isinstance(scaling(raw), LongRopeScaling) else positions


def original_context(raw: Raw) -> int:
    """Positions before they were stretched."""
    name = "original_max_position_embeddings"
    return int(raw.get(name) or rope(raw).get(name) or raw.get("max_position_embeddings", 2048))


def _llama3(settings: Raw, _: Raw) -> Scaling:
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return RopeScaling(**{name: settings[name] for name in names})


def _yarn(settings: Raw, raw: Raw) -> Scaling:
    original = original_context(raw)
    factor = float(settings.get("factor") or raw["max_position_embeddings"] / original)
    m, all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
    inferred = mscale(factor, m) / mscale(factor, all_dim) if m and all_dim else mscale(factor)
    given = settings.get("attention_factor")
    return YarnScaling(
        factor,
        original,
        inferred if given is None else float(given),
        float(settings.get("beta_fast") or 32),
        float(settings.get("beta_slow") or 1),
        settings.get("truncate", True),
    )


def _longrope(settings: Raw, raw: Raw) -> Scaling:
    original = original_context(raw)
    factor = float(settings.get("factor") or raw.get("max_position_embeddings", original) / original)
    given, pairs = settings.get("attention_factor"), (family(raw).rotary_dim or head_dim(raw)) // 2
    if len(settings["short_factor"]) != pairs:
        raise ValueError(f"short_factor has {len(settings['short_factor'])} numbers for {pairs} pairs of channels")
    inferred = LongRopeScaling.inferred_attention_factor(factor, original)
    return LongRopeScaling(tuple(map(float, settings["short_factor"])), inferred if given is None else float(given))


SCALINGS: dict[str, Callable[[Raw, Raw], Scaling]] = {
    "linear": lambda settings, _: LinearScaling(settings["factor"]),
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
