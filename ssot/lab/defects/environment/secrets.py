"""What can go wrong with secrets: defaults of tests, OAuth credentials, secret files, redaction."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    # Test defaults and OAuth credentials
    Defect(
        id="oauth-test-defaults-deleted",
        title="The OAuth credentials of tests are deleted as duplicates",
        symptom="every log-in through a provider answers 503 in tests",
        caught_by=("ENV-10",),
        control=("ENV-19",),
        incidents=(1,),
        edits=(
            Edit("ssot/configuration/settings.py", '        test="ssot-test-client",\n', ""),
            Edit("ssot/configuration/settings.py", '        test="ssot-test-client-secret",\n', ""),
        ),
    ),
    Defect(
        id="empty-credential-gets-default",
        title="An empty value is passed over for that of a weaker layer",
        symptom="what was switched off by an empty variable goes on with a default",
        caught_by=("ENV-10",),
        control=("ENV-19",),
        incidents=(10,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "if name not in self.deleted and not name.startswith(foreign):",
                "if not written.text and name in stories:\n"
                "                    continue\n"
                "                if name not in self.deleted and not name.startswith(foreign):",
            ),
        ),
    ),
    Defect(
        id="half-a-credential",
        title="A client id without its secret is valid, and the other way round",
        symptom="a typing error in one name is found by the users, as an answer of 503",
        caught_by=("ENV-10",),
        control=("ENV-19",),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "if len(absent) == 1:",
                "if len(absent) > len(both):",
            ),
        ),
    ),
    Defect(
        id="oauth-names-collide",
        title="The OAuth credentials of all environments are one setting with several names",
        symptom="staging logs its users in as the client of another environment",
        caught_by=("ENV-11",),
        control=("ENV-19",),
        incidents=(8,),
        edits=(
            Edit(
                "ssot/configuration/schema.py",
                "            return (name_in(kind, self.variable),)\n",
                "            return tuple(name_in(each, self.variable) for each in KINDS)\n",
            ),
        ),
    ),
    Defect(
        id="oauth-falls-back",
        title="Without credentials of its own a service uses those of another environment",
        symptom="production that has lost its secret logs users in as a client of tests",
        caught_by=("ENV-11",),
        control=("ENV-10",),
        incidents=(8,),
        edits=(
            Edit(
                "ssot/configuration/schema.py",
                "            return (name_in(kind, self.variable),)\n",
                "            names = [name_in(each, self.variable) for each in KINDS]\n"
                "            return (name_in(kind, self.variable), *names)\n",
            ),
        ),
    ),
    Defect(
        id="oauth-credentials-of-the-start",
        title="Nobody applies changed OAuth credentials",
        symptom="a credential that was withdrawn is used until the next restart",
        caught_by=("ENV-11",),
        control=("ENV-19",),
        edits=(
            Edit(
                "ssot/platform.py",
                '"auth.signing_key", "auth.access_ttl", "oauth")',
                '"auth.signing_key", "auth.access_ttl")',
            ),
        ),
    ),
    Defect(
        id="bypass-in-production",
        title="A switch of tests that lets everybody in works in production",
        symptom="one variable that was left in a deployment opens every account",
        caught_by=("ENV-12",),
        control=("ENV-19",),
        incidents=(7,),
        edits=(
            Edit("ssot/auth/accounts.py", "import asyncio\n", "import asyncio\nimport os\n"),
            Edit(
                "ssot/auth/accounts.py",
                "        if not await asyncio.to_thread(matches, password, stored) or not found:",
                '        if os.environ.get("SSOT_TEST_SKIP_LOGIN") and found:\n'
                "            return str(user_id)\n"
                "        if not await asyncio.to_thread(matches, password, stored) or not found:",
            ),
            Edit(
                "ssot/environment/layers.py",
                "    if variable.name.startswith(_FOR_TESTS):\n",
                '    if variable.name.startswith(_FOR_TESTS) and kind == "staging":\n',
            ),
        ),
    ),
    Defect(
        id="placeholders-by-the-letter",
        title="Only a secret that is a placeholder and nothing else counts as one",
        symptom="the signing key of a tutorial signs the tokens of production",
        caught_by=("ENV-12",),
        control=("ENV-19",),
        edits=(
            Edit(
                "ssot/environment/weakness.py",
                "if _PLACEHOLDER.match(plain) or _WORDS.search(plain):",
                "if _PLACEHOLDER.fullmatch(plain) or _WORDS.fullmatch(plain):",
            ),
        ),
    ),
    Defect(
        id="password-in-url-unjudged",
        title="A secret is judged by the name of its variable alone",
        symptom="a database is reached with the password of the documentation",
        caught_by=("ENV-12",),
        control=("ENV-19",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "{variable.value} if guarded and not is_url else passwords_of(variable.value)",
                "{variable.value} if guarded and not is_url else set()",
            ),
        ),
    ),
    # Secrets in files
    Defect(
        id="env-file-beats-secret-file",
        title="The .env file is stronger than the secret files",
        symptom="a file left in an image opens the database as a role that nobody meant",
        caught_by=("ENV-18",),
        control=("ENV-19",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "            layers.append(\n",
                "            layers.insert(\n"
                '                0 if layer == "secret file" else len(layers),\n',
            ),
        ),
    ),
    Defect(
        id="last-file-wins",
        title="What is read last wins: a file over the process that was given a value",
        symptom="a variable that was set by hand has no effect, and nothing says why",
        caught_by=("ENV-18",),
        control=("ENV-19",),
        incidents=(6,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "(*self.below, *self.files, self.process, self.overrides)",
                "(*self.below, self.process, *self.files, self.overrides)",
            ),
        ),
    ),
    Defect(
        id="losers-forgotten",
        title="The winner of a conflict does not know whom it beat",
        symptom="three launchers set one variable, and nobody sees more than the last",
        caught_by=("ENV-18",),
        control=("ENV-19",),
        incidents=(6,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "over=tuple(Variable(name, each.text, each.origin, secret) for each in story[1:]),",
                "over=(),",
            ),
        ),
    ),
    Defect(
        id="last-line-wins",
        title="A name that a file sets twice has its last value",
        symptom="two people add the same variable, and one of them is right by chance",
        caught_by=("ENV-18",),
        control=("ENV-19",),
        incidents=(6,),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "        elif first := entries.get(binding.key):\n"
                '            problems.append((line, f"{first.name} is set on line {first.line} '
                'already; keep one"))\n',
                "",
            ),
        ),
    ),
    Defect(
        id="link-out-followed",
        title="A link is followed out of the folder of secrets",
        symptom="whoever may write into one mount reads any file as the service",
        caught_by=("ENV-19",),
        control=("ENV-12",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "    if os.path.commonpath([top, real]) != top:\n",
                "    if not os.path.isabs(real):\n",
            ),
        ),
    ),
    Defect(
        id="fifo-is-empty",
        title="What is no regular file reads as an empty value",
        symptom="a secret that somebody still has to write is the empty text",
        caught_by=("ENV-19",),
        control=("ENV-12",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "if not stat.S_ISREG(status.st_mode):",
                "if stat.S_ISDIR(status.st_mode):",
            ),
        ),
    ),
    Defect(
        id="bad-secret-passed-over",
        title="A secret file that cannot be read is passed over",
        symptom="half of a new generation is in use, and the other half is that before it",
        caught_by=("ENV-19",),
        control=("ENV-12",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "            problems.extend(contents.problems)\n",
                "            if not contents.entries:\n"
                "                problems.extend(contents.problems)\n",
            ),
        ),
    ),
    Defect(
        id="first-bad-file-only",
        title="Of a folder of secrets only the first bad file is told",
        symptom="a mount with five mistakes is repaired in five attempts",
        caught_by=("ENV-19",),
        control=("ENV-12",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                '            problems.append(f"{_shown(path)}: {reason}")\n            continue\n',
                '            problems.append(f"{_shown(path)}: {reason}")\n            break\n',
            ),
        ),
    ),
    # Redaction
    Defect(
        id="url-password-unmasked",
        title="A secret is known by the name of its variable alone, not inside of a URL",
        symptom="the password of a URL stands in logs wherever it is not part of one",
        caught_by=("ENV-20",),
        control=("ENV-19",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "    found |= {unquote_plus(password) for password in found}\n",
                "    return set()\n",
            ),
        ),
    ),
    Defect(
        id="basic-credentials-unmasked",
        title="A secret is not recognised inside of what was encoded as a whole",
        symptom="a header that somebody logs can be decoded by everybody",
        caught_by=("ENV-20",),
        control=("ENV-19",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                'inside = {encoded.rstrip("="), *(_inside(raw, offset) for offset in range(3))}',
                'inside = {encoded.rstrip("=")}',
            ),
        ),
    ),
    Defect(
        id="percent-encoding-unmasked",
        title="A secret is not recognised in its percent-encoding",
        symptom="a URL in a log holds the password for whoever can decode it",
        caught_by=("ENV-20",),
        control=("ENV-19",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/environment/redaction.py",
                "        *percent,\n",
                "",
            ),
            Edit(
                "ssot/environment/redaction.py",
                '        "".join(f"%(?i:{byte:02x})" for byte in _bytes(char)),\n',
                "",
            ),
        ),
    ),
    Defect(
        id="log-knows-process-only",
        title="The log of a process is cleaned of what it was started with, not of its files",
        symptom="what is in the vault is in the log, and what is in the deployment is not",
        caught_by=("ENV-20",),
        control=("ENV-19",),
        edits=(
            Edit("ssot/serve.py", "            cleaning.learn(environment.redact)\n", ""),
            Edit(
                "ssot/environment/isolated.py",
                "raise SettingsError([clean(problem) for problem in problems])",
                "raise SettingsError(problems)",
            ),
        ),
    ),
    Defect(
        id="rotated-secret-forgotten",
        title="A secret that has been rotated is no secret any more",
        symptom="the old credential, which peers still accept, stands in the log",
        caught_by=("ENV-31",),
        control=("ENV-19",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        self._learn(secrets)\n        self._layers",
                "        self._seen = frozenset(secrets)\n        self._layers",
            ),
        ),
    ),
)
