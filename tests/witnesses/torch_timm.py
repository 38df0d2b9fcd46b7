"""The published ImageNet models in PyTorch, with exactly the names that published weights have.

`ViT` and `ConvNeXtV2` are named as in timm, `FacebookConvNeXtV2` as in the ConvNeXt V2 release.
Images are NCHW. Written from the papers; nothing is shared with the code under test.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn


class Part(nn.Module):
    """Named parts without a function of their own."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def attend(attn, x, heads):
    """Each head in turn, its queries, keys and values cut out of the one product."""
    qkv = attn.qkv(x)
    width = qkv.shape[-1] // 3
    size = width // heads
    mixed = []
    for head in range(heads):
        q, k, v = (
            qkv[..., i * width + head * size : i * width + (head + 1) * size] for i in range(3)
        )
        scores = q @ k.transpose(-1, -2) / size**0.5
        mixed.append(scores.softmax(-1) @ v)
    return attn.proj(torch.cat(mixed, dim=-1))


class ViT(nn.Module):
    def __init__(
        self, *, image_size, patch_size, channels, classes, depth, heads, dim, mlp_dim, **_
    ):
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, dim))
        self.patch_embed = Part(proj=nn.Conv2d(channels, dim, patch_size, stride=patch_size))
        self.blocks = nn.ModuleList(
            Part(
                norm1=nn.LayerNorm(dim, eps=1e-6),
                attn=Part(qkv=nn.Linear(dim, 3 * dim), proj=nn.Linear(dim, dim)),
                norm2=nn.LayerNorm(dim, eps=1e-6),
                mlp=Part(fc1=nn.Linear(dim, mlp_dim), fc2=nn.Linear(mlp_dim, dim)),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = x + attend(block.attn, block.norm1(x), self.heads)
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        return self.head(self.norm(x)[:, 0])


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of NCHW, epsilon 1e-6."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def respond(x, gamma, beta):
    """Global response normalisation of (N, C, H, W), image by image."""
    outputs = []
    for image in x:
        norms = image.square().sum(dim=(1, 2)).sqrt()
        response = (norms / (norms.mean() + 1e-6))[:, None, None]
        gain, shift = gamma.reshape(-1)[:, None, None], beta.reshape(-1)[:, None, None]
        outputs.append(image + gain * image * response + shift)
    return torch.stack(outputs)


def pointwise(layer, x):
    """A linear map of the channels of NCHW, whether it is a Linear or a 1 x 1 convolution."""
    if isinstance(layer, nn.Conv2d):
        return layer(x)
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Vectors(nn.Module):
    """Two parameters of given names and one shape."""

    def __init__(self, names, shape):
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


class ConvNeXtV2(nn.Module):
    """`convolutions` states the linear maps as 1 x 1 convolutions, as timm's smaller ones do."""

    def __init__(self, *, channels, classes, depths, widths, convolutions, **_):
        super().__init__()

        def linear(inputs, outputs):
            return nn.Conv2d(inputs, outputs, 1) if convolutions else nn.Linear(inputs, outputs)

        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 4, stride=4), ChannelNorm(widths[0])
        )
        self.stages = nn.ModuleList()
        for s, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            reduce = nn.Identity()
            if s > 0:
                reduce = nn.Sequential(
                    ChannelNorm(widths[s - 1]), nn.Conv2d(widths[s - 1], width, 2, stride=2)
                )
            blocks = nn.Sequential()
            for _ in range(depth):
                mlp = Part(
                    fc1=linear(width, 4 * width),
                    grn=Vectors(("weight", "bias"), (4 * width,)),
                    fc2=linear(4 * width, width),
                )
                blocks.append(
                    Part(
                        conv_dw=nn.Conv2d(width, width, 7, padding=3, groups=width),
                        norm=ChannelNorm(width),
                        mlp=mlp,
                    )
                )
            self.stages.append(Part(downsample=reduce, blocks=blocks))
        self.head = Part(norm=nn.LayerNorm(widths[-1], eps=1e-6), fc=nn.Linear(widths[-1], classes))

    def forward(self, images):
        x = self.stem(images)
        for stage in self.stages:
            x = stage.downsample(x)
            for block in stage.blocks:
                y = F.gelu(pointwise(block.mlp.fc1, block.norm(block.conv_dw(x))))
                y = respond(y, block.mlp.grn.weight, block.mlp.grn.bias)
                x = x + pointwise(block.mlp.fc2, y)
        return self.head.fc(self.head.norm(x.mean(dim=(2, 3))))


class FacebookConvNeXtV2(nn.Module):
    def __init__(self, *, channels, classes, depths, widths, **_):
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(channels, widths[0], 4, stride=4), ChannelNorm(widths[0]))]
        )
        for before, after in itertools.pairwise(widths):
            self.downsample_layers.append(
                nn.Sequential(ChannelNorm(before), nn.Conv2d(before, after, 2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Part(
                        dwconv=nn.Conv2d(width, width, 7, padding=3, groups=width),
                        norm=ChannelNorm(width),
                        pwconv1=nn.Linear(width, 4 * width),
                        grn=Vectors(("gamma", "beta"), (1, 1, 1, 4 * width)),
                        pwconv2=nn.Linear(4 * width, width),
                    )
                    for _ in range(depth)
                )
            )
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images):
        x = images
        for reduce, blocks in zip(self.downsample_layers, self.stages, strict=True):
            x = reduce(x)
            for block in blocks:
                y = F.gelu(pointwise(block.pwconv1, block.norm(block.dwconv(x))))
                x = x + pointwise(block.pwconv2, respond(y, block.grn.gamma, block.grn.beta))
        return self.head(self.norm(x.mean(dim=(2, 3))))
