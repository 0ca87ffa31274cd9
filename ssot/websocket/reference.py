"""The protocol page and the JSON Schema, made from the types that the code itself uses.

``python -m ssot.websocket.reference`` writes both into ``docs/``.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import get_args

import msgspec

from ssot.commands import COMMAND_VERSION
from ssot.events import EVENT_VERSION, TERMINAL, AgentEvent, event_types, follows
from ssot.websocket import protocol
from ssot.websocket.protocol import PROTOCOL_VERSION, ClientFrame, CloseCode, ServerFrame

__all__ = ["json_schema", "protocol_page"]

_FROM = {"client": ClientFrame, "node": ServerFrame}


def json_schema() -> str:
    """JSON Schema of every frame and of the agent events."""
    types = [*get_args(ClientFrame), *get_args(ServerFrame), AgentEvent]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    del schemas
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ssot wire protocol, version {PROTOCOL_VERSION}",
        "$defs": components,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def protocol_page() -> str:
    """The page for people who write a client of their own."""
    introduction = inspect.getdoc(protocol) or ""
    parts = [
        "# The wire protocol",
        "Made by `python -m ssot.websocket.reference` from the types that the code uses; "
        "`protocol.schema.json` has them as JSON Schema.",
        _markdown(introduction.partition("\n\n")[2]),
        f"Versions: frames {PROTOCOL_VERSION}, agent events {EVENT_VERSION}, commands between "
        f"processes {COMMAND_VERSION}. A mismatch is refused, naming both numbers.",
    ]
    for sender, frames in _FROM.items():
        parts.append(f"## Frames from the {sender}")
        for frame in get_args(frames):
            info = msgspec.structs.fields(frame)
            names = ", ".join(
                f"`{field.encode_name}`" + ("" if field.required else " (optional)")
                for field in info
            )
            told = _markdown(inspect.getdoc(frame) or "")
            parts.append(f"**`{frame.__struct_config__.tag}`** {names}\n\n{told}")
    parts.append("## Agent events\n\n" + _markdown(inspect.getdoc(AgentEvent) or ""))
    rows = ["| event | may follow |", "|---|---|"]
    for event in event_types():
        before = [name for name in event_types() if follows(name, event)]
        first = ["the beginning"] if follows(None, event) else []
        ends = " (ends the run)" if event in TERMINAL else ""
        rows.append(f"| `{event}`{ends} | {', '.join(first + [f'`{n}`' for n in before])} |")
    parts.append("\n".join(rows))
    codes = [f"| {code.value} | {code.name.lower().replace('_', ' ')} |" for code in CloseCode]
    parts.append("## Close codes\n\n| code | why |\n|---|---|\n" + "\n".join(codes))
    parts.append(
        "A connection that is not let in is answered with an HTTP status and the reason as text: "
        "400 wrong version or position, 401 token, 403 origin, 404 path, 429 too many connections, "
        "503 try again."
    )
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    folder = Path(__file__).parents[2] / "docs"
    (folder / "protocol.md").write_text(protocol_page())
    (folder / "protocol.schema.json").write_text(json_schema())
