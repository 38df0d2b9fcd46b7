"""Weights of other models: which one a file looks like, by the names of its arrays."""

import re
from collections.abc import Collection

# Arrays that no model of ours has, and whose they are; the first that matches counts.
MODELS = (
    (r"(optimizer|optim|param_groups)\b", "a training state with its optimizer"),
    (r"visual\.|text_model\.|vision_model\.", "CLIP or another model of images and text"),
    (r"decoder_blocks\.|mask_token$", "a masked autoencoder before fine-tuning"),
    (r"dist_token$", "a distilled DeiT"),
    (r"(vit|deit)\.(embeddings|encoder)\.", "transformers' ViT; take timm's"),
    (r"convnextv2\.(embeddings|encoder)\.", "transformers' ConvNeXt V2; take timm's"),
    (r"(convnext|dinov2|swin|beit)\.", "another model of transformers"),
    (r"Transformer/encoder|embedding/kernel$", "Google's ViT for JAX; take timm's"),
    (r"img/|params/img/", "a ViT of big_vision; take timm's"),
    (r"class_token$|encoder\.layers\.encoder_layer_0", "torchvision's ViT; take timm's"),
    (r"features\.\d+\.\d+\.block\.", "torchvision's ConvNeXt"),
    (r"features\.\d+\.", "a network of torchvision: VGG, MobileNet, EfficientNet"),
    (r".*relative_position_bias_table$", "a Swin transformer or BEiT"),
    (r"blocks\.\d+\.(gamma_[12]|attn\.q_bias)$", "a BEiT"),
    (r"blocks\.\d+\.ls[12]\.gamma$|register_tokens$", "a ViT with layer scale: DeiT III, DINOv2"),
    (r"fc_norm\.", "a ViT that averages its tokens (fc_norm)"),
    (r"norm_pre\.", "a ViT with a norm before its blocks, as of CLIP"),
    (r"stages\.\d+\.(blocks\.)?\d+\.gamma$", "a ConvNeXt V1"),
    (r"layer1\.0\.conv1\.", "a ResNet"),
    (r"conv_stem\.", "an EfficientNet or MobileNet"),
    (r"(stem|blocks)\.\d+\.mlp_tokens\.", "an MLP-Mixer"),
    (r"(bert|roberta|distilbert)\.|.*word_embeddings\.", "a BERT"),
    (r"(transformer\.)?wte\.|h\.\d+\.attn\.", "a GPT-2"),
    (r"model\.embed_tokens\.|model\.layers\.\d+\.", "a language model such as Llama"),
)  # fmt: skip
# Those that begin our own.
LAYOUTS = (
    (r"cls_token$", "a ViT in timm's layout"),
    (r"stem\.0\.weight$", "a ConvNeXt in timm's layout"),
    (r"downsample_layers\.0\.0\.weight$", "a ConvNeXt in the layout of its authors"),
)
# What wrappers of PyTorch and training scripts put before every name.
WRAPPERS = (
    *("module.", "_orig_mod.", "model.", "state_dict.", "backbone.", "encoder.", "net."),
    *("network.", "model_ema.", "student.", "teacher.", "base_model."),
)
FIRST = ("cls_token", "stem.0.weight", "downsample_layers.0.0.weight")


def looks_like(names: Collection[str], *, ours: bool = False) -> str:
    """What the arrays called ``names`` seem to be of, to end a sentence; "" where that is unknown.

    With ``ours``, models of this package count too: where another one was expected.
    """
    for wrapper in WRAPPERS:
        inside = {name.removeprefix(wrapper) for name in names if name.startswith(wrapper)}
        if not inside.isdisjoint(FIRST):
            return f"; its names begin with {wrapper!r}, of a wrapper: save them without it"
    for pattern, model in (*MODELS, *LAYOUTS) if ours else MODELS:
        if any(re.match(pattern, name) for name in names):
            return f"; it looks like {model}"
    return ""
