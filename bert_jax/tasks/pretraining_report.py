"""The evaluation of a pre-trained model as people read it: beside what knowing nothing would score."""

import math
from collections.abc import Mapping


def format_evaluation(metrics: Mapping[str, float]) -> str:
    """Returns a small table of the metrics of held-out rows and their baselines."""
    rows = [
        ("masked-LM accuracy", metrics["mlm_accuracy"], metrics["mlm_accuracy_baseline"], "always the commonest token"),
        (
            "  where the answer is hidden",
            metrics["mlm_hidden_accuracy"],
            metrics["mlm_hidden_accuracy_baseline"],
            "always the commonest token",
        ),
        ("masked-LM loss (nats)", metrics["mlm_loss"], metrics["mlm_loss_baseline"], "unigram distribution"),
        (
            "masked-LM perplexity",
            math.exp(min(metrics["mlm_loss"], 700)),
            math.exp(metrics["mlm_loss_baseline"]),
            "unigram distribution",
        ),
    ]
    if "nsp_accuracy_baseline" in metrics:
        rows.append(
            ("next-sentence accuracy", metrics["nsp_accuracy"], metrics["nsp_accuracy_baseline"], "the commoner answer")
        )
        rows.append(("next-sentence loss (nats)", metrics["nsp_loss"], math.log(2), "an even guess"))
    lines = [f"{'held-out documents':<28}{'model':>10}{'baseline':>12}"]
    lines += [f"{name:<28}{value:>10.4f}{baseline:>12.4f}  {what}" for name, value, baseline, what in rows]
    return "\n".join(lines)
