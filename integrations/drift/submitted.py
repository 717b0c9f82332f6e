"""Submissions as models to compare by drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hero_plugin.integrations.annotations.qvhighlights import qid
from hero_plugin.integrations.annotations.sentences import read_sentences
from hero_plugin.integrations.drift.answers import answers_of
from hero_plugin.integrations.drift.models import Model
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.submission_checks import Submission
from hero_plugin.integrations.submissions import WINDOWS
from hero_plugin.integrations.vocab.tokenizers import open_tokenizer
from hero_plugin.open_vocabulary import training_vocabulary, unseen_words

__all__ = ["submitted_models"]

SET = "submission"


def submitted_models(
    submissions: Mapping[Path, Submission], records: Sequence[Record], train: Sequence[Path], tokenizer: str
) -> list[Model]:
    """One model a submission, with the first window of each query as its answer.

    records: the annotations; train: annotations whose words the models have seen.

    Raises:
        UserError: a submission has no windows.
    """
    split = open_tokenizer(tokenizer)
    vocabulary = training_vocabulary(split(record.sentence) for file in train for record in read_sentences(file))
    stems = Counter(path.stem for path in submissions)
    models = []
    for path, submission in submissions.items():
        if WINDOWS not in submission.lines[0]:
            raise UserError(f"{path}: no {WINDOWS}, and drift is measured by where a model finds the moments")
        windows = {line["qid"]: line[WINDOWS][0][:2] for line in submission.lines}
        answered = [record for record in records if qid(record) in windows]
        moments = np.array([windows[qid(record)] for record in answered], dtype=np.float64)
        answers = answers_of(answered, moments, lambda record: unseen_words(split(record.sentence), vocabulary))
        name = path.stem if stems[path.stem] == 1 else str(path)
        models.append(Model(name, (str(path),), answers={SET: [answers]}))
    return models
