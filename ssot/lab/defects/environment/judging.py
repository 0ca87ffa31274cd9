"""Defects of what must be refused: switches for tests, impostors, addresses, absent files."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="unknown-environment-is-development",
        title="An unknown SSOT_ENVIRONMENT (prod) runs as development",
        symptom="`prod` runs with a developer's rights",
        caught_by=("ENV-34",),
        incidents=(5, 7),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                '    told = repr(name) if name else "empty"\n'
                "    raise SettingsError(\n"
                '        [f"SSOT_ENVIRONMENT is',
                '    if name != "__never__":\n'
                '        return "development"\n'
                '    told = repr(name) if name else "empty"\n'
                "    raise SettingsError(\n"
                '        [f"SSOT_ENVIRONMENT is',
            ),
        ),
    ),
    Defect(
        id="named-file-missing-silent",
        title="A file that is asked for by name and is not there is passed over",
        symptom="a typing error in a path, and the service runs with defaults",
        caught_by=("ENV-34",),
        incidents=(3,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "if sources.asked_for or is_there(path):",
                "if is_there(path):",
            ),
        ),
    ),
    Defect(
        id="missing-directory-silent",
        title="A named folder of .env that is not there is passed over",
        symptom="a mistyped folder, and nothing in it counts",
        caught_by=("ENV-34",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "if sources.folder is not None and not os.path.isdir(sources.folder):",
                "if False and sources.folder is not None:",
            ),
        ),
    ),
    Defect(
        id="missing-secrets-folder-silent",
        title="A folder of secrets that is not there counts as empty",
        symptom="a vault that is not mounted is found out by users",
        caught_by=("ENV-34",),
        incidents=(2, 3),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "    except (OSError, ValueError) as error:\n"
                '        return _unread(shown, _cannot(error, "folder", path=folder))\n'
                "    try:\n"
                "        for _ in",
                "    except FileNotFoundError:\n"
                "        return Contents((), ())\n"
                "    except (OSError, ValueError) as error:\n"
                '        return _unread(shown, _cannot(error, "folder", path=folder))\n'
                "    try:\n"
                "        for _ in",
            ),
        ),
    ),
    Defect(
        id="staging-is-not-judged",
        title="Placeholders and test switches are refused in production alone",
        symptom="a test bypass opens staging, with customers' data in it",
        caught_by=("ENV-37",),
        incidents=(7,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                '    if kind == "test":\n        return\n',
                '    if kind != "production":\n        return\n',
            ),
        ),
    ),
    Defect(
        id="files-are-not-judged",
        title="Placeholders and test switches are refused in the process, not in files",
        symptom="a bypass in a mounted folder opens a service",
        caught_by=("ENV-37",),
        incidents=(7,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                '    if kind == "test":\n        return\n',
                '    if kind == "test" or variable.origin.path is not None:\n        return\n',
            ),
        ),
    ),
    Defect(
        id="switch-off-is-fine",
        title="A test switch is refused when it is '1' alone",
        symptom="`true` opens what `1` does not",
        caught_by=("ENV-37",),
        incidents=(7,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "    if variable.name.startswith(_FOR_TESTS):\n",
                '    if variable.name.startswith(_FOR_TESTS) and variable.value == "1":\n',
            ),
        ),
    ),
    Defect(
        id="bootstrap-unprotected",
        title="SSOT_ENVIRONMENT may be changed while the process runs",
        symptom="a running production service is turned into a test",
        caught_by=("ENV-37",),
        incidents=(7, 12),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        self._protected = frozenset(each.name for each in BOOTSTRAP)\n",
                "        self._protected: frozenset[str] = frozenset()\n",
            ),
        ),
    ),
    Defect(
        id="settings-judged-only-if-files-fine",
        title="Settings are looked at only when nothing else is wrong",
        symptom="an ordinary mistake is told one start later",
        caught_by=("ENV-37",),
        incidents=(3,),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        if self._validate is not None:\n"
                "            problems += self._validate(built)",
                "        if self._validate is not None and not problems:\n"
                "            problems += self._validate(built)",
            ),
        ),
    ),
    Defect(
        id="oauth-endpoints-of-old-provider",
        title="Endpoints are kept whichever provider is asked for",
        symptom="after a change of provider, the old one is sent users and secrets",
        caught_by=("ENV-38",),
        edits=(
            Edit(
                "ssot/auth/oauth.py",
                "        known, until = self._known.get(url, (None, 0.0))",
                "        known, until = next(iter(self._known.values()), (None, 0.0))",
            ),
        ),
    ),
    Defect(
        id="oauth-issuer-unchecked",
        title="An OpenID configuration of another issuer is used",
        symptom="an impostor says who anybody is",
        caught_by=("ENV-38",),
        edits=(
            Edit(
                "ssot/auth/oauth.py",
                '        if found.issuer.rstrip("/") != url:\n',
                "        if not found.issuer:\n",
            ),
        ),
    ),
    Defect(
        id="oauth-redirect-of-first",
        title="The redirect URI of the first log-in is sent for everybody",
        symptom="nobody logs in by the second application",
        caught_by=("ENV-38",),
        edits=(
            Edit(
                "ssot/auth/oauth.py",
                '        form = {"grant_type": "authorization_code", "code": code, '
                '"redirect_uri": redirect_uri}',
                '        redirect_uri = self.__dict__.setdefault("_redirect", '
                "redirect_uri)\n"
                '        form = {"grant_type": "authorization_code", "code": code, '
                '"redirect_uri": redirect_uri}',
            ),
        ),
    ),
    Defect(
        id="redis-url-unjudged",
        title="A URL of Redis is not looked at",
        symptom="a wrong address is found by the first user",
        caught_by=("ENV-47",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                '        checked = _checked_url(url, {"redis", "rediss"})',
                "        return url",
            ),
        ),
    ),
    Defect(
        id="auth-url-with-password",
        title="The auth URL may hold a password, and is shown",
        symptom="a password stands in every log that shows an address",
        caught_by=("ENV-47",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "            good = good and parts.username is None and not parts.query\n",
                "",
            ),
        ),
    ),
    Defect(
        id="nothing-is-every-address",
        title="An empty address to listen on is taken as it is",
        symptom="a node that was meant for one machine listens to all networks",
        caught_by=("ENV-47",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "    if not host:\n        # To the operating system",
                "    if not host:\n        return host\n"
                "    if not host:\n        # To the operating system",
            ),
        ),
    ),
    Defect(
        id="port-zero-is-a-port",
        title="A database URL with port 0 is taken for one",
        symptom="it is found by the first query",
        caught_by=("ENV-16",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                '    if port == 0:\n        raise ValueError("port 0 cannot be connected to")\n',
                "",
            ),
        ),
    ),
    Defect(
        id="empty-own-falls-back",
        title="An own name that is set to nothing gives way to the shared one",
        symptom="a service whose login was taken away goes on with everybody's",
        caught_by=("ENV-21",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "            if name in snapshot:\n",
                "            if name in snapshot and (snapshot[name] or field.own is None):\n",
            ),
        ),
    ),
    Defect(
        id="shared-variable-named",
        title="A refusal always names the shared variable",
        symptom="an operator corrects SSOT_DATABASE_URL, which is not read",
        caught_by=("ENV-21",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                '_put(data, f"{field.path}_variable", name)',
                '_put(data, f"{field.path}_variable", field.variable)',
            ),
        ),
    ),
    Defect(
        id="signing-key-unjudged",
        title="What is no key is accepted by the settings",
        symptom="a half-copied key counts as a change; the next start dies of it",
        caught_by=("ENV-27",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                '            raise ValueError("must be 32 bytes in base64url: 43 characters")\n',
                "            pass\n",
            ),
        ),
    ),
    Defect(
        id="overlay-takes-bypass",
        title="An overlay may set switches of tests and placeholders in production",
        symptom="code that makes a task opens production for it",
        caught_by=("ENV-37",),
        incidents=(7,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "        if problems := [*self._unfit(values)]:\n"
                "            raise SettingsError([self.redactor()(problem) for "
                "problem in problems])\n",
                "",
            ),
        ),
    ),
    Defect(
        id="subject-of-any",
        title="A subject is the same person whichever provider says so",
        symptom="after a change of provider whoever has alice's id there has her account",
        caught_by=("ENV-38",),
        edits=(
            Edit(
                "ssot/auth/oauth.py",
                "return Subject(settings.provider_url, await",
                'return Subject("oauth", await',
            ),
        ),
    ),
    Defect(
        id="short-secrets",
        title="Short secrets are accepted in production",
        symptom="a password of six characters guards production",
        caught_by=("ENV-51",),
        edits=(
            Edit(
                "ssot/environment/weakness.py",
                "    if len(secret) < _SHORTEST:\n",
                "    if len(secret) < 1:\n",
            ),
        ),
    ),
    Defect(
        id="name-is-password",
        title="The name of its user is accepted as a password",
        symptom="postgresql://shopkeeper:shopkeeper@… starts in production",
        caught_by=("ENV-51",),
        edits=(
            Edit(
                "ssot/environment/weakness.py",
                "    if user and secret.casefold() == user.casefold():\n",
                "    if False:\n",
            ),
        ),
    ),
    Defect(
        id="pytest-is-test",
        title="PYTEST_CURRENT_TEST makes any environment a test",
        symptom="one stray variable lets test switches into production",
        caught_by=("ENV-51",),
        incidents=(7,),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                '    name = process.get("SSOT_ENVIRONMENT", "development")\n',
                '    if "PYTEST_CURRENT_TEST" in process:\n'
                '        return "test"\n'
                '    name = process.get("SSOT_ENVIRONMENT", "development")\n',
            ),
        ),
    ),
    Defect(
        id="provider-without-tls",
        title="A provider without TLS is accepted",
        symptom="the client secret is sent in clear over the network",
        caught_by=("ENV-51",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "        if url and not is_protected(url):\n",
                '        if url and "://" not in url:\n',
            ),
        ),
    ),
)
