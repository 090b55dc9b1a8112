"""Predictions as files, written one after the other: JSON lines, or the answers alone as SQuAD's evaluators read."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

LINES, SQUAD = FORMATS = ("jsonl", "squad")


def write_predictions(file: TextIO, predictions: Iterable[Mapping[str, Any]], format: str) -> int:
    """Writes predictions as they come, and returns how many there were.

    Args:
        file: where to.
        predictions: of `FineTuningTask.predictions`; for SQUAD those of question answering.
        format: LINES, one JSON object a line; or SQUAD, one object of answers by the questions' ids, "" for none.
    """
    count = 0
    if format == SQUAD:
        file.write("{")
    for prediction in predictions:
        if format == SQUAD:
            answer = json.dumps(prediction["answer"], ensure_ascii=False)
            file.write(f"{',' if count else ''}\n{json.dumps(prediction['id'], ensure_ascii=False)}: {answer}")
        else:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
        count += 1
    if format == SQUAD:
        file.write("\n}\n")
    return count
