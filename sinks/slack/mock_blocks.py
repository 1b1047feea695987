"""The limits of Block Kit that the Slack stand-in checks (https://docs.slack.dev/reference/block-kit/blocks)."""

from __future__ import annotations

from typing import Any

MAX_BLOCKS = 50
_KINDS = frozenset(
    {"actions", "context", "divider", "file", "header", "image", "input", "markdown", "rich_text", "section", "video"}
)
_TEXT_LIMITS = {"section": 3000, "header": 150}


def block_faults(blocks: Any) -> list[str]:
    """What Slack would complain of, as its `response_metadata.messages` put it; empty for blocks that it would take."""
    if not isinstance(blocks, list):
        return ["must be an array [json-pointer:/blocks]"]
    faults = []
    if len(blocks) > MAX_BLOCKS:
        faults.append(f"no more than {MAX_BLOCKS} items allowed [json-pointer:/blocks]")
    for index, block in enumerate(blocks):
        faults.extend(f"{fault} [json-pointer:/blocks/{index}{place}]" for fault, place in _faults_of(block))
    return faults


def _faults_of(block: Any) -> list[tuple[str, str]]:
    if not isinstance(block, dict):
        return [("must be an object", "")]
    kind = block.get("type")
    if kind not in _KINDS:
        return [(f"unsupported type: {kind}", "/type")]
    faults: list[tuple[str, str]] = []
    if kind == "header" and "text" not in block:
        faults.append(("missing required field: text", ""))
    if kind == "section" and not (block.get("text") or block.get("fields")):
        faults.append(("missing required field: text or fields", ""))
    if "text" in block and kind in _TEXT_LIMITS:
        faults.extend((fault, f"/text{place}") for fault, place in _text_faults(block["text"], _TEXT_LIMITS[kind]))
    if kind == "context" and not block.get("elements"):
        faults.append(("missing required field: elements", ""))
    return faults


def _text_faults(text: Any, limit: int) -> list[tuple[str, str]]:
    if not isinstance(text, dict) or text.get("type") not in ("mrkdwn", "plain_text"):
        return [("must be a text object", "")]
    shown = text.get("text")
    if not isinstance(shown, str) or not shown:
        return [("must be more than 0 characters", "/text")]
    return [(f"must be less than {limit + 1} characters", "/text")] if len(shown) > limit else []
