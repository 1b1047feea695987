"""The status of pipelines as one worker tells it over HTTP: what is left to ask while the broker does not answer."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

import orjson

from trunkline.bus.worker.board import Report, report_of
from trunkline.control.status import PipelineStatus, status_of_reports
from trunkline.core.errors import ConfigurationError, UnavailableError, did_you_mean

SECONDS = 5.0


def ask_worker(api: str, only: str | None = None, *, key: str = "") -> list[PipelineStatus]:
    """The status of each pipeline on the worker that serves at `api`, asked with `key`, by its own counts; nobody knows the lag.

    Raises `UnavailableError` when the worker does not answer, `ConfigurationError` when it does not know `only`.
    """
    reports = {report.pipeline: report for report in _reports(api, key)}
    if only is not None and only not in reports:
        raise ConfigurationError(
            f"the worker has no pipeline {only!r}", hint=did_you_mean(only, reports), code="pipeline.unknown"
        )
    return [status_of_reports([one]) for name, one in sorted(reports.items()) if only in {None, name}]


def _reports(api: str, key: str) -> list[Report]:
    address = urlsplit(api)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=SECONDS)
    try:
        connection.request("GET", "/status", headers={"X-API-Key": key} if key else {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise OSError(f"it answers {answer.status}")
        data = orjson.loads(content)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnavailableError(
            f"the worker at {api} does not answer: {error}",
            hint="see whether its process is alive, and its log",
            code="worker.unreachable",
        ) from error
    finally:
        connection.close()
    now = time.time()
    return [report_of({**one, "at": now}) for one in data["pipelines"]]
