"""Accounts, passwords and tokens, and the settings of a start."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="start-refused-silently",
        title="A process that a server refuses ends without a word",
        symptom="exit code 1 and an empty log",
        caught_by=("GP-01",),
        edits=(
            Edit(
                "ssot/serve.py",
                "    except SsotError as error:\n"
                '        _log.error("%s", error)\n'
                "        return 1\n",
                "    except SsotError:\n        return 1\n",
            ),
        ),
    ),
    Defect(
        id="empty-value-keeps-default",
        title="An empty value leaves the default in place",
        symptom="NODE_PORT= listens on 8082 and nobody is told",
        caught_by=("GP-02",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "            if name in snapshot:\n",
                "            if snapshot.get(name):\n",
            ),
        ),
    ),
    Defect(
        id="port-out-of-range",
        title="The range of NODE_PORT is not checked with the others",
        symptom="NODE_PORT=99999 ends in a traceback, after everything was opened",
        caught_by=("GP-02",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                '        "NODE_PORT", 8082, what="port to listen on; 0: any free '
                'one", ge=0, le=65535\n',
                '        "NODE_PORT", 8082, what="port to listen on; 0: any free one"\n',
            ),
        ),
    ),
    Defect(
        id="remedy-of-another-variable",
        title="The message of a wrong scheme names another server's scheme",
        symptom="who corrects SSOT_REDIS_URL as it says is refused again, for ever",
        caught_by=("GP-02",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "f\"must begin with {' or '.join(f'{s}://' for s in sorted(schemes))}\")",
                '"must begin with postgres:// or postgresql://")',
            ),
        ),
    ),
    Defect(
        id="missing-alone-is-told",
        title="Only what is missing is told while something is missing",
        symptom="two crashes",
        caught_by=("GP-02",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "        problems += _problems(error, origins, snapshot, service)\n",
                "        problems += _problems(error, origins, snapshot, service)\n"
                '        problems = [each for each in problems if "is not set" in '
                "each] or problems\n",
            ),
        ),
    ),
    Defect(
        id="password-truncated",
        title="Only the first 12 characters of a password count",
        symptom="a wrong password lets in whose beginning is right",
        caught_by=("GP-16",),
        edits=(
            Edit(
                "ssot/auth/passwords.py",
                'password.encode("utf-8", "surrogatepass"),',
                'password.encode("utf-8", "surrogatepass")[:12],',
            ),
        ),
    ),
    Defect(
        id="password-any-case",
        title="Passwords are compared without case",
        symptom="a password in other letters lets in",
        caught_by=("GP-16",),
        edits=(
            Edit(
                "ssot/auth/passwords.py",
                'password.encode("utf-8", "surrogatepass"),',
                'password.casefold().encode("utf-8", "surrogatepass"),',
            ),
        ),
    ),
    Defect(
        id="relay-reads-hashes",
        title="The relay's role may read the accounts",
        symptom="a stolen relay credential yields every hash",
        caught_by=("GP-16",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO {database}_auth")\n',
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO '
                '{database}_auth")\n'
                '    op.execute(f"GRANT SELECT ON accounts TO {database}_relay")\n',
            ),
        ),
    ),
    Defect(
        id="view-of-hashes",
        title="A view for reports shows the accounts with their hashes to workers",
        symptom="a stolen worker credential yields every hash",
        caught_by=("GP-16",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO {database}_auth")\n',
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO '
                '{database}_auth")\n'
                '    op.execute("CREATE VIEW members AS SELECT user_id, name, '
                'password_hash, created_at FROM accounts")\n'
                '    op.execute(f"GRANT SELECT ON members TO {database}_app")\n',
            ),
        ),
    ),
    Defect(
        id="app-writes-accounts",
        title="The application's role may update accounts",
        symptom="a stolen worker credential sets everybody's password hash",
        caught_by=("GP-16",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO {database}_auth")\n',
                '    op.execute(f"GRANT SELECT, INSERT, UPDATE ON accounts TO '
                '{database}_auth")\n'
                '    op.execute(f"GRANT INSERT, UPDATE ON accounts TO {database}_app")\n',
            ),
        ),
    ),
    Defect(
        id="sign-up-replaces-password",
        title="Signing up with a taken name replaces its password",
        symptom="a stranger signs up with a name, is refused, and logs in as its owner",
        caught_by=("GP-16",),
        edits=(
            Edit(
                "ssot/auth/accounts.py",
                "                .values(user_id=user_id, name=name, password_hash=hashed)\n"
                "                .on_conflict_do_nothing()\n",
                "                .values(user_id=user_id, name=name, password_hash=hashed)\n"
                '                .on_conflict_do_update(index_elements=["name"], '
                'set_={"password_hash": hashed})\n',
            ),
        ),
    ),
    Defect(
        id="expired-token",
        title="The expiry of a token is not looked at",
        symptom="a token of last year lets in",
        caught_by=("GP-15",),
        edits=(
            Edit(
                "ssot/auth/verify.py",
                'options={"require": ["exp", "iat", "iss", "aud", "sub"]},',
                'options={"require": ["exp", "iat", "iss", "aud", "sub"], "verify_exp": False},',
            ),
        ),
    ),
    Defect(
        id="private-key-published",
        title="The key set holds the private half of the key",
        symptom="whoever fetches the public keys can sign as anybody",
        caught_by=("GP-15",),
        edits=(
            Edit(
                "ssot/auth/keys.py",
                '"kid": self.kid}\n',
                '"kid": self.kid, "d": _b64(raw)}\n',
            ),
        ),
    ),
    Defect(
        id="issuer-prefix",
        title="An issuer that only begins like ours is taken",
        symptom="the tokens of ssot-auth-staging open this installation",
        caught_by=("GP-15",),
        edits=(
            Edit(
                "ssot/auth/verify.py",
                "            issuer=tokens.issuer,\n",
                "",
            ),
            Edit(
                "ssot/auth/verify.py",
                '    return Identity(user_id=claims["sub"]',
                '    if not str(claims["iss"]).startswith(tokens.issuer):\n'
                '        raise _other("issuer", token, "iss", tokens.issuer)\n'
                '    return Identity(user_id=claims["sub"]',
            ),
        ),
    ),
    Defect(
        id="verified-once-by-jti",
        title="What was verified is remembered by the token's id alone",
        symptom="once alice was here, her token with any signature lets in",
        caught_by=("GP-15",),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                "            identity = verify(token, self._keys, self._tokens)\n",
                '            jti = jwt.decode(token, options={"verify_signature": '
                'False}).get("jti")\n'
                "            if jti in self._verified:\n"
                "                return self._verified[jti]\n"
                "            identity = verify(token, self._keys, self._tokens)\n"
                "            self._verified[jti] = identity\n",
            ),
            Edit(
                "ssot/auth/jwks.py",
                "        self._keys: dict[str, dict[str, Any]] = {}\n",
                "        self._keys: dict[str, dict[str, Any]] = {}\n"
                "        self._verified: dict[str, Identity] = {}\n",
            ),
            Edit(
                "ssot/auth/jwks.py",
                "import httpx\nfrom",
                "import httpx\nimport jwt\nfrom",
            ),
        ),
    ),
    Defect(
        id="no-token-is-a-guest",
        title="Who sends no token at all is let in as a guest",
        symptom="anybody without a token has a connection and starts runs",
        caught_by=("GP-15",),
        edits=(
            Edit(
                "ssot/websocket/node.py",
                "            identity = await "
                "self._verifier.verify(_token(request.headers, offered))\n",
                "            token = _token(request.headers, offered)\n"
                "            identity = await self._verifier.verify(token) if "
                'token else _Guest("guest", time.time() + 900)\n',
            ),
            Edit(
                "ssot/websocket/node.py",
                "    raise AuthenticationError(\n"
                '        "no token: send Authorization: Bearer …, or the '
                'subprotocol bearer.<token>"\n'
                "    )\n",
                '    return ""\n',
            ),
            Edit(
                "ssot/websocket/node.py",
                "class _Admitted(NamedTuple):\n",
                "class _Guest(NamedTuple):\n"
                "    user_id: str\n"
                "    expires_at: float\n"
                "\n"
                "\n"
                "class _Admitted(NamedTuple):\n",
            ),
        ),
    ),
    Defect(
        id="believed-while-auth-is-away",
        title="While the auth service does not answer, tokens are believed",
        symptom="a forged token lets in while auth is down and the node is fresh",
        caught_by=("GP-15",),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                "                await self._fetch(kid)\n            elif",
                "                try:\n"
                "                    await self._fetch(kid)\n"
                "                except Unavailable:\n"
                "                    claims = jwt.decode(token, "
                'options={"verify_signature": False})\n'
                '                    return Identity(claims["sub"], float(claims["exp"]))\n'
                "            elif",
            ),
            Edit(
                "ssot/auth/jwks.py",
                "import httpx\nfrom",
                "import httpx\nimport jwt\nfrom",
            ),
        ),
    ),
)
