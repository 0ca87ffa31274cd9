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
)
