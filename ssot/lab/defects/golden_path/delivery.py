"""What a client is told, and what it is told once."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="thinks-nothing",
        title="What the agent thinks is not told",
        symptom="an empty line where the thought was",
        caught_by=("GP-05",),
        control=("GP-06",),
        edits=(
            Edit(
                "ssot/agents/engine.py",
                'self._emitter.emit("agent_thinking", text=text)',
                'self._emitter.emit("agent_thinking")',
            ),
        ),
    ),
    Defect(
        id="thread-of-an-event-is-its-user",
        title="The thread of an event is the user's id",
        symptom="a client with two conversations cannot tell whose answer came",
        caught_by=("GP-05",),
        control=("GP-06",),
        edits=(
            Edit(
                "ssot/agents/emitter.py",
                "thread_id=self._context.thread_id",
                "thread_id=self._context.user_id",
            ),
        ),
    ),
    Defect(
        id="unknown-type-ignored",
        title="A frame of an unknown type is ignored, for clients of later versions",
        symptom="who writes user_mesage waits for ever",
        caught_by=("GP-09",),
        edits=(
            Edit(
                "ssot/websocket/node.py",
                "            except SsotError as error:\n"
                "                # Who sends several at once must know which of "
                "them was refused.\n",
                "            except SsotError as error:\n"
                '                if "$.type" in str(error):\n'
                "                    continue\n",
            ),
        ),
    ),
    Defect(
        id="unknown-agent-waits",
        title="A run of an unknown agent is left for a worker that knows it",
        symptom="who misspells the agent waits for ever for a run that never starts",
        caught_by=("GP-09",),
        edits=(
            Edit(
                "ssot/agents/engine.py",
                "        except (Fenced, Unavailable):\n"
                "            raise\n"
                "        except SsotError as error:\n",
                "        except (Fenced, Unavailable, UnknownAgent):\n"
                "            raise\n"
                "        except SsotError as error:\n",
            ),
            Edit(
                "ssot/agents/engine.py",
                "from ssot.errors import Fenced, SsotError, Unavailable\n",
                "from ssot.errors import Fenced, SsotError, Unavailable, UnknownAgent\n",
            ),
        ),
    ),
    Defect(
        id="error-without-id",
        title="A refused message is refused without its id",
        symptom="the client waits for ever",
        caught_by=("GP-09",),
        edits=(
            Edit(
                "ssot/websocket/node.py",
                "Error(str(error), id_of(message), retry=retry)",
                "Error(str(error), None, retry=retry)",
            ),
        ),
    ),
    Defect(
        id="siblings-dropped",
        title="The end of one connection ends the user's feed",
        symptom="the laptop is closed and the phone falls silent",
        caught_by=("GP-08",),
        edits=(
            Edit(
                "ssot/websocket/node.py",
                "            if not user.connections and "
                "self._users.get(identity.user_id) is user:\n",
                "            if self._users.get(identity.user_id) is user:\n",
            ),
        ),
    ),
    Defect(
        id="up-to-date-is-reset",
        title="Who missed nothing is told that something may be missing",
        symptom="every reconnect without news reloads the page",
        caught_by=("GP-18",),
        edits=(
            Edit(
                "ssot/websocket/feed.py",
                "cursor.seq > last.seq:",
                "cursor.seq >= last.seq:",
            ),
        ),
    ),
    Defect(
        id="position-ahead-is-taken",
        title="A position that the log has not reached is taken",
        symptom="a client with a wrong position hears nothing and is told that nothing is missing",
        caught_by=("GP-18",),
        edits=(
            Edit(
                "ssot/websocket/feed.py",
                "    if cursor.epoch != last.epoch or cursor.seq > last.seq:\n",
                "    if cursor.epoch != last.epoch:\n",
            ),
        ),
    ),
    Defect(
        id="position-with-a-tail",
        title="What only begins like a position is taken for one",
        symptom="a truncated or garbled cursor resumes somewhere",
        caught_by=("GP-18",),
        edits=(
            Edit(
                "ssot/events.py",
                "_POSITION.fullmatch(text)",
                "_POSITION.match(text)",
            ),
        ),
    ),
    Defect(
        id="reconnects-from-the-start",
        title="A client reconnects from where it was opened, not from its last event",
        symptom="events between a lost connection and the next one are gone, or come again",
        caught_by=("GP-19",),
        edits=(
            Edit(
                "ssot/websocket/client.py",
                "        self.position = after\n",
                "        self.position = after\n        self._after = after\n",
            ),
            Edit(
                "ssot/websocket/client.py",
                'query = f"?after={self.position}" if self.position else ""',
                'query = f"?after={self._after}" if self._after else ""',
            ),
        ),
    ),
    Defect(
        id="link-not-repaired",
        title="After a lost link the log is not read again",
        symptom="the last events of a run come with the next run's",
        caught_by=("GP-19",),
        edits=(
            Edit(
                "ssot/streams/subscriber.py",
                "        relink = wanted if self.links else set()\n",
                "        relink: set[str] = set()\n",
            ),
        ),
    ),
    Defect(
        id="retry-not-looked-for",
        title="A retried append does not look for its events",
        symptom="an event whose answer was lost comes twice",
        caught_by=("GP-19",),
        edits=(
            Edit(
                "ssot/streams/event_log.py",
                "look = number > 1 or any(e.again for e in events)",
                "look = any(e.again for e in events)",
            ),
        ),
    ),
    Defect(
        id="idle-not-told",
        title="Who has had no event yet is not told of a new epoch",
        symptom="an idle client never learns that events may be missing",
        caught_by=("GP-11",),
        edits=(
            Edit(
                "ssot/websocket/feed.py",
                "            self._push(reset(self.position, Position(bounds.last.epoch, 0)))\n",
                "            if self.ring.end:\n"
                "                self._push(reset(self.position, "
                "Position(bounds.last.epoch, 0)))\n"
                "            else:\n"
                "                self.position = Position(bounds.last.epoch, 0)\n",
            ),
        ),
    ),
)
