"""Tables of a comparison: what is bold, what is marked, what is never hidden."""

import copy
import csv
import io

import pytest

from mmcl.evaluation.published_results import PublishedResult
from mmcl.evaluation.summary import summarise
from mmcl.runs.comparison_tables import CSV_COLUMNS, csv_table, latex_table, markdown_table


def summary(*values):
    return summarise(values).as_dict()


def line(name, metric, difference, p_holm, better):
    return {
        "name": name,
        "metric": metric,
        "difference": difference,
        "low": difference - 0.01,
        "high": difference + 0.01,
        "p_bootstrap": p_holm / 2,
        "p_wilcoxon": None,
        "p_mcnemar": 0.25,
        "p_holm": p_holm,
        "better": better,
        "notes": [],
    }


@pytest.fixture
def content():
    return {
        "kind": "comparison",
        "corpus": {"name": "planted"},
        "preset": "mmsa",
        "metrics": ["mae", "acc2_non0"],
        "reference": "calibrated",
        "seeds": [1, 2, 3],
        "test_clips": 600,
        "floor": {"acc2_non0": 0.0163},
        "rows": [
            {
                "name": "calibrated",
                "question": None,
                "kind": "model",
                "settings": [],
                "seeds_done": 3,
                "diverged": {},
                "valid": {"mae": summary(0.5, 0.5, 0.5)},
                "test": {
                    "mae": summary(0.5, 0.6, 0.7),
                    "acc2_non0": summary(0.8, 0.82, 0.81),
                    "corr": summary(0.7, 0.7, 0.7),
                },
                "cost": {
                    "parameters": 12345,
                    "train_seconds": 6.25,
                    "predict_clips_per_second": 2400.4,
                    "peak_memory_mib": None,
                },
            },
            {
                "name": "self_mm",
                "question": None,
                "kind": "model",
                "settings": [],
                "seeds_done": 2,
                "diverged": {"2": "the loss is nan at epoch 3, step 4"},
                "valid": {"mae": summary(0.9, 0.9)},
                "test": {"mae": summary(0.9, 1.0), "acc2_non0": summary(0.8, 0.81)},
                "cost": None,
            },
            {
                "name": "constant",
                "question": None,
                "kind": "reference",
                "settings": [],
                "seeds_done": 1,
                "diverged": {},
                "valid": {"mae": summary(1.4)},
                "test": {"mae": summary(1.4), "acc2_non0": summary(float("nan"))},
                "cost": None,
            },
        ],
        "tests": [
            line("self_mm", "mae", 0.35, 0.01, "calibrated"),
            line("self_mm", "acc2_non0", -0.005, 0.8, None),
            line("constant", "mae", 0.8, 0.002, "calibrated"),
        ],
        "best": {"mae": "calibrated", "acc2_non0": None},
        "workers": 2,
        "notes": ["a note of the whole table"],
        "environment": {},
    }


@pytest.fixture
def published():
    def one(metric, value, selection="T", note=""):
        source = "its paper, as quoted"
        return PublishedResult("mosi", "ALMT", metric, value, "bert", "-", selection, source, note)

    return [one("mae", 0.683), one("acc7", 0.4942), one("acc2_non0", 0.8643, note="a remark")]


def test_markdown_word_for_word(content):
    assert markdown_table(content) == "\n".join(
        [
            "| model | MAE ↓ | Acc-2 non0 (%) ↑ | seeds | parameters | training, s "
            "| clips/s predicted |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            "| calibrated | **0.600 ± 0.100** | 81.00 ± 1.00 | 3 | 12,345 | 6.2 | 2,400 |",
            "| self\\_mm | 0.950 ± 0.071† | 80.50 ± 0.71 | 2 of 3 seeds | – | – | – |",
            "| constant | 1.400† | – | – | – | – | – |",
            "",
            "- planted, 600 test clips, preset mmsa: mean ± s.d. over the seeds that finished",
            "- † significantly different from calibrated (p < .05 after Holm)",
            "- bold: significantly better than every other row",
            "- s.e. that the choice of test clips alone causes, points: Acc-2 non0 1.63",
            "- self_mm, seed 2 diverged and is not in the mean: the loss is nan at epoch 3, step 4",
            "- a note of the whole table",
            "",
        ]
    )


def test_nothing_is_bold_without_best(content):
    content["best"] = {"mae": None}
    assert "**" not in markdown_table(content)
    assert "textbf" not in latex_table(content)


def test_a_dagger_needs_a_verdict(content):
    for test in content["tests"]:
        test["better"] = None
    rows = [each for each in markdown_table(content).splitlines() if each.startswith("|")]
    assert "†" not in "".join(rows)


def test_seeds_without_a_value_are_counted(content):
    content["rows"][0]["test"]["acc2_non0"] = summary(0.8, float("nan"), 0.81)
    assert "| 80.50 ± 0.71 (2 of 3 seeds) |" in markdown_table(content)


def test_ablation_shows_its_questions(content):
    content["rows"][1]["question"] = "does decoupling | help?"
    lines = markdown_table(content).splitlines()
    assert lines[0].startswith("| model | question | MAE ↓ |")
    assert lines[3].startswith("| self\\_mm | does decoupling \\| help? | 0.950")
    assert lines[2].startswith("| calibrated |  | **0.600")


def test_published_numbers_are_a_block_of_their_own(content, published):
    text = markdown_table(content, published=published)
    assert (
        "Published by others, not run here:\n\n"
        "| model | MAE ↓ | Acc-2 non0 (%) ↑ | source |\n| --- | --- | --- | --- |\n"
        "| ALMT | 0.683 | 86.43 | its paper, as quoted; bert; epoch chosen on the test split; "
        "a remark |\n"
    ) in text
    assert "49.42" not in text  # not a metric of this table
    assert markdown_table(content, published=published[1:2]) == markdown_table(content)
    content["best"] = {"mae": "ALMT"}
    assert "**0.683**" not in markdown_table(content, published=published)


def test_latex_word_for_word(content, published):
    lines = latex_table(content, published=published).splitlines()
    assert lines[:5] == [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"model & MAE $\downarrow$ & Acc-2 non0 (\%) $\uparrow$ & seeds & parameters "
        r"& training, s & clips/s predicted \\",
    ]
    assert lines[6:9] == [
        r"calibrated & \textbf{0.600 $\pm$ 0.100} & 81.00 $\pm$ 1.00 & 3 & 12,345 & 6.2 "
        r"& 2,400 \\",
        r"self\_mm & 0.950 $\pm$ 0.071$^{\dagger}$ & 80.50 $\pm$ 0.71 & 2 of 3 seeds & -- & -- "
        r"& -- \\",
        r"constant & 1.400$^{\dagger}$ & -- & -- & -- & -- & -- \\",
    ]
    assert lines[9:12] == [
        r"\midrule",
        r"\multicolumn{7}{l}{Published by others, not run here} \\",
        r"ALMT & 0.683 & 86.43 & \multicolumn{4}{l}{its paper, as quoted; bert; "
        r"epoch chosen on the test split; a remark} \\",
    ]
    assert lines[12:14] == [r"\bottomrule", r"\end{tabular}"]
    assert lines[14].startswith(r"\caption{planted, 600 test clips")
    assert r"$<$ .05 after Holm" in lines[14]
    assert lines[15] == r"\end{table}"


def test_latex_escapes_what_users_write(content):
    content["rows"][1]["name"] = r"a\b&c%d$e#f_g{h}i~j^k"
    expected = r"a\textbackslash{}b\&c\%d\$e\#f\_g\{h\}i\textasciitilde{}j\textasciicircum{}k"
    assert expected in latex_table(content)


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_per_model_and_metric(content):
    lines = read(csv_table(content))
    assert list(lines[0]) == list(CSV_COLUMNS)
    assert [(each["model"], each["metric"]) for each in lines] == [
        ("calibrated", "mae"),
        ("calibrated", "acc2_non0"),
        ("calibrated", "corr"),
        ("self_mm", "mae"),
        ("self_mm", "acc2_non0"),
        ("constant", "mae"),
        ("constant", "acc2_non0"),
    ]


def test_csv_rounds_nothing_and_fills_nothing(content):
    content["rows"][1]["test"]["mae"]["mean"] = 1 / 3
    first, *_, last = (each for each in read(csv_table(content)) if each["metric"] == "mae")
    second = read(csv_table(content))[3]
    assert float(second["mean"]) == 1 / 3
    expected = {
        "seeds_valid": "2",
        "seeds_done": "2",
        "seeds_asked": "3",
        "difference": "0.35",
        "p_bootstrap": "0.005",
        "p_wilcoxon": "",
        "p_mcnemar": "0.25",
        "p_holm": "0.01",
        "better": "calibrated",
        "best": "False",
        "parameters": "",
        "split": "test",
        "note": "seed 2 diverged: the loss is nan at epoch 3, step 4",
    }
    assert {key: second[key] for key in expected} == expected
    assert (first["best"], first["difference"], first["parameters"]) == ("True", "", "12345")
    assert (first["predict_clips_per_second"], first["peak_memory_mib"]) == ("2400.4", "")
    assert (last["std"], last["low"]) == ("", "")


def test_csv_has_no_formula_and_its_numbers_stay_numbers(content, published):
    content["corpus"]["name"] = "=1+1"
    *lines, last = read(csv_table(content, published=[published[0]._replace(note="@SUM(A1)")]))
    assert {line["corpus"] for line in lines} == {"'=1+1"}
    assert last["note"] == "'@SUM(A1)"
    assert "-0.005" in {line["difference"] for line in lines}


def test_csv_of_validation_has_no_tests(content):
    lines = read(csv_table(content, split="valid"))
    assert [each["mean"] for each in lines] == ["0.5", "0.9", "1.4"]
    assert {each["p_holm"] + each["best"] + each["parameters"] for each in lines} == {""}


def test_csv_marks_published_numbers(content, published):
    *_, last = read(csv_table(content, published=published))
    expected = {
        "kind": "published",
        "corpus": "mosi",
        "model": "ALMT",
        "metric": "acc2_non0",
        "mean": "0.8643",
        "selection": "T",
        "source": "its paper, as quoted",
        "note": "a remark",
        "best": "",
        "higher_is_better": "True",
    }
    assert {key: last[key] for key in expected} == expected


def test_content_is_left_as_it_was(content, published):
    before = copy.deepcopy(content)
    for write in (markdown_table, latex_table, csv_table):
        write(content, published=published)
    assert content == before
