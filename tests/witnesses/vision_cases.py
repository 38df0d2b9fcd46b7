"""The networks of images that are held to PyTorch: small, but every branch is taken.

Several blocks, stages and heads, strides, shortcuts, transitions, and head_dim * heads != dim.
"""

import numpy as np
from witnesses.references import numbers

TOKENS = {"image_size": 8, "patch_size": 4, "channels": 3, "classes": 5}
PIXELS = {"image_size": 16, "channels": 3, "classes": 5}
SMALL = {"depth": 2, "heads": 3, "dim": 16, "head_dim": 8, "mlp_dim": 24}
# case: the module and class of the statement, what both take, widths
CASES = {
    "vit": ("torch_vits", "ViTSmall", TOKENS, SMALL),
    "vit-simple": ("torch_vits", "ViTSimple", TOKENS, SMALL),
    "vit-ti16": ("torch_vits", "ViT", TOKENS, {"depth": 2, "heads": 2, "dim": 16, "mlp_dim": 24}),
    "convmixer": ("torch_convs", "ConvMixer", TOKENS, {"depth": 2, "dim": 12, "kernel_size": 3}),
    "resnet18": ("torch_convs", "ResNet", PIXELS, {"width": 6, "depths": (1, 2)}),
    "densenet121": ("torch_convs", "DenseNet", PIXELS, {"growth": 4, "depths": (2, 1)}),
    "cnn": ("torch_convs", "CNN", PIXELS, {"filters": 6, "hidden": 10}),
    "mlp": ("torch_convs", "MLP", PIXELS, {"hidden": (12, 9), "activation": "leaky_relu"}),
    "mlp-sigmoid": ("torch_convs", "MLP", PIXELS, {"hidden": (12, 9), "activation": "sigmoid"}),
    "convnextv2-atto": ("torch_convs", "ConvNeXtV2", PIXELS, {"depths": (1, 1), "widths": (8, 12)}),
}
LABELS = np.array([0, 3, 1, 3])
# Published layouts: our model, the statement in `torch_timm`, and what only that takes.
LAYOUTS = {
    "timm ViT": ("vit-ti16", "ViT", {}),
    "timm ConvNeXt, linear": ("convnextv2-atto", "ConvNeXtV2", {"convolutions": False}),
    "timm ConvNeXt, 1x1": ("convnextv2-atto", "ConvNeXtV2", {"convolutions": True}),
    "Facebook ConvNeXt": ("convnextv2-atto", "FacebookConvNeXtV2", {}),
}
IMAGENET = {"image_size": 224, "patch_size": 16, "channels": 3, "classes": 1000}
PUBLISHED = {
    "vit-l16": {"depth": 24, "heads": 16, "dim": 1024, "mlp_dim": 4096},
    "vit-ti16": {"depth": 12, "heads": 3, "dim": 192, "mlp_dim": 768},
    "convnextv2-tiny": {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
    "convnextv2-atto": {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)},
}


def images(side, n=4, seed=0):
    """Images (n, side, side, 3) of unit variance."""
    return numbers(f"images {seed}", (n, side, side, 3)) * np.float32(3**0.5)


def mask(call, shape):
    """What the dropout of that number keeps."""
    return numbers(f"dropout {call}", shape) >= -0.8
