"""Write tests/reference/torch.npz from the PyTorch statements: PYTHONPATH=tests python THIS."""

import json

import numpy as np
import torch
from witnesses import language_cases, length_case, torch_language, torch_length
from witnesses.references import FILE, sketch, weights


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
        torch.nn.functional.cross_entropy(logits, labels).backward()
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


def references():
    """Everything that is kept."""
    return {**dict(language()), **dict(length())}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **references())
    print(f"wrote {FILE} ({FILE.stat().st_size} bytes)")
