"""The networks, by their diffusers and transformers classes."""
import torch.nn as nn
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from common import DEVICE, LATENT, TOKENS

CHANNELS = (32, 64, 96)
CONTEXT = 96


def vae():
    """64x64x3 to 16x16x4 and back."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, layers_per_block=1, norm_num_groups=8, sample_size=64,
        block_out_channels=(16, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3).to(DEVICE)


def tiny_vae():
    """TAESD's structure with one level less."""
    return AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24), decoder_block_out_channels=(24, 24, 24), num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 2, 1), latent_channels=4, scaling_factor=1.0).to(DEVICE)


def text_encoder(vocabulary):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=CONTEXT, intermediate_size=4 * CONTEXT, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=TOKENS, hidden_act="quick_gelu", bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1, projection_dim=CONTEXT,
        attn_implementation="sdpa")).to(DEVICE)


def unet(kind):
    """`teacher`: two layers a block and a mid block, as Stable Diffusion; `student`: BK-SDM-Tiny's shape; `lcm`: that
    with the guidance embedding."""
    teacher = kind == "teacher"
    return UNet2DConditionModel(
        sample_size=LATENT, in_channels=4, out_channels=4, block_out_channels=CHANNELS,
        layers_per_block=2 if teacher else 1, down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3, mid_block_type="UNetMidBlock2DCrossAttn" if teacher else None,
        cross_attention_dim=CONTEXT, attention_head_dim=2, norm_num_groups=8,
        time_cond_proj_dim=256 if kind == "lcm" else None).to(DEVICE)


class Tower(nn.Module):
    """A convolutional reader of 64x64 images in [-1, 1]: CLIP's image side, and the judge."""

    def __init__(self, outputs, width=24):
        super().__init__()

        def block(i, o, stride):
            return [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        w = width
        self.features = nn.Sequential(*block(3, w, 2), *block(w, 2 * w, 2), *block(2 * w, 2 * w, 1),
                                      *block(2 * w, 3 * w, 2), *block(3 * w, 4 * w, 2))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(4 * w * 16, 8 * w), nn.ReLU())
        self.head = nn.Linear(8 * w, outputs)

    def forward(self, x):
        return self.head(self.hidden(self.features(x)))
