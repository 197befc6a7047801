"""What training a model takes, in floating-point operations. Arithmetic only; nothing is run.

Letters as in llama.py: L layers, C width, H heads, K key/value heads, D head size, F feed-forward width, V vocabulary; tokens are
those of one forward pass. Kaplan et al. 2020 (arXiv:2001.08361, section 2.1) count operations the same way.
"""

from model.llama import LlamaConfig


def layer_matrices(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """[out, in] of each matrix of a layer."""
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return {
        "q_proj": (queries, config.dim),
        "k_proj": (keys, config.dim),
        "v_proj": (keys, config.dim),
        "o_proj": (config.dim, queries),
        "gate_proj": (config.ffn_dim, config.dim),
        "up_proj": (config.ffn_dim, config.dim),
        "down_proj": (config.dim, config.ffn_dim),
    }


def training_flops(config: LlamaConfig, *, tokens: float, supervised: float, attended: float, frozen: bool) -> float:
    """Operations of forward and backward passes over ``tokens`` tokens, of which ``supervised`` go through the output matrix.

    ``attended`` is the number of keys seen, summed over the queries of one layer: n(n+1)/2 for a document of n tokens. A multiply and
    an add are two. Backward takes twice what forward does; of ``frozen`` matrices, as under adapters, only the input's half.
    Recomputation is not counted, so that what saves memory does not look fast.
    """
    passes = 2 if frozen else 3
    weights = sum(out * inner for out, inner in layer_matrices(config).values()) * config.n_layers
    attention = 4 * config.n_layers * config.n_heads * config.head_dim * attended
    return 2 * passes * (weights * tokens + config.vocab_size * config.dim * supervised) + 3 * attention
