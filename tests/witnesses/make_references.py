"""Write tests/reference/torch.npz from the PyTorch statements: PYTHONPATH=tests python THIS."""

import json
from importlib import import_module
from unittest import mock

import numpy as np
import torch
from witnesses import (
    attention_cases,
    language_cases,
    length_case,
    one_layer_cases,
    scratchpad_case,
    torch_language,
    torch_length,
    torch_one_layer,
    torch_scratchpad,
    torch_timm,
    vision_cases,
)
from witnesses.references import FILE, sketch, weights
from witnesses.small_weights import SIZES, WIDTHS

cross_entropy = torch.nn.functional.cross_entropy


def fill(network):
    """The statement with the generic weights of its names, and its manifest."""
    tensors = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    manifest = {name: list(tensor.shape) for name, tensor in tensors.items()}
    with torch.no_grad():
        for name, array in weights(manifest).items():
            tensors[name].copy_(torch.from_numpy(array))
    return {"manifest": np.array(json.dumps(manifest))}


def gradients(network):
    """Sketches of the gradient of every parameter."""
    found = {name: sketch(p.grad) for name, p in network.named_parameters()}
    return {
        "gradient names": np.array(json.dumps(list(found))),
        "gradients": np.concatenate(list(found.values())),
        "gradient lengths": np.array([len(part) for part in found.values()]),
    }


def language():
    """Logits of padded text, and the gradients of their cross-entropy."""
    inputs = {name: torch.from_numpy(array) for name, array in language_cases.text().items()}
    labels = torch.from_numpy(language_cases.LABELS)
    for case, (_, statement, arguments, _, _) in language_cases.CASES.items():
        network = getattr(torch_language, statement)(**arguments)
        found = fill(network)
        logits = network(inputs["ids"].long(), inputs["mask"])
        cross_entropy(logits, labels).backward()
        found |= {"logits": logits.detach().numpy(), **gradients(network)}
        yield from ((f"{case}/{key}", array) for key, array in found.items())


def length():
    """Answers of paper B's transformer on all strings, its blow-up, and gradients for PARITY."""
    network = torch_length.LengthTransformer(**length_case.SIZES)
    found, bits = fill(network), torch.from_numpy(length_case.BITS)
    answers = network(bits)
    torch.nn.functional.mse_loss(answers, (bits.sum(1) % 2).float()).backward()
    found |= {"answers": answers.detach().numpy(), **gradients(network)}
    found["blowup"] = torch.stack(list(network.blowup(bits).values())).detach().numpy()
    yield from ((f"length/{key}", array) for key, array in found.items())


def scratchpad():
    """Answers to given and to own bits, and gradients for the running parities."""
    network = torch_scratchpad.Scratchpad(**scratchpad_case.SIZES)
    found, bits = fill(network), torch.from_numpy(scratchpad_case.BITS)
    answers = network(bits, torch.from_numpy(scratchpad_case.WRITTEN)[:, :-1])
    torch.nn.functional.mse_loss(answers, (bits.cumsum(1) % 2).float()).backward()
    found |= {"answers": answers.detach().numpy(), **gradients(network)}
    with torch.no_grad():
        network.head.bias += scratchpad_case.SHIFT
    found["written"] = network.write(bits).numpy()
    yield from ((f"scratchpad/{key}", array) for key, array in found.items())


def nchw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def named(what, tensors):
    """Arrays under one key each, with their names."""
    return {
        f"{what} names": np.array(json.dumps(list(tensors))),
        **{f"{what} {i}": tensor.numpy().copy() for i, tensor in enumerate(tensors.values())},
    }


def statistics(network):
    return {k: v for k, v in network.named_buffers() if "running" in k}


def vision():
    """Logits; loss, gradients and statistics of a training pass without dropout; epsilons."""
    for case, (module, statement, sizes, widths) in vision_cases.CASES.items():
        network = getattr(import_module(f"witnesses.{module}"), statement)(**sizes, **widths)
        found = fill(network)
        epsilons = {
            name: module.eps
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.LayerNorm)
        }
        found["epsilons"] = np.array(json.dumps(epsilons))
        x = nchw(vision_cases.images(sizes["image_size"]))
        with torch.no_grad():
            found["logits"] = network.eval()(x).numpy()
        if case == "vit":
            found |= with_dropout(network, x)
        for part in network.train().modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        loss = cross_entropy(network(x), torch.from_numpy(vision_cases.LABELS))
        loss.backward()
        found["loss"] = loss.detach().numpy()
        found |= gradients(network) | named("statistics", statistics(network))
        if case == "convmixer":  # two more steps of the running averages
            with torch.no_grad():
                for seed in (1, 2):
                    network(nchw(vision_cases.images(sizes["image_size"], seed=seed)))
            found |= named("three steps", statistics(network))
        yield from ((f"{case}/{key}", array) for key, array in found.items())


def with_dropout(network, x):
    """Logits with the given mask at every dropout in turn, and the shapes of these."""
    shapes = []

    def drop(self, x):
        shapes.append(list(x.shape))
        return x * torch.from_numpy(vision_cases.mask(len(shapes), tuple(x.shape))) / 0.9

    with mock.patch.object(torch.nn.Dropout, "forward", drop), torch.no_grad():
        logits = network.train()(x).numpy()
    return {"dropout logits": logits, "dropout shapes": np.array(json.dumps(shapes))}


def published():
    """Logits of every layout, and the names and shapes of the published networks."""
    for layout, (name, statement, more) in vision_cases.LAYOUTS.items():
        network = getattr(torch_timm, statement)(**SIZES, **WIDTHS[name], **more)
        yield from ((f"{layout}/{key}", array) for key, array in fill(network).items())
        with torch.no_grad():
            logits = network.eval()(nchw(vision_cases.images(SIZES["image_size"], n=2)))
        yield f"{layout}/logits", logits.numpy()
    for name, widths in vision_cases.PUBLISHED.items():
        statement = torch_timm.ViT if name.startswith("vit") else torch_timm.ConvNeXtV2
        sizes = vision_cases.IMAGENET
        with torch.device("meta"):
            network = statement(**sizes, **widths, convolutions=name.endswith("atto"))
        shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
        yield f"published {name}/manifest", np.array(json.dumps(shapes))


def one_layer():
    """Losses of ten steps of AdamW on modular addition, and the logits after them."""
    for start, residual in one_layer_cases.STARTS.items():
        train, test = one_layer_cases.data()
        pairs, labels = (torch.tensor(np.asarray(part), dtype=torch.long) for part in train)
        arrays = one_layer_cases.arrays(start)
        for kind in one_layer_cases.KINDS:
            network = getattr(torch_one_layer, kind)(*one_layer_cases.WIDTHS, residual)
            network.load(arrays)
            losses = torch_one_layer.train(network, pairs, labels, epochs=one_layer_cases.STEPS)
            with torch.no_grad():
                logits = network(torch.tensor(np.asarray(test.inputs), dtype=torch.long))
            yield f"{start} {kind}/losses", np.array(losses)
            yield f"{start} {kind}/logits", logits.numpy()


def attention():
    """Outputs of PyTorch's own attention, and sketches of the gradient of their squares."""
    network = torch.nn.MultiheadAttention(
        attention_cases.DIM, attention_cases.HEADS, batch_first=True
    )
    yield "attention/manifest", fill(network)["manifest"]
    for case, (padding, causal, other) in attention_cases.CASES.items():
        x = torch.from_numpy(attention_cases.vectors("x")).requires_grad_()
        memory = torch.from_numpy(attention_cases.vectors("memory")) if other else x
        out, _ = network(
            x, memory, memory, need_weights=False,
            key_padding_mask=torch.from_numpy(~attention_cases.PADDING) if padding else None,
            attn_mask=torch.ones(x.shape[1], x.shape[1], dtype=bool).triu(1) if causal else None,
        )  # fmt: skip
        (out**2).sum().backward()
        yield f"attention {case}/output", out.detach().numpy()
        yield f"attention {case}/gradient", sketch(x.grad)


def references():
    """Everything that is kept."""
    kept = {}
    for part in (language, length, scratchpad, vision, published, one_layer, attention):
        kept |= dict(part())
    return kept


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **references())
    print(f"wrote {FILE} ({FILE.stat().st_size} bytes)")
