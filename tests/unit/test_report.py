"""The page of benchmark results: what a benchmark found is kept, and written as it was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report


@pytest.fixture(autouse=True)
def _own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")


def test_the_page_shows_every_section_with_its_table_notes_and_versions(tmp_path: Path) -> None:
    report.add("Streams", [{"contender": "ours", "events/s": 81234.6, "ratio": 0.8449}], ["A note."])
    report.add("HTTP sink", [{"contender": "ours", "events/s": 9000}])

    page = report.write(tmp_path / "performance.md").read_text()

    assert "## Streams\n\n| contender | events/s | ratio |\n| --- | --- | --- |\n| ours | 81,235 | 0.84 |\n" in page
    assert "A note." in page
    assert page.index("## HTTP sink") < page.index("## Streams")
    assert "confluent-kafka 2." in page


def test_a_section_that_is_measured_again_replaces_its_table(tmp_path: Path) -> None:
    report.add("Streams", [{"contender": "old"}])
    report.add("Streams", [{"contender": "new"}])

    page = report.write(tmp_path / "performance.md").read_text()

    assert "| new |" in page
    assert "old" not in page


def test_a_row_without_a_column_of_another_row_leaves_it_empty() -> None:
    assert report.table([{"contender": "a", "ratio": 1.0}, {"contender": "b"}])[-1] == "| b |  |"
