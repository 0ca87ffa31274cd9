"""One of a kind for each step of the path, and what breaks in the middle of a run."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    # Along the path
    Defect(
        id="redis-opens-unasked",
        title="Opening Redis asks it nothing",
        symptom="a wrong password is found by the first user, long after the start said ready",
        caught_by=("GP-01",),
        incidents=(28,),
        edits=(
            Edit(
                "ssot/streams/client.py",
                "await self.call(lambda _: self.ping())",
                "return  # a connection is made when it is needed",
            ),
        ),
    ),
    Defect(
        id="refusal-in-general-words",
        title="A refused database password is told as any failed connection",
        symptom="an operator looks for a network failure while the credential is wrong",
        caught_by=("GP-01",),
        incidents=(14,),
        edits=(
            Edit(
                "ssot/database/manager.py",
                "PostgreSQL refused this process's role, password or database; "
                "see {settings.url_variable}",
                "could not connect to PostgreSQL",
            ),
        ),
    ),
    Defect(
        id="first-problem-only",
        title="Only the first problem of the settings is told",
        symptom="a deployment with four wrong variables is repaired in four crashes",
        caught_by=("GP-02",),
        incidents=(3,),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "return problems\n",
                "return problems[:1]\n",
            ),
        ),
    ),
    Defect(
        id="password-in-message",
        title="A refused URL is repeated in the message, which nobody cleans, nor the log",
        symptom="the password of Redis stands in the log of every failed start",
        caught_by=("GP-02",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                'for s in sorted(schemes))}")\n',
                'for s in sorted(schemes))}, not {url.get_secret_value()}")\n',
            ),
            Edit(
                "ssot/serve.py",
                "    handler.addFilter(RedactingFilter(cleaning))\n",
                "",
            ),
            Edit(
                "ssot/environment/isolated.py",
                "raise SettingsError([clean(problem) for problem in problems])",
                "raise SettingsError(problems)",
            ),
        ),
    ),
    Defect(
        id="bad-value-keeps-default",
        title="A value that cannot be read leaves the default in place",
        symptom="a node keeps dead connections for longer than was asked, and nobody is told",
        caught_by=("GP-02",),
        incidents=(21,),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "if name in snapshot:",
                'if name in snapshot and ("INTERVAL" not in name or not snapshot[name].isalpha()):',
            ),
        ),
    ),
    Defect(
        id="any-password",
        title="A login asks only whether the account exists",
        symptom="whoever knows a name is let in",
        caught_by=("GP-03",),
        edits=(
            Edit(
                "ssot/auth/accounts.py",
                "if not await asyncio.to_thread(matches, password, stored) or not found:",
                "if not found:",
            ),
        ),
    ),
    Defect(
        id="unknown-name-told",
        title="A login tells an unknown name from a wrong password",
        symptom="a stranger learns who has an account",
        caught_by=("GP-03",),
        edits=(
            Edit(
                "ssot/auth/accounts.py",
                '        user_id, stored = found or ("", self._nobody)\n',
                "        if not found:\n"
                '            raise AuthenticationError(f"there is no account {name!r}")\n'
                "        user_id, stored = found\n",
            ),
        ),
    ),
    Defect(
        id="app-reads-hashes",
        title="The application's role may read the accounts",
        symptom="a stolen worker credential yields every password hash",
        caught_by=("GP-03",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO {database}_auth")\n',
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO {database}_auth")\n'
                '    op.execute(f"GRANT SELECT ON accounts TO {database}_app")\n',
            ),
        ),
    ),
    Defect(
        id="signature-not-verified",
        title="A token's claims are read without verifying its signature",
        symptom="anybody becomes any user by writing the name into a token",
        caught_by=("GP-04",),
        edits=(
            Edit(
                "ssot/auth/verify.py",
                '            options={"require": ["exp", "iat", "iss", "aud", "sub"]},\n',
                '            options={"verify_signature": False, "verify_iss": True},\n',
            ),
        ),
    ),
    Defect(
        id="issuer-not-compared",
        title="The issuer of a token is not compared",
        symptom="the tokens of another installation open this one",
        caught_by=("GP-04",),
        incidents=(14,),
        edits=(Edit("ssot/auth/verify.py", "            issuer=tokens.issuer,\n", ""),),
    ),
    Defect(
        id="refused-without-reason",
        title="A node refuses a token without saying why",
        symptom="every client is locked out, and the search begins in the wrong place",
        caught_by=("GP-04",),
        incidents=(14,),
        edits=(
            Edit(
                "ssot/websocket/node.py",
                "return self._refuse(socket, HTTPStatus.UNAUTHORIZED, error.reason, span)",
                'return self._refuse(socket, HTTPStatus.UNAUTHORIZED, "forbidden", span)',
            ),
        ),
    ),
    Defect(
        id="events-without-words",
        title="The first event of a run does not carry the question",
        symptom="every event arrives, and the user sees an empty line where the question was",
        caught_by=("GP-05",),
        control=("GP-06",),
        incidents=(34,),
        edits=(
            Edit(
                "ssot/agents/engine.py",
                'emitter.emit("agent_started", text=command.text)',
                'emitter.emit("agent_started")',
            ),
        ),
    ),
    Defect(
        id="nobody-sees-everything",
        title="Row-level security lets a transaction without a user see every row",
        symptom="one forgotten user is a leak of all users' data",
        caught_by=("GP-06",),
        incidents=(22,),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                "        own = \"user_id = nullif(current_setting('ssot.user_id', true), '')\"\n",
                "        own = \"user_id = coalesce(nullif(current_setting('ssot.user_id', true),"
                " ''), user_id)\"\n",
            ),
        ),
    ),
    Defect(
        id="usage-without-policy",
        title="Row-level security is left off the table of usage",
        symptom="a query without a filter adds up the costs of all users",
        caught_by=("GP-06",),
        incidents=(22,),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                "    for table in OF_USERS:\n",
                '    for table in ("runs", "applied"):\n',
            ),
        ),
    ),
    Defect(
        id="runs-without-policy",
        title="Row-level security is left off the records of runs",
        symptom="whoever learns the id of a run reads another user's answer",
        caught_by=("GP-06",),
        incidents=(22,),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                "    for table in OF_USERS:\n",
                '    for table in ("llm_usage", "applied"):\n',
            ),
        ),
    ),
    Defect(
        id="recorded-in-the-background",
        title="The end of a run is recorded in the background, after its last event",
        symptom="a user who sees the end asks for the result, and the run still goes on",
        caught_by=("GP-06",),
        incidents=(25,),
        edits=(
            Edit(
                "ssot/agents/engine.py",
                "            await self._runs.finish(context, **end)\n        except SsotError:\n",
                "            asyncio.get_running_loop().call_later(\n"
                "                0.5, asyncio.ensure_future, self._runs.finish(context, **end)\n"
                "            )\n"
                "        except SsotError:\n",
            ),
        ),
    ),
    Defect(
        id="one-bridge",
        title="The thread that most users have, main, has one bridge for all of them",
        symptom="events arrive in another user's browser as soon as two are at work",
        caught_by=("GP-07",),
        incidents=(30, 38),
        edits=(
            Edit(
                "ssot/streams/subscriber.py",
                "                self._deliver(channel, answer[2])\n",
                "                for each in list(self._listeners):\n"
                "                    if each == channel or b'\"main\"' in answer[2]:\n"
                "                        self._deliver(each, answer[2])\n",
            ),
        ),
    ),
    Defect(
        id="message-ids-of-all-users",
        title="The idempotency key of a message does not contain its user",
        symptom="two users whose clients count from 1 share a run, and one of them waits for ever",
        caught_by=("GP-07",),
        incidents=(29,),
        edits=(
            Edit(
                "ssot/streams/commands.py",
                'self._client.key("message", f"{command.user_id}/{command.message_id}")',
                'self._client.key("message", command.message_id)',
            ),
        ),
    ),
    Defect(
        id="resume-from-the-beginning",
        title="A client that resumes is sent its whole log again",
        symptom="each reconnect repeats everything; a client without its own memory shows it twice",
        caught_by=("GP-08",),
        incidents=(35,),
        edits=(
            Edit(
                "ssot/websocket/connection.py",
                "        return cursor, True\n",
                "        return Position(cursor.epoch, 0), True\n",
            ),
        ),
    ),
    Defect(
        id="resume-skips-one",
        title="A resume begins one event too late",
        symptom="each reconnect loses an event, and the client is told that nothing is missing",
        caught_by=("GP-08",),
        incidents=(35,),
        edits=(
            Edit(
                "ssot/websocket/connection.py",
                "        return cursor, True\n",
                "        seq = min(cursor.seq + 1, bounds.last.seq)\n"
                "        return Position(cursor.epoch, seq), True\n",
            ),
        ),
    ),
    Defect(
        id="unknown-fields-allowed",
        title="A node overlooks fields that it does not know",
        symptom="a developer who wrote `content` is told of everything but that",
        caught_by=("GP-09",),
        incidents=(34,),
        edits=(
            Edit(
                "ssot/websocket/protocol.py",
                'tag="user_message", forbid_unknown_fields=True, ',
                'tag="user_message", ',
            ),
        ),
    ),
    # Broken in the middle of a run
    Defect(
        id="lost-transaction-not-replayed",
        title="A transaction with an idempotency key is not run again after a lost connection",
        symptom="a database restart fails every run that is in a tool",
        caught_by=("GP-10",),
        edits=(
            Edit(
                "ssot/database/manager.py",
                "on=lambda error: is_transient(error) or isinstance(error, _PoolExhausted)",
                "on=lambda error: (key is None and is_transient(error))\n"
                "                or isinstance(error, _PoolExhausted)",
            ),
        ),
    ),
    Defect(
        id="epoch-survives-reboot",
        title="A rebooted Redis goes on in the epoch of before",
        symptom="a log that lost its tail passes for whole, and clients never reload",
        caught_by=("GP-11",),
        edits=(
            Edit(
                "ssot/streams/client.py",
                "if known[1] == run_id and known[2] then return known[2] end\n",
                "if known[2] then return known[2] end\n",
            ),
        ),
    ),
    Defect(
        id="reset-not-told",
        title="A node goes on in a new epoch without telling its clients",
        symptom="events may be missing, and nobody is told: silently less",
        caught_by=("GP-11",),
        incidents=(35,),
        edits=(
            Edit(
                "ssot/websocket/feed.py",
                "    return [reset(position, before), frame]\n",
                "    del before\n    return [frame]\n",
            ),
            Edit(
                "ssot/websocket/feed.py",
                "            self._push(reset(self.position, Position(bounds.last.epoch, 0)))\n",
                "            self.position = Position(bounds.last.epoch, 0)\n",
            ),
        ),
    ),
    Defect(
        id="abandoned-commands-left",
        title="Commands of a worker that fell silent are claimed by nobody",
        symptom="a worker dies while the socket looks healthy, and its user waits for ever",
        caught_by=("GP-12",),
        incidents=(46,),
        edits=(
            Edit(
                "ssot/streams/commands.py",
                "                    claims = await self._abandoned(worker, idle)\n"
                "                    claims += await self._new(worker, block)\n",
                "                    claims = await self._new(worker, block)\n",
            ),
        ),
    ),
    Defect(
        id="replayed-events-doubled",
        title="A run that is taken over does not look for events that are in the log already",
        symptom="after a crash of a worker the user sees the run begin twice",
        caught_by=("GP-12",),
        incidents=(35,),
        edits=(
            Edit(
                "ssot/agents/engine.py",
                "        if begun_before:\n            sink.replaying()\n",
                "",
            ),
        ),
    ),
    Defect(
        id="token-not-compared",
        title="The log takes events under any fencing token",
        symptom="a worker that stood still wakes and writes into a run that another has finished",
        caught_by=("GP-13",),
        edits=(
            Edit(
                "ssot/streams/append.lua",
                "if current and tonumber(current) > tonumber(token) then",
                "if current and tonumber(token) == 0 then",
            ),
        ),
    ),
    Defect(
        id="timeout-too-tight",
        title="A tool's time is measured for servers that are next door",
        symptom="in a second region every run fails, though each step of it works",
        caught_by=("GP-14",),
        edits=(
            Edit(
                "ssot/agents/tools.py",
                "timer = asyncio.timeout(self._timeout)",
                "timer = asyncio.timeout(self._timeout / 250)",
            ),
        ),
    ),
)
