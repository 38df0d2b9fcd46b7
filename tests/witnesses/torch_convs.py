"""The convolutional networks and MLPs once more, stated plainly in PyTorch from their papers.

Attribute names follow `jaxsens.models`, so that every tensor can be paired by its path. Images are
NCHW here. Nothing is shared with the code under test.
"""

import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(
        self, *, image_size, channels, classes, hidden=(512, 128), activation="leaky_relu"
    ):
        super().__init__()
        widths = (image_size**2 * channels, *hidden)
        self.hidden = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(len(hidden)))
        self.head = nn.Linear(widths[-1], classes)
        self.act = {"leaky_relu": nn.LeakyReLU(), "sigmoid": nn.Sigmoid()}[activation]

    def forward(self, images):
        x = images.permute(0, 2, 3, 1).flatten(1)
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.head(x)


class CNN(nn.Module):
    def __init__(self, *, image_size, channels, classes, filters=32, hidden=128):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3)
        self.conv2 = nn.Conv2d(filters, filters, 3)
        self.hidden = nn.Linear(((image_size - 4) // 2) ** 2 * filters, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, images):
        x = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(images))))
        x = F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
        return self.head(F.leaky_relu(self.hidden(x)))


class Mixer(nn.Module):
    def __init__(self, dim, kernel_size):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
        self.depthwise_norm = nn.BatchNorm2d(dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)
        self.pointwise_norm = nn.BatchNorm2d(dim)

    def forward(self, x):
        x = x + self.depthwise_norm(F.gelu(self.depthwise(x)))
        return self.pointwise_norm(F.gelu(self.pointwise(x)))


class ConvMixer(nn.Module):
    def __init__(
        self, *, image_size, patch_size, channels, classes, depth=6, dim=128, kernel_size=3
    ):
        super().__init__()
        self.embedding = nn.Conv2d(channels, dim, patch_size, stride=patch_size)
        self.embedding_norm = nn.BatchNorm2d(dim)
        self.mixers = nn.ModuleList(Mixer(dim, kernel_size) for _ in range(depth))
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        x = self.embedding_norm(F.gelu(self.embedding(images)))
        for mixer in self.mixers:
            x = mixer(x)
        return self.head(x.mean(dim=(2, 3)))


class Shortcut(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x))


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else Shortcut(inputs, outputs, stride)

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + y)


class ResNet(nn.Module):
    def __init__(self, *, image_size, channels, classes, width=64, depths=(2, 2, 2, 2)):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        inputs = width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                outputs = width << stage
                self.blocks.append(Residual(inputs, outputs, 2 if stage and i == 0 else 1))
                inputs = outputs
        self.head = nn.Linear(inputs, classes)

    def forward(self, images):
        x = F.relu(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Dense(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class Transition(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    def __init__(self, *, image_size, channels, classes, growth=32, depths=(6, 12, 24, 16)):
        super().__init__()
        features = 2 * growth
        self.stem = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(features)
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(depths):
            if stage:
                self.layers.append(Transition(features))
                features //= 2
            for _ in range(depth):
                self.layers.append(Dense(features, growth))
                features += growth
        self.norm = nn.BatchNorm2d(features)
        self.head = nn.Linear(features, classes)

    def forward(self, images):
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(images))), 3, stride=2, padding=1)
        for layer in self.layers:
            x = layer(x)
        return self.head(F.relu(self.norm(x)).mean(dim=(2, 3)))


class ChannelsFirstNorm(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW map."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        g = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        return self.gamma * (x * g / (g.mean(dim=-1, keepdim=True) + 1e-6)) + self.beta + x


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.response_norm = ResponseNorm(4 * dim)

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(self.response_norm(F.gelu(self.up(y))))
        return x + y.permute(0, 3, 1, 2)


class Reduce(nn.Module):
    def __init__(self, inputs, outputs, size):
        super().__init__()
        self.linear = nn.Conv2d(inputs, outputs, size, stride=size)

    def forward(self, x):
        return self.linear(x)


class ConvNeXtV2(nn.Module):
    def __init__(
        self, *, image_size, channels, classes, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)
    ):
        super().__init__()
        self.reductions, self.norms = nn.ModuleList(), nn.ModuleList()
        self.stages = nn.ModuleList()
        inputs = channels
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            self.reductions.append(Reduce(inputs, width, 2 if stage else 4))
            self.norms.append(ChannelsFirstNorm(inputs if stage else width, eps=1e-6))
            self.stages.append(nn.ModuleList(ConvNeXtBlock(width) for _ in range(depth)))
            inputs = width
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images):
        x = images
        for stage, blocks in enumerate(self.stages):
            if stage:
                x = self.reductions[stage](self.norms[stage](x))
            else:
                x = self.norms[0](self.reductions[0](x))
            for block in blocks:
                x = block(x)
        return self.head(self.norm(x.mean(dim=(2, 3))))
