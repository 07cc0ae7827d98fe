"""The model's forward pass for many equal pictures at once: transformers' mathematics, written for a CPU.

Attention is matmul, softmax, matmul: on a CPU the fused backward in bfloat16 is several times slower.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.training.architecture import RMS_EPSILON


def see(visual: nn.Module, pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Return the image tokens, (pictures, rows x columns, hidden), of patches (pictures, patches, 588).

    The processor repeats a picture as two frames; the two slices of the patch kernel are summed instead.
    """
    pictures, count, _ = pixels.shape
    x = F.linear(pixels, visual.patch_embed.proj.weight.sum(2).flatten(1))
    cosine, sine = _vision_angles(visual.rotary_pos_emb, rows, columns)
    cosine, sine = cosine.to(x.dtype)[None, None], sine.to(x.dtype)[None, None]
    for block in visual.blocks:
        mixed = block.attn.qkv(block.norm1(x)).view(pictures, count, 3, block.attn.num_heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = _turned(query, cosine, sine), _turned(key, cosine, sine)
        scores = torch.matmul(query * (query.shape[-1] ** -0.5), key.transpose(-1, -2))
        seen = torch.matmul(torch.softmax(scores, -1), value)
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(pictures, count, -1))
        x = x + block.mlp(block.norm2(x))
    return visual.merger(x).view(pictures, count // 4, -1)


def think(
    language: nn.Module, embeddings: Tensor, positions: Tensor, taps: Sequence[int] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Return the last hidden states, normalised, and those after each layer in ``taps`` (from 1)."""
    hidden = embeddings
    length = hidden.shape[1]
    cosine, sine = language.rotary_emb(hidden, positions)
    angles = cosine[:, None], sine[:, None]
    ahead = torch.full((length, length), float("-inf"), dtype=hidden.dtype).triu(1)
    tapped = []
    for number, layer in enumerate(language.layers, start=1):
        normed = _rms(hidden, layer.input_layernorm.weight)
        hidden = hidden + _attend(layer.self_attn, normed, angles, ahead)
        hidden = hidden + layer.mlp(_rms(hidden, layer.post_attention_layernorm.weight))
        if number in taps:
            tapped.append(hidden)
    return language.norm(hidden), tapped


def _attend(
    attention: nn.Module, x: Tensor, angles: tuple[Tensor, Tensor], ahead: Tensor
) -> Tensor:
    """Return causal attention with grouped keys: query head j uses key head j // group."""
    batch, length, _ = x.shape
    width, group = attention.head_dim, attention.num_key_value_groups
    query, key, value = (
        projection(x).view(batch, length, -1, width).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = (_turned(part, *angles).contiguous() for part in (query, key))
    keys = key.shape[1]
    flat = batch * keys * group
    key, value = (
        part[:, :, None].expand(batch, keys, group, length, width).reshape(flat, length, width)
        for part in (key, value)
    )
    scores = torch.baddbmm(
        ahead, query.reshape(flat, length, width), key.transpose(1, 2), alpha=width**-0.5
    )
    seen = torch.bmm(torch.softmax(scores, -1), value).view(batch, keys * group, length, width)
    return attention.o_proj(seen.transpose(1, 2).reshape(batch, length, -1))


@functools.lru_cache(maxsize=64)
def _vision_angles(rotary: nn.Module, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine for the patches of a grid, in the processor's order."""
    down = torch.arange(rows * 2)[:, None].expand(-1, columns * 2)
    across = torch.arange(columns * 2)[None, :].expand(rows * 2, -1)
    places = [
        axis.reshape(rows, 2, columns, 2).permute(0, 2, 1, 3).reshape(-1) for axis in (down, across)
    ]
    cosine, sine = rotary(torch.zeros(1), torch.stack(places, -1))
    return cosine.float(), sine.float()


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return rotary position embedding."""
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    """Return the root-mean-square norm, computed in float32."""
    y = x.float()
    return weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + RMS_EPSILON)).to(x.dtype)
