"""Published numbers: how many there are, what they may be, and cells read by eye."""

from collections import Counter

import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.evaluation.item_sums import summable_metrics
from mmcl.evaluation.metrics import higher_is_better
from mmcl.evaluation.published_results import published_datasets, published_results

SCORE = Task(kind="regression", low=-3.0, high=3.0)
EMOTIONS = Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry"))
UNSAID = "the source does not say what becomes of zero labels"
INFEASIBLE = "infeasible: no confusion matrix has this accuracy and this F1"


@pytest.fixture(scope="module")
def everything():
    return [each for name in published_datasets() for each in published_results(name)]


@pytest.fixture(scope="module")
def look_up(everything):
    cells = {(e.dataset, e.model, e.metric, e.source): e for e in everything}

    def find(dataset, model, metric, source="MMSA result-stat.md, five seeds"):
        return cells[dataset, model, metric, source]

    return find


def test_number_of_cells():
    found = {name: len(published_results(name)) for name in published_datasets()}
    assert found == {"mosi": 302, "mosei": 217, "sims": 137, "simsv2": 79, "iemocap": 56}


def test_cells_of_the_one_framework_are_complete(everything):
    # Eleven models with eight metrics twice, thirteen with six twice.
    inside = Counter(e.dataset for e in everything if e.source.startswith("MMSA"))
    assert inside == {"mosi": 88, "mosei": 88, "sims": 78, "simsv2": 78}


def test_no_cell_is_there_twice(everything):
    count = Counter((e.dataset, e.model, e.metric, e.source) for e in everything)
    assert [cell for cell, times in count.items() if times > 1] == []


def test_values_are_fractions_and_errors_in_the_label_s_unit(everything):
    for each in everything:
        low, high = {"mae": (0.25, 1.1), "corr": (0.05, 0.89)}.get(each.metric, (0.2, 0.93))
        assert low <= each.value <= high, each


def test_columns_hold_what_they_may(everything):
    for each in everything:
        assert each.text in {"glove", "bert", "roberta", "qwen", "-"}
        assert each.alignment in {"aligned", "unaligned", "-"}
        assert each.selection in {"V", "T", "?", "-"}
        assert each.model
        assert each.model == each.model.strip("* ")
        assert each.source
        higher_is_better(each.metric)


def test_metrics_are_keys_of_ours(everything):
    mmsa, sims = summable_metrics(SCORE), summable_metrics(SCORE, preset="sims")
    for each in everything:
        if each.dataset == "iemocap":
            assert each.metric in summable_metrics(EMOTIONS)
        elif each.dataset.startswith("sims"):
            assert each.metric in sims
        elif each.metric in ("acc2", "f1"):
            assert each.note.startswith(UNSAID)
        else:
            assert each.metric in mmsa


@pytest.mark.parametrize(
    ("dataset", "model", "metric", "value"),
    [
        ("mosi", "MISA", "mae", 0.7765),
        ("mosi", "EF-LSTM", "acc2_has0", 0.7738),
        ("mosi", "EF-LSTM", "f1_has0", 0.7735),
        ("mosi", "EF-LSTM", "acc2_non0", 0.7848),
        ("mosi", "EF-LSTM", "f1_non0", 0.7851),
        ("mosi", "Self-MM", "acc7", 0.4667),
        ("mosi", "CENet", "corr", 0.7953),
        ("mosei", "TETFN", "acc5", 0.5578),
        ("mosei", "LMF", "mae", 0.5757),
        ("sims", "MTFN", "acc2", 0.8109),
        ("sims", "MulT", "f1", 0.7966),
        ("simsv2", "EF-LSTM", "acc2", 0.7894),
        ("simsv2", "MulT", "mae", 0.2905),
        ("simsv2", "CENet", "corr", 0.6994),
    ],
)
def test_cells_of_the_one_framework(look_up, dataset, model, metric, value):
    assert look_up(dataset, model, metric).value == value
    assert look_up(dataset, model, metric).selection == "V"


@pytest.mark.parametrize(
    ("dataset", "model", "metric", "source", "value", "selection"),
    [
        ("mosi", "MulT", "acc2", "its paper, as quoted", 0.83, "V"),
        ("mosi", "TFN", "acc2_non0", "MISA paper, re-run with BERT", 0.808, "?"),
        ("mosi", "ALMT", "acc5", "its paper, as quoted", 0.5641, "T"),
        ("mosi", "MMIM", "mae", "its paper, as quoted", 0.7, "T"),
        ("mosei", "DMD", "mae", "DLF paper, re-run", 0.543, "?"),
        ("mosi", "MAG-BERT", "acc2_non0", "GSIFN paper, re-run in MMSA", 0.843, "?"),
        ("sims", "MISA", "acc3", "GSIFN paper, re-run in MMSA", 0.624, "?"),
        ("mosei", "MISA", "f1_non0", "SemMSA appendix at missing rate 0, three seeds", 0.851, "?"),
        ("sims", "TETFN", "acc3", "SemMSA appendix at missing rate 0, three seeds", 0.6586, "?"),
        ("mosi", "MMML with context", "mae", "its repository, three seeds", 0.5573, "V"),
        ("mosei", "KD-MSA", "mae", "Symmetry 17 (2025) 1401", 0.5299, "?"),
        ("iemocap", "MulT", "f1_sad", "MulT paper", 0.86, "?"),
        ("iemocap", "LMF", "f1_angry", "as quoted, F1 only", 0.89, "?"),
        ("iemocap", "Constant absent", "accuracy_happy", "counted on the labels", 0.856, "-"),
    ],
)
def test_cells_of_papers(look_up, dataset, model, metric, source, value, selection):
    found = look_up(dataset, model, metric, source)
    assert (found.value, found.selection) == (value, selection)


def test_what_sources_contradict_is_left_out(everything):
    swapped = [
        e
        for e in everything
        if (e.dataset, e.metric) == ("mosei", "corr") and e.source.startswith("MISA paper")
    ]
    assert swapped == []


def test_rows_that_cannot_be_say_so(look_up):
    lnln = "SemMSA appendix at missing rate 0, three seeds"
    assert look_up("mosi", "LNLN", "f1_has0", lnln).note == INFEASIBLE
    assert look_up("mosi", "Self-MM", "f1_has0", "its paper, as quoted").note == INFEASIBLE
    assert look_up("sims", "EF-LSTM", "acc2").note.startswith("collapsed")


def test_unknown_data_set_is_refused():
    with pytest.raises(ConfigError) as caught:
        published_results("mosey")
    assert str(caught.value) == (
        'no published results of "mosey"; did you mean "mosei"?\n'
        "  There are some of: mosi, mosei, sims, simsv2, iemocap"
    )
