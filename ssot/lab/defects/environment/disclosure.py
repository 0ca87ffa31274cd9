"""Defects that tell a secret: to a log, to a watcher, through a link."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="query-password-unmasked",
        title="A password in the query of a URL is not masked",
        symptom="a token in a URL stands in the log",
        caught_by=("ENV-42",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "{0,64}?(?:password|passwd|pwd|secret|token|",
                "{0,64}?(?:sslpassword|",
            ),
        ),
    ),
    Defect(
        id="secret-file-name-decides",
        title="A secret file is a secret by its name alone",
        symptom="a mounted secret with an innocent name stands in the log",
        caught_by=("ENV-42",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                '        if any(origin.layer == "secret file" for origin in origins):',
                "        if not name:",
            ),
        ),
    ),
    Defect(
        id="key-names-are-public",
        title="A name that ends with KEY is no secret's",
        symptom="an API key stands in the log",
        caught_by=("ENV-42",),
        edits=(Edit("ssot/environment/redaction.py", "_PWD$|(^|_)KEYS?$|_KEY_", "_PWD$"),),
    ),
    Defect(
        id="lower-case-names-public",
        title="Lower-case names are never secrets'",
        symptom="a password stands in the log, for its name is in small letters",
        caught_by=("ENV-42",),
        edits=(
            Edit("ssot/environment/redaction.py", '_KEY_",\n    re.IGNORECASE,', '_KEY_",\n    0,'),
        ),
    ),
    Defect(
        id="pem-lines-unknown",
        title="The lines of a key are not known, only the whole",
        symptom="a line of a private key stands in the log",
        caught_by=("ENV-42",),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "for value in {secret, secret.strip(), *_lines(secret), *passwords_of(secret)}:",
                "for value in {secret, secret.strip(), *passwords_of(secret)}:",
            ),
        ),
    ),
    Defect(
        id="overlay-secrets-unknown",
        title="Secrets of an overlay are not known to its redactor",
        symptom="a secret of one user's task is not masked",
        caught_by=("ENV-42",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "        return self._below.secrets() | self._seen | "
                "secrets_of(self.snapshot().variables.values())",
                "        return self._below.secrets()",
            ),
        ),
    ),
    Defect(
        id="urlsafe-base64-unknown",
        title="base64 in its URL-safe form is not recognised",
        symptom="a secret can be read from a token in the log",
        caught_by=("ENV-43",),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "        *(each.translate(_URL_SAFE) for each in inside),\n",
                "",
            ),
        ),
    ),
    Defect(
        id="json-form-unknown",
        title="A secret in JSON is not recognised",
        symptom="a structured log has the secret",
        caught_by=("ENV-43",),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "        json.dumps(value)[1:-1],\n",
                "",
            ),
            Edit(
                "ssot/environment/redaction.py",
                '        "".join(rf"\\\\u(?i:{unit})" for unit in units),\n',
                "",
            ),
            Edit(
                "ssot/environment/redaction.py", "        re.escape(json.dumps(char)[1:-1]),\n", ""
            ),
        ),
    ),
    Defect(
        id="sibling-folder-link",
        title="A link is inside when its path begins like the folder's",
        symptom="a link reaches the secrets of the folder beside it",
        caught_by=("ENV-19",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "    if os.path.commonpath([top, real]) != top:",
                "    if not real.startswith(top):",
            ),
        ),
    ),
    Defect(
        id="old-secret-in-clear",
        title="The old value of a secret is told in clear",
        symptom="whoever watches a rotation learns the password that is still good",
        caught_by=("ENV-41",),
        incidents=(12, 19),
        edits=(
            Edit(
                "ssot/environment/snapshot.py",
                "        old, new = self._shown(self.old), self._shown(self.new)",
                "        old, new = self.old, self._shown(self.new)",
            ),
        ),
    ),
    Defect(
        id="deleted-secret-in-clear",
        title="A secret that is deleted is none any more: its old value is told",
        symptom="the deletion of a secret tells it to everybody who watches",
        caught_by=("ENV-41",),
        incidents=(12, 19),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "            secret = any(each.secret for each in (before, after) if each)",
                "            secret = bool(after and after.secret)",
            ),
        ),
    ),
    Defect(
        id="copy-of-secret-is-public",
        title="What repeats a secret under another name is none",
        symptom="a note into which somebody has copied a token tells it",
        caught_by=("ENV-41",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "        variables = _with_copies(variables)\n",
                "",
            ),
        ),
    ),
    Defect(
        id="made-of-secret-is-public",
        title="What is made of a secret is none",
        symptom="a note that was made of a token tells it",
        caught_by=("ENV-41",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/expansion.py", "            making.secret |= result.secret\n", ""
            ),
            Edit(
                "ssot/environment/layers.py",
                "        variables = _with_copies(variables)\n",
                "",
            ),
        ),
    ),
    Defect(
        id="refused-secrets-told",
        title="A report on a refused reading is cleaned of the secrets of before alone",
        symptom="the new secret, in the file that has a mistake, stands in the log",
        caught_by=("ENV-31",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "clean = Redactor(self._seen | secrets, like=self.redactor())",
                "clean = Redactor(self._seen, like=self.redactor())",
            ),
        ),
    ),
    Defect(
        id="keyword-password",
        title="A password in a libpq connection string is not known",
        symptom="host=… password=… stands in the log",
        caught_by=("ENV-42",),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                '        return {match["password"].strip("\'") for match in '
                "_KEYWORD_PASSWORD.finditer(value)}\n",
                "        return set()\n",
            ),
            Edit(
                "ssot/environment/redaction.py",
                "for written in (_QUERY_PASSWORD, _KEYWORD_PASSWORD):",
                "for written in (_QUERY_PASSWORD,):",
            ),
        ),
    ),
    Defect(
        id="upper-case-hex",
        title="A secret in capital hexadecimal digits is not recognised",
        symptom="a dump in capitals tells it",
        caught_by=("ENV-43",),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "        raw.hex().upper(),\n",
                "",
            ),
        ),
    ),
)
