"""Making the report of a session from its journal, which is only read: a daemon may go on beside it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from drpwatch.report.facts import gather
from drpwatch.report.gallery import choose, exhibits
from drpwatch.report.page import render
from drpwatch.session.account import Account


def make_report(journal: Path, name: str) -> bytes:
    """Return the report of a session as an HTML file.

    Raises
    ------
    SessionError
        There is no session of that name.
    JournalError
        The journal cannot be read.
    """
    with closing(Account(journal)) as account:
        facts = gather(account, name, time.time())
        choices = choose(facts.history)
        return render(facts, choices, exhibits(account, facts.session, choices))
