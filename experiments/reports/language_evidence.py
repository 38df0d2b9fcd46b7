"""What a record of the language experiment says of paper A's claims."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.paper import SENSITIVITY, WHOLE, Claim, claim
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.evidence import Evidence, all_hold, below, shown
from experiments.run.record import RunRecord

Lines = report.Lines
POSITION = "sensitivity by position, aligned to the right"
LATER = "Section 6, A.4"
Z = 1.96
END = 16  # positions that are the end of a pair; the last, a </s>, is not counted
PAPER = {"depth": 4, "heads": 8, "width": 256, "points": 100_000, "learning_rate": 1e-4}
# RoBERTa's sensitivity as the text has it and as the code may have measured it.
AGAIN = "sensitivity_block"
WAYS = {"sensitivity": "", AGAIN: "positions and LayerNorm again after the noise (the code)"}
PRINTED = ("lstm", "roberta", "roberta-relu")


def evidence(record: RunRecord) -> list[Evidence]:
    """The paper's numbers and the order of the networks, by position too."""
    result, config = record.read("result.json"), record.read("config.json")
    # Names of more than one word are of networks with an intervention.
    finals = {k: lines for k, lines in by_model(result["final"]).items() if " " not in k}
    task, differs = config["task"], _differs(config, result)
    if config["sigma2"][0] != 15:
        return []
    found = []
    for name, lines in finals.items():
        label, asked = lines[0]["label"], []
        if task != "verses" and name in PRINTED:
            setting = f"{task.upper()}, {TRAINING}"
            asked.append(claim("Section 6", label, SENSITIVITY, setting=setting))
        if task == "mrpc" and name in PRINTED:
            asked.append(claim(NOTEBOOK, label, SENSITIVITY))
        for field, how in WAYS.items():
            if field in lines[0]:
                value = _number(lines, field)
                found += [Evidence(one, *value, differs=differs, measured=how) for one in asked]
        if task == "qqp" and name in ("lstm", "roberta"):
            whole = _number(lines, "sensitivity_whole")
            found.append(Evidence(claim("Table 4", label, WHOLE), *whole, differs=differs))
        found += _position(name, lines, differs)
    return found + _order(record, finals, differs)


TRAINING = "training sentences, noise of variance 15 on the embedding of a token, AdamW"
NOTEBOOK = "stored notebook of the code"


def _differs(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """How the run differs from the paper's."""
    data = result["data"]
    parts = [f"{data['name']}, not the paper's data"] if config["task"] == "verses" else []
    if config["examples"] is not None:
        parts.append(f"{config['examples']} training pairs")
    parts += [
        f"{k.replace('_', ' ')} {config[k]:g} for {v:g}" for k, v in PAPER.items() if config[k] != v
    ]
    parts.append(f"{data['vocabulary']} sub-words trained on the pairs for RoBERTa's 50,265")
    return "; ".join(parts)


def _number(lines: Lines, field: str) -> tuple[float, float]:
    """Mean over seeds and its error.

    Where nothing flipped the error is not 0: it is what half the width of Wilson's interval for no
    event among the n texts stands for, z / (2 (n + z^2)).
    """
    value, error = report.pooled(
        *[[line[name] for line in lines] for name in (field, f"{field}_stderr")]
    )
    if error == 0 and f"{field}_per_example" in lines[0]:
        each = lines[0][f"{field}_per_example"]  # of a kept record, its shape
        texts = each["shape"][0] if isinstance(each, Mapping) else len(each)
        error = Z / (2 * (texts + Z**2))
    return value, error


def pair(lines: Lines, field: str) -> tuple[float, float]:
    """Mean over seeds of a field that holds a value and its error; NaN where one has none."""
    values = np.array([line[field] for line in lines], float)
    return report.pooled(values[:, 0], values[:, 1])


def _position(name: str, lines: Lines, differs: str) -> list[Evidence]:
    """Whether the flip rate rises toward the end (LSTM), or is even but for CLS (RoBERTa)."""
    label = lines[0]["label"]
    if name == "lstm":
        end, before = end_and_before(lines)
        if not np.isfinite([end[0], before[0]]).all():  # too few pairs at some place
            return []
        said = f"{end[0]:.4f} in the last {END} positions, {before[0]:.4f} before"
        asked = claim("Section 6", label, POSITION)
        return [Evidence(asked, said, None, below(before, end), differs)]
    if name == "roberta":
        cls, rest = pair(lines, "sensitivity_cls"), pair(lines, "sensitivity_rest")
        if not np.isfinite([*cls, *rest]).all():
            return []
        said = f"{cls[0]:.4f} ± {cls[1]:.4f} at CLS, {rest[0]:.4f} ± {rest[1]:.4f} elsewhere"
        return [
            Evidence(claim("Section 6", label, POSITION), said, None, below(rest, cls), differs)
        ]
    return []


def end_and_before(lines: Lines) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean flip rate over the last positions but one, and over all before; with their errors.

    Positions of one text depend on each other, so their errors are taken as fully correlated.
    """
    parts: list[list[tuple[float, float]]] = [[], []]
    for line in lines:
        places = np.array(line["sensitivity_places"], float)
        for part, chosen in zip(parts, ((places > 0) & (places < END), places >= END), strict=True):
            values, errors = (
                np.array(line[f"sensitivity_by_place{end}"], float)[chosen]
                for end in ("", "_stderr")
            )
            known = len(values) > 0
            part.append((values.mean(), errors.mean()) if known else (np.nan, np.nan))
    end, before = (report.pooled(*zip(*part, strict=True)) for part in parts)
    return end, before


def _order(record: RunRecord, finals: Mapping[str, Lines], differs: str) -> list[Evidence]:
    """The LSTM above the transformers: at the end, at the start, on validation pairs, GPT-2."""
    found: list[Evidence] = []
    others = [name for name in finals if name.startswith("roberta")]
    paired = record.read("result.json")["paired"]
    if "lstm" not in finals or not others:
        return found

    def against(
        asked: Claim,
        numbers: Mapping[str, tuple[float, float]],
        field: str | None = None,
        how: str = "",
    ) -> None:
        lstm = numbers["lstm"]
        told = [
            below(numbers[name], lstm) if field is None else _paired(paired, name, field)
            for name in others
        ]
        said = ", ".join(
            f"{finals[name][0]['label']} {numbers[name][0]:.4f} ± {numbers[name][1]:.4f}"
            for name in ("lstm", *others)
        )
        found.append(Evidence(asked, said, None, all_hold(told), differs, how))

    every = {name: _number(lines, "sensitivity") for name, lines in finals.items()}
    against(claim(LATER, "LSTM", SENSITIVITY), every, "sensitivity")
    if all(AGAIN in finals[name][0] for name in others):
        again = {name: _number(finals[name], AGAIN) for name in others}
        numbers = {**again, "lstm": every["lstm"]}
        against(claim(LATER, "LSTM", SENSITIVITY), numbers, how=WAYS[AGAIN])
    validation = {name: _number(lines, "sensitivity_validation") for name, lines in finals.items()}
    asked = claim(LATER, "all", ORDER, setting="validation sentences")
    against(asked, validation, "sensitivity_validation")
    if all("sensitivity_variance_4" in lines[0] for lines in finals.values()):
        four = {name: _number(lines, "sensitivity_variance_4") for name, lines in finals.items()}
        against(claim(LATER, "all", ORDER, setting="noise of variance 4"), four)
    start = {
        name: _number([line for line in lines if line["step"] == 0], "sensitivity")
        for name, lines in by_model(record.read_metrics()).items()
        if name in finals
    }
    against(claim(LATER, "LSTM", "sensitivity at initialisation"), start)
    if "gpt2" in finals and "roberta" in finals:
        gpt2 = every["gpt2"]
        holds = all_hold([below(every["roberta"], gpt2), below(gpt2, every["lstm"])])
        said = f"{gpt2[0]:.4f} ± {gpt2[1]:.4f}"
        found.append(Evidence(claim(LATER, "GPT-2", SENSITIVITY), said, None, holds, differs))
        end, before = end_and_before(finals["gpt2"])
        rises = shown(end[0] - before[0], float(np.hypot(end[1], before[1])))
        said = f"{end[0]:.4f} in the last {END} positions, {before[0]:.4f} before"
        found.append(Evidence(claim(LATER, "GPT-2", POSITION), said, None, rises, differs))
    return found


def _paired(lines: Lines, model: str, field: str) -> bool | None:
    """Whether the network is below the LSTM, by differences text by text, pooled over seeds."""
    own = [x for x in lines if (x["model"], x["field"], x["against"]) == (model, field, "lstm")]
    if not own:
        return None
    value, error = report.pooled(*[[x[k] for x in own] for k in ("difference", "stderr")])
    return shown(-value, error)


ORDER = "order by sensitivity"
