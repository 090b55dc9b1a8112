"""What several runs came to: ranks, means and deviations, tables, names and the figure."""

import numpy as np
import pytest

from bert_jax.tasks.sweep_figure import draw_sweep
from bert_jax.tasks.sweep_results import RunResult, Setting, SweepResults


def _results(values, larger_is_better=True, **others):
    """From learning rate to the metric of each seed; None for a run that failed."""
    runs = [
        RunResult(Setting(rate, 16, 3.0), seed, failure="it diverged")
        if value is None
        else RunResult(Setting(rate, 16, 3.0), seed, {"loss": 9.0, "f1": value}, 10 * seed, 60.0 + seed)
        for rate, given in values.items()
        for seed, value in enumerate(given)
    ]
    return SweepResults("f1", larger_is_better, runs, len(runs), **others)


@pytest.mark.parametrize(("larger_is_better", "order"), [(True, [3e-5, 5e-5, 2e-5]), (False, [5e-5, 3e-5, 2e-5])])
def test_the_best_mean_comes_first_and_what_failed_last(larger_is_better, order):
    results = _results({5e-5: (0.5, 0.6, 0.1), 3e-5: (0.5, 0.55, 0.5), 2e-5: (None, None, None)}, larger_is_better)
    assert [result.setting.learning_rate for result in results.settings()] == order
    assert results.best.setting.learning_rate == order[0]
    best = {5e-5: 0.6, 3e-5: 0.55} if larger_is_better else {5e-5: 0.1, 3e-5: 0.5}
    for result in results.settings()[:2]:
        assert result.mean == pytest.approx(np.mean(result.values), abs=1e-12)
        assert result.deviation == pytest.approx(np.std(result.values, ddof=1), abs=1e-12)
        assert result.best.metrics["f1"] == best[result.setting.learning_rate]


def test_failed_runs_are_counted_and_said():
    results = _results({5e-5: (0.5, None, 0.7), 3e-5: (0.4,)}, baseline=0.25)
    first, second = results.to_json()["settings"]
    assert (first["mean"], first["runs"], first["runs_failed"]) == (pytest.approx(0.6), 2, 1)
    assert first["minutes_per_run"] == pytest.approx(61 / 60)
    assert second["standard_deviation"] is None and second["mean"] == 0.4
    assert "lr5e-05_batch16_epochs3_seed1 failed: it diverged" in results.notes()
    assert "Never looking at the text: f1 0.2500." in results.to_markdown()
    table = results.table()
    assert len({len(line) for line in table}) == 1 and len(table) == 4
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == [
        *("5e-05", "16", "3", "0.6000", "0.1414", "2 (1 failed)", "0.7000", "1.02")
    ]
    assert [cell.strip() for cell in table[3].split("|")[4:7]] == ["0.4000", "-", "1"]


def test_names_tell_settings_apart():
    settings = [
        Setting(rate, batch_size, epochs)
        for rate in (2e-5, 3e-5, 1.2345678e-5, 1.2345679e-5, 1e-3)
        for batch_size in (1, 11, 16)
        for epochs in (0.5, 1, 3.0, 3.25)
    ]
    assert len({setting.run_name(seed) for setting in settings for seed in (0, 1, 11)}) == 3 * len(settings)
    assert Setting(3e-5, 16, 3.0).run_name(1) == "lr3e-05_batch16_epochs3_seed1"


def test_the_figure(tmp_path):
    from matplotlib.image import imread

    draw = np.random.default_rng(0)
    runs = [
        RunResult(Setting(rate, batch_size, epochs), seed, {"f1": draw.normal(0.8, 0.01)}, 1, 1.0)
        for rate in (2e-5, 3e-5, 5e-5)
        for batch_size in (16, 32)
        for epochs in (2.0, 3.0, 4.0, 5.0)
        for seed in range(3)
    ]
    shapes = []
    for chosen in (runs, runs[:1]):
        draw_sweep(SweepResults("f1", True, chosen, len(runs), 0.79), tmp_path / "sweep.png")
        shapes.append(imread(tmp_path / "sweep.png").shape)
    # Four panels in two rows, or one.
    assert shapes[0][0] > 1.5 * shapes[1][0] and shapes[0][1] > 1.5 * shapes[1][1]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.png"]
    with pytest.raises(ValueError, match="no run has metrics"):
        draw_sweep(_results({5e-5: (None,)}), tmp_path / "none.png")
