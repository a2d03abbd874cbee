"""What a reader has to know about the numbers, the same in every format."""

from __future__ import annotations

from reporting.section import Section

NUMBERS = (
    "Accuracy in percent, mean ± sample standard deviation over seeds. A dash is a run that is "
    'missing; an average marked "n of N" is over n data sets and is not compared with whole ones. '
    "H is the harmonic mean of mean base and mean new accuracy. Prompt bytes: packed payload, or "
    "half precision where nothing is quantized. Bold: the highest mean of a column."
)
COMPARISONS = (
    "Mean difference in points between runs of the same seed, which share their few-shot subsets, "
    "with its 95% interval (Student's t over seeds; on averages over data sets, the differences of "
    "the seeds' averages, so that the interval says nothing about other data sets). An interval "
    "that holds 0 does not tell the two apart. With one seed nothing is claimed. Intervals are not "
    "corrected for the number of comparisons."
)


def published_note(section: Section) -> str | None:
    """Where the published numbers of a section come from."""
    sources: dict[str, list[str]] = {}
    for table in section.tables:
        for row in table.rows:
            if row.method.source:
                names = sources.setdefault(row.method.source, [])
                names += [row.method.trainer] * (row.method.trainer not in names)
    if not sources:
        return None
    listed = "; ".join(f"{', '.join(names)}: {source}" for source, names in sources.items())
    return f"Published numbers, not measured here ({listed})."
