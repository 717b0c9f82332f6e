"""`hero-plugin table`: any models side by side, over seeds and sets, and what does not belong together."""

from __future__ import annotations

import csv
import io
import json

import pytest

from hero_plugin.integrations import cli
from hero_plugin.integrations.data.annotations import write_annotations
from hero_plugin.integrations.data.records import Record
from tests.support.test_tables import check_latex

QUERIES = 24
SENTENCES = ("person opens a door", "person opens a crate", "human opens a crate", "person opens a box")


def submission(right: int) -> str:
    """The first so many queries answered right, the others wrong."""
    windows = [[10, 20, 1.0] if number < right else [40, 50, 1.0] for number in range(QUERIES)]
    lines = [{"qid": number, "pred_relevant_windows": [window]} for number, window in enumerate(windows)]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Annotations of two sets, and submissions h-0, h-1 (right on 24 and 23) and b-0, b-1, b-2 (on 6, 7 and 8)."""
    for name in ("ood", "iid"):
        records = [
            Record(str(number), f"{name}{number}", SENTENCES[number % 4], ((10.0, 20.0),), 60.0)
            for number in range(QUERIES)
        ]
        write_annotations(records, tmp_path / f"{name}.jsonl", format="qvhighlights")
    (tmp_path / "train.txt").write_text("A 0 5##person opens a door.\nA 6 9##person opens a box.\n")
    for name, right in {"h-0": 24, "h-1": 23, "b-0": 6, "b-1": 7, "b-2": 8}.items():
        (tmp_path / f"{name}.jsonl").write_text(submission(right))
        scores = {"ood": {"R1@0.5": right * 100 / QUERIES, "mIoU": 40.0}}
        (tmp_path / f"{name}.json").write_text(json.dumps({"run": name, "scores": scores}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tabulate(capsys, *words: str) -> tuple[int, str, str]:
    status = cli.main(["table", *words, *(["--resamples", "200"] if "--annotations" in words else [])])
    return status, *capsys.readouterr()


def rows_of(out: str) -> dict[str, dict[str, str]]:
    return {(row["set"], row.get("group", "all"), row["model"]): row for row in csv.DictReader(io.StringIO(out))}


TWO_SEEDS = ["HERO=h-0.jsonl", "HERO=h-1.jsonl", "base=b-0.jsonl", "base=b-1.jsonl", "--annotations", "ood.jsonl"]


def test_submissions_have_mean_deviation_and_paired_difference(here, capsys):
    status, out, err = tabulate(capsys, *TWO_SEEDS, "--format", "csv")
    assert (status, err) == (0, "")
    rows = rows_of(out)
    hero, gain = rows["ood", "all", "HERO"], rows["ood", "all", "HERO minus base"]
    assert float(hero["R1@0.5"]) == pytest.approx((24 + 23) * 50 / QUERIES, abs=1e-3)
    assert float(hero["R1@0.5 std"]) == pytest.approx(100 / QUERIES / 2**0.5, abs=1e-3)
    assert float(gain["R1@0.5"]) == pytest.approx((18 + 16) * 50 / QUERIES, abs=1e-3)
    assert float(gain["R1@0.5 low"]) < float(gain["R1@0.5"]) < float(gain["R1@0.5 high"])
    assert {group for _, group, _ in rows} == {"all"}  # which words are unseen is not known


def test_latex_comes_alone_and_by_unseen_words_with_the_training(here, capsys):
    words = ["HERO=h-0.jsonl", "base=b-0.jsonl", "--annotations", "ood.jsonl", "--train", "train.txt"]
    status, out, err = tabulate(capsys, *words, "--format", "latex", "--metrics", "R1@0.5", "mIoU")
    assert (status, err) == (0, "")
    rows = check_latex(out, 7)
    assert [row[1] for row in rows if row[1]] == ["Group", "all", "0 unseen", "1 unseen", "2+ unseen"]
    assert rows[1][4:6] == ["HERO", r"\textbf{100.0} {\scriptsize $[100.0, 100.0]$}"]
    assert rows[2][4] == "HERO minus base" and rows[2][5].endswith("$^{*}$")


def test_several_sets_are_told_apart_by_name(here, capsys):
    for name in ("ood", "iid"):
        (here / f"h-0-{name}.jsonl").write_text(submission(12))
        (here / f"b-0-{name}.jsonl").write_text(submission(6 if name == "ood" else 12))
    words = [
        f"{model}@{of}={file}-0-{of}.jsonl" for model, file in (("HERO", "h"), ("base", "b")) for of in ("ood", "iid")
    ]
    files = ["--annotations", "ood.jsonl", "iid.jsonl"]
    status, out, _ = tabulate(capsys, *words, *files, "--format", "csv")
    rows = rows_of(out)
    assert status == 0
    assert [float(rows[of, "all", "HERO minus base"]["mIoU"]) for of in ("ood", "iid")] == [25, 0]
    status, _, err = tabulate(capsys, *words[:3], *files)
    assert status == 2 and "base has nothing of the set 'iid'" in err
    status, _, err = tabulate(capsys, "HERO=h-0.jsonl", "base=b-0.jsonl", *files)
    assert status == 2 and "h-0.jsonl: which of ood, iid does it answer?" in err


def test_predictions_of_a_run_are_read_by_their_set(here, capsys):
    lines = [
        {"set": "ood", "query_id": str(n), "video_id": f"ood{n}", "sentence": "", "moment": [10, 20], "score": 1.0}
        for n in range(QUERIES)
    ]
    (here / "emb.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["EMB=emb.jsonl", "base=b-0.jsonl", "--annotations", "ood.jsonl", "--format", "csv"]
    status, out, _ = tabulate(capsys, *words)
    assert status == 0 and float(rows_of(out)["ood", "all", "EMB minus base"]["mIoU"]) == 75
    (here / "emb.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    status, _, err = tabulate(capsys, *words)
    assert status == 2 and "emb.jsonl: not the queries of ood.jsonl: 1 of its 24 are missing" in err
    wrong = [(dict(lines[0], moment=each), "[start, end]") for each in ([1, 2, 0.9], [None, 2], ["1", 2], 1)]
    for changed, said in (*wrong, (lines[1], "twice")):
        (here / "emb.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines[1:], changed]))
        status, _, err = tabulate(capsys, *words)
        assert status == 2 and said in err


def test_answers_to_other_sentences_under_the_same_ids_are_refused(here, capsys):
    def write(*changed: str) -> None:
        said = [*changed, *(SENTENCES[number % 4] for number in range(len(changed), QUERIES))]
        lines = [
            {
                "set": "ood",
                "query_id": str(n),
                "video_id": f"ood{n}",
                "sentence": each,
                "moment": [10, 20],
                "score": 1.0,
            }
            for n, each in enumerate(said)
        ]
        (here / "emb.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    words = ["EMB=emb.jsonl", "base=b-0.jsonl", "--annotations", "ood.jsonl", "--format", "csv"]
    write("Person  opens a door.")  # spelled otherwise, and the same
    assert tabulate(capsys, *words)[0] == 0
    write("a dog runs")
    status, _, err = tabulate(capsys, *words)
    assert status == 2 and "emb.jsonl: answers other queries than ood.jsonl has: the sentences of 1 of 24 differ" in err
    assert "query 0: 'a dog runs', not 'person opens a door'" in err


def test_moments_count_as_annotated_and_what_is_scored_otherwise_is_said(here, capsys):
    lines = [json.loads(line) for line in (here / "ood.jsonl").read_text().splitlines()]
    lines[0] |= {"relevant_windows": [[10, 20], [5, 4]], "duration": 15}
    (here / "cut.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["HERO=h-0.jsonl", "--annotations", "cut.jsonl", "--on-broken", "drop", "--format", "csv"]
    status, out, err = tabulate(capsys, *words)
    assert status == 0 and float(rows_of(out)["cut", "all", "HERO"]["mIoU"]) == 100
    assert "left out 1 windows of queries of cut.jsonl" in err
    answers = [json.loads(line) for line in submission(QUERIES).splitlines()]
    answers[0]["pred_relevant_windows"] = [[0, 1, 0.1], [10, 20, 0.9]]
    (here / "odd.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    status, _, err = tabulate(capsys, "HERO=odd.jsonl", "--annotations", "ood.jsonl", "--format", "csv")
    assert status == 0 and "odd.jsonl" in err and "score" in err


def test_scores_are_tested_over_the_seeds(here, capsys):
    words = ["HERO=h-0.json", "HERO=h-1.json", "base=b-0.json", "base=b-1.json", "base=b-2.json"]
    status, out, err = tabulate(capsys, *words, "--format", "csv")
    assert status == 0
    assert err == "note: compared by the seeds of both: HERO has seeds 0, 1; base has seeds 0, 1, 2\n"
    gain = rows_of(out)["ood", "all", "HERO minus base"]
    # 18 and 16 queries of 24: their mean, and the interval of Student's t with one degree of freedom.
    assert float(gain["R1@0.5"]) == pytest.approx(17 * 100 / QUERIES)
    assert float(gain["R1@0.5 high"]) == pytest.approx((17 + 12.7062) * 100 / QUERIES, abs=1e-2)
    status, out, _ = tabulate(capsys, "A=h-0.json", "B=b-2.json", "--format", "csv")
    assert status == 0 and float(rows_of(out)["ood", "all", "B minus A"]["R1@0.5"]) < 0  # the first is the reference
    (here / "share.json").write_text(json.dumps({"ood": {"mIoU": 0.41}}))
    status, _, err = tabulate(capsys, "A=share.json", "B=b-2.json", "--format", "csv", "--metrics", "mIoU")
    assert status == 0 and err == "note: mIoU is 0.41 in one file and 40 in another: a share, and percent?\n"


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ({"R1@0.5": 50.0, "title": "text"}, {"": {"R1@0.5": 50.0}}),
        ({"brief": {"MR-full-mAP": 30.0}, "full": {"MR-mAP": {"0.5": 1.0}}}, {"": {"MR-full-mAP": 30.0}}),
        ({"best": {"val": {"mIoU": 1}}, "last": {"val": {"mIoU": 2}}, "best_epoch": 3}, {"val": {"mIoU": 1}}),
    ],
)
def test_files_of_scores_have_one_of_several_forms(here, capsys, scores, found):
    (here / "s.json").write_text(json.dumps(scores))
    status, out, _ = tabulate(capsys, "A=s.json", "--format", "json")
    assert status == 0
    (row,) = json.loads(out)["rows"]
    ((of, values),) = found.items()
    assert row["set"] == of
    assert {name: figure["value"] for name, figure in row["figures"].items()} == values


def test_a_set_that_is_named_is_the_one_of_the_file_that_has_one(here, capsys):
    for name, score in {"h-iid": 50, "h-ood": 30}.items():
        (here / f"{name}.json").write_text(json.dumps({"test": {"mIoU": score}}))
    status, out, err = tabulate(capsys, "H@iid=h-iid.json", "H@ood=h-ood.json", "--format", "csv")
    assert "note: h-ood.json: its set is named 'test', and is taken as 'ood', as asked" in err.splitlines()
    rows = rows_of(out)
    assert status == 0
    assert [float(rows[of, "all", "H"]["mIoU"]) for of in ("iid", "ood")] == [50, 30]


def test_files_are_written_and_drawn(here, capsys):
    status, out, _ = tabulate(capsys, *TWO_SEEDS, "--output", "t.tex", "t.csv", "t.md", "t.json", "--figure", "t.pdf")
    assert status == 0 and "drawn: t.pdf" in out
    check_latex((here / "t.tex").read_text(), 9)
    assert (here / "t.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((here / "t.json").read_text())["rows"][0]["model"] == "HERO"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to tabulate: hero-plugin table HERO=h-0.jsonl"),
        (["h-0.jsonl"], "h-0.jsonl: give each file the name of its model"),
        (["HERO=h-0.jsonl", "--annotations", "none.jsonl"], "none.jsonl"),
        (["HERO=h-0.jsonl", "--annotations", "."], "no annotation file at ."),
        (["HERO=none.jsonl"], "no such file"),
        (["HERO=h-{0,1}.jsonl"], "a shell such as bash or zsh reads {0,1}, outside of quotes"),
        (["HERO=."], "a run is tabulated by hero-plugin eval --run"),
        (["HERO=h-0.jsonl", "base=h-0.jsonl"], "given twice"),
        (["HERO=h-0.jsonl", "HERO=b-1.jsonl", "--annotations", "ood.jsonl"], "differ in the seed's number alone"),
        (["HERO=h-0.jsonl", "HERO=h-1.jsonl", "base=plain.jsonl", "--annotations", "ood.jsonl"], "which seed is it?"),
        (["HERO=h-0.jsonl"], "--annotations is missing"),
        (
            ["HERO=h-0.jsonl", "base=b-0.json", "--annotations", "ood.jsonl"],
            "b-0.json holds scores, others hold answers",
        ),
        (["HERO=h-0.json", "--train", "train.txt"], "files of scores have no queries"),
        (["HERO=h-0.jsonl", "--annotations", "ood.jsonl", "--against", "bse"], "no such model; there are HERO"),
        (["HERO=h-0.jsonl", "--annotations", "ood.jsonl", "--metrics", "R5"], "--metrics R5: not there"),
        (["HERO=h-0.jsonl", "--annotations", "ood.jsonl", "--figure", "t.svg"], "a figure is a .png or a .pdf"),
        (["HERO@all=h-0.jsonl", "--annotations", "ood.jsonl"], "no set 'all'; there are ood"),
        (["HERO=h-0.json", "--seed", "3"], "--seed is for submissions"),
        (["HERO=empty.json"], "no scores found"),
        (["HERO=text.json"], "mIoU of the set 'ood' is the text '10.0': write it as a number"),
        (["HERO=h-0.json", "HERO=some-1.json"], "differ in the seed's number alone"),
        (["HERO=some-0.json", "HERO=some-1.json"], "HERO, ood: no mIoU under seed 1, which others have"),
        (["HERO@none=two-0.json"], "two-0.json: no set 'none'; there are iid, ood"),
        (["HERO@ood=h-0.json", "HERO=b-0.json"], "has scores of the set 'ood' from another file already"),
        (["HERO@ood=nothing.json"], "no scores found"),
        (["HERO=several.json"], "holds several models"),
        (["HERO=short.jsonl", "--annotations", "ood.jsonl"], "1 of the 24 qids of ood.jsonl missing: 23"),
    ],
)
def test_what_does_not_belong_together_is_told(here, capsys, words, said):
    (here / "plain.jsonl").write_text(submission(3))
    (here / "short.jsonl").write_text("".join(submission(3).splitlines(keepends=True)[:-1]))
    (here / "empty.json").write_text("{}")
    (here / "nothing.json").write_text('{"scores": {}}')
    (here / "text.json").write_text('{"ood": {"mIoU": "10.0"}}')
    (here / "some-0.json").write_text('{"ood": {"mIoU": 10, "R1@0.5": 20}}')
    (here / "some-1.json").write_text('{"ood": {"mIoU": null, "R1@0.5": 20}}')
    (here / "two-0.json").write_text('{"iid": {"mIoU": 10}, "ood": {"mIoU": 20}}')
    (here / "several.json").write_text('{"runs": []}')
    status, out, err = tabulate(capsys, *words)
    assert (status, out) == (2, "")
    assert said in err
