"""The evaluation of a pre-trained model as people read it: beside what answers without a model score."""

import math
from collections.abc import Mapping

from bert_jax.tasks.baselines import BASELINE, BIGRAM, COPIER

_COPIER_IS, _NEIGHBOURS_ARE = "a copier without context", "the nearest visible neighbours, by counting"
_LEARNT_NOTHING = "the model has learnt nothing from the context"
_LEARNT_LITTLE = "the model reads less from the context than that"
# Metrics that are compared with baselines, each with the weakest first: the baseline, what it is, what it means not to
# beat it.
_COMPARED = (
    ("mlm_loss", "the masked-word loss", ((COPIER, f"that of {_COPIER_IS}", _LEARNT_NOTHING),)),
    (
        "mlm_hidden_loss",
        "the loss of hidden words",
        (
            (BASELINE, "that of their frequencies alone", _LEARNT_NOTHING),
            (BIGRAM, f"that of {_NEIGHBOURS_ARE}", _LEARNT_LITTLE),
        ),
    ),
    (
        "mlm_hidden_accuracy",
        "the accuracy of hidden words",
        (
            (BASELINE, "that of always the commonest word", _LEARNT_NOTHING),
            (BIGRAM, f"that of {_NEIGHBOURS_ARE}", _LEARNT_LITTLE),
        ),
    ),
    (
        "nsp_accuracy",
        "the next-sentence accuracy",
        ((BASELINE, "that of always the commoner answer", "the model cannot tell the next sentence"),),
    ),
)


def format_evaluation(metrics: Mapping[str, float]) -> str:
    """Returns a small table of the metrics of held-out rows and their baselines."""
    copier, frequencies, neighbours = (
        (COPIER, _COPIER_IS),
        (BASELINE, "unigram distribution"),
        (BIGRAM, _NEIGHBOURS_ARE),
    )
    commonest = (BASELINE, "always the commonest token")
    rows = [
        ("masked-LM accuracy", "mlm_accuracy", (copier,)),
        ("  where the answer is hidden", "mlm_hidden_accuracy", (commonest, neighbours)),
        ("masked-LM loss (nats)", "mlm_loss", (copier,)),
        ("  of hidden words", "mlm_hidden_loss", (frequencies, neighbours)),
        ("  of these, per character", "mlm_hidden_nats_per_character", (frequencies, neighbours)),
    ]
    if "nsp_accuracy_baseline" in metrics:
        rows.append(("next-sentence accuracy", "nsp_accuracy", ((BASELINE, "the commoner answer"),)))
    lines = [f"{'held-out documents':<30}{'model':>8}{'baseline':>12}"]
    for name, metric, baselines in rows:
        lines += [
            _line(name if not number else "", metrics[metric] if not number else None, metrics[metric + kind], what)
            for number, (kind, what) in enumerate(baselines)
        ]
    perplexities = (math.exp(min(metrics[name], 700)) for name in ("mlm_loss", f"mlm_loss{COPIER}"))
    lines.append(_line("masked-LM perplexity", *perplexities, _COPIER_IS))
    if "nsp_accuracy_baseline" in metrics:
        lines.append(_line("next-sentence loss (nats)", metrics["nsp_loss"], math.log(2), "an even guess"))
    return "\n".join([*lines, *shortfalls(metrics)])


def shortfalls(metrics: Mapping[str, float]) -> list[str]:
    """Says of each metric that is not better than a baseline which one, and what that means; one line each."""
    lines = []
    for metric, name, baselines in _COMPARED:
        wanted, sign = ("below", 1) if metric.endswith("loss") else ("above", -1)
        for kind, what, meaning in baselines:
            # One that is 0 is of no words. Written so that a loss which is no number is not better than anything.
            baseline = metrics.get(metric + kind)
            if baseline and not sign * metrics[metric] < sign * baseline:
                lines.append(
                    f"{name}, {metrics[metric]:.4g}, is not {wanted} {what}, {baseline:.4g}: {meaning}; train longer,"
                    " or with another recipe"
                )
                break
    return lines


def _line(name: str, value: float | None, baseline: float, what: str) -> str:
    return f"{name:<30}{'' if value is None else f'{value:.4f}':>8}{baseline:>12.4f}  {what}"
