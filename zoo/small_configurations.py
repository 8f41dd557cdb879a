"""Models of transformers, made small from their configurations, with random weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers

# By the names that configurations use for the same thing.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "projection_dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "d_embed", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_rnn_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv"), 2),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 64),
    **dict.fromkeys(("d_ff", "n_inner", "hidden_dim", "moe_intermediate_size"), 64),
    **dict.fromkeys(("head_dim", "d_kv", "d_head"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("image_size",), 32),
    **dict.fromkeys(("patch_size",), 8),
    "vocab_size": 99,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "num_mel_bins": 16,
}
# What a model needs beyond that, or otherwise.
_OWN: dict[str, dict[str, Any]] = {
    "convnext": {"hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 2, 1], "patch_size": 4},
    "convnextv2": {"hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 2, 1], "patch_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 1, 1]},
    "regnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 1, 1]},
    "swin": {
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 2,
        "patch_size": 2,
    },
    "swinv2": {
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 2,
        "patch_size": 2,
    },
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "deberta-v2": {"pooler_hidden_size": 32},
    "whisper": {"max_source_positions": 20, "max_target_positions": 32},
    "clip_vision_model": {"image_size": 32, "patch_size": 8},
    "wav2vec2": {
        "conv_dim": [16, 16],
        "conv_kernel": [10, 3],
        "conv_stride": [5, 2],
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
    "hubert": {
        "conv_dim": [16, 16],
        "conv_kernel": [10, 3],
        "conv_stride": [5, 2],
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
    "wavlm": {
        "conv_dim": [16, 16],
        "conv_kernel": [10, 3],
        "conv_stride": [5, 2],
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
    "mamba": {"state_size": 4, "time_step_rank": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 4},
    "segformer": {
        "hidden_sizes": [8, 16, 16, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 4],
        "decoder_hidden_size": 16,
    },
    "electra": {"embedding_size": 32},
    "xlnet": {"d_inner": 64},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_inner": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "big_bird": {"attention_type": "original_full"},
    "mixtral": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 32},
    "videomae": {"num_frames": 4, "tubelet_size": 2},
    "xmod": {"default_language": "en_XX"},
}


def make(name: str) -> torch.nn.Module:
    """The base model of a type (``bert``, ``llama``), in evaluation mode, without dropout."""
    kind = type(transformers.AutoConfig.for_model(name))
    plain = vars(kind())
    known = inspect.signature(kind.__init__).parameters.keys() | plain.keys()
    # Lists of sizes, one for each stage, are what they are.
    sizes = {
        key: value
        for key, value in _SIZES.items()
        if key in known and not isinstance(plain.get(key), (list, tuple))
    }
    # Randomness is looked at elsewhere.
    sizes |= {key: 0.0 for key in known if "drop" in key and isinstance(plain.get(key), float)}
    config = kind(**{**sizes, **_OWN.get(name, {})})
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).eval()


def arguments(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Some input of the kind that a model takes, by name."""
    generator = torch.Generator().manual_seed(1)
    config, main = model.config, model.main_input_name
    taken = inspect.signature(model.forward).parameters

    def words(count: int) -> torch.Tensor:
        return torch.randint(3, 90, (2, count), generator=generator)

    if main == "pixel_values":
        size = getattr(config, "image_size", 32)
        height, width = (size, size) if isinstance(size, int) else size
        frames = (config.num_frames,) if hasattr(config, "num_frames") else ()
        shape = (2, *frames, getattr(config, "num_channels", 3), height, width)
        found = {main: torch.randn(shape, generator=generator)}
        if "noise" in taken:
            # What decides which patches are hidden, where a model would draw it otherwise.
            patches = (height // config.patch_size) * (width // config.patch_size)
            found["noise"] = torch.rand(2, patches, generator=generator)
        return found
    if main == "input_values":
        return {main: torch.randn(2, 400, generator=generator)}
    if main == "input_features":
        length = 2 * getattr(config, "max_source_positions", 20)
        found = {main: torch.randn(2, 16, length, generator=generator)}
    else:
        found = {main: words(8)}
    if "decoder_input_ids" in taken:
        found["decoder_input_ids"] = words(6)
    return found
