"""Discovery: scan, probes and the settle rule of one session, as a list of events for each look.

Owns what is remembered between looks. It has no thread, no clock and no journal: the caller says
which names it has finished, which were hinted at, and what time it is. A caller that hands a name on
puts it among the known ones before the next look; one that takes it from there has it settle again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from drpwatch.errors import IncompleteMicrograph, ScanFailed
from drpwatch.micrograph import Fingerprint
from drpwatch.text import printable
from drpwatch.watch.probe import probe as probe_file
from drpwatch.watch.scan import Listing, NameFilter, Preference, scan, sight
from drpwatch.watch.settle import FoundBy, Probe, Ready, Rejected, Settler, Verdict, Waiting

__all__ = ["Back", "Discovery", "Event", "Gone", "LeftOut", "Ready", "Rejected", "Waiting"]

Known = Mapping[str, Fingerprint | None]

GONE = "gone: it was there, and is not any more"
"""Why a micrograph waits whose file was removed before it was whole."""


@dataclass(frozen=True, slots=True)
class Gone:
    """It was there, waiting or finished, and is not any more."""

    name: str


@dataclass(frozen=True, slots=True)
class Back:
    """A finished one that was gone is there again."""

    name: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """It waited or was finished, and is no micrograph any more: there is a preferred one beside it."""

    name: str


Event = Verdict | Gone | Back | LeftOut


class Discovery:
    """Finds the micrographs of one watch root.

    Parameters
    ----------
    root, glob, prefer
        Where to look, and for what (`scan.NameFilter`).
    settle_s, incomplete_after_s
        As for `settle.Settler`.
    rechecks_per_look
        How many finished names are compared with their file in each full look. Each asks the server,
        so they take turns: 20,000 in 40 looks.
    probes_per_look
        How many files are opened at most in one look, so that the first look at a directory of
        20,000 files on a slow server does not stall its caller; the rest follows in the next looks.
    probe
        How a file is looked at.
    """

    def __init__(
        self,
        root: Path,
        glob: str,
        settle_s: float,
        incomplete_after_s: float,
        *,
        prefer: Preference = "both",
        rechecks_per_look: int = 500,
        probes_per_look: int = 1000,
        probe: Callable[[Path], Probe] = probe_file,
    ) -> None:
        self.root = root
        self.names = NameFilter(glob, prefer)
        """For `hints.Hints` of the same root."""
        self.problems: tuple[str, ...] = ()
        """A sentence for each sub-directory or name that the last full look had to leave out."""
        self._settler = Settler(settle_s, incomplete_after_s)
        self._rechecks_per_look = rechecks_per_look
        self._probes_per_look = probes_per_look
        self._probe = probe
        self._settle_s = settle_s
        self._unprobed: dict[str, FoundBy] = {}  # found, or found changed, and not opened since
        self._told: dict[str, str] = {}  # name -> reason of its last Waiting
        self._found_by: dict[str, FoundBy] = {}
        self._looked_s: dict[str, float] = {}
        self._cursor = 0  # where the next slice of finished names begins
        self._device: int | None = None  # of the root, when it was last read
        self._had_names = False  # in this life
        self._absent: set[str] = set()  # finished names that the last full look did not see
        self._missing: set[str] = set()  # those that were told to be gone
        self._failed = False

    @property
    def waiting(self) -> Mapping[str, str]:
        """Reason by name, of all that wait."""
        return self._told

    def look(self, known: Known, hinted: Iterable[str], now_s: float, *, full: bool = True) -> list[Event]:
        """Look once and return what changed.

        Parameters
        ----------
        known
            Names already queued or finished, with the fingerprint they had; None is not rechecked.
            A known name whose file changed settles anew and comes as Ready or Rejected again.
        hinted
            Names at which something happened; those that the filter does not want are ignored.
        now_s
            Monotonic time.
        full
            False to look only at hinted and due names, without a pass over the tree.

        Raises
        ------
        ScanFailed
            The root is missing or failing; nothing is concluded and everything is remembered.
        """
        wanted = [name for name in hinted if self.names.wants(name)]
        for name in wanted:
            self._meet(name, known, "hint")
        events: list[Event] = []
        if full:
            listing = self._scan(known)
            for name in sorted(listing.names.difference(known)):
                self._meet(name, known, "scan")
            for name in self._next_slice(known):
                self._meet(name, known, "scan")
            if self._had_names:  # else it is empty, and may not be mounted
                events += self._leave_out(listing, known)
                events += self._drop_gone(listing)
                events += self._compare(listing, known)
        for name in self._choose(known, wanted, now_s, full=full):
            events += self._observe(name, now_s)
        return events

    def next_look_s(self, now_s: float) -> float | None:
        """Return in how many seconds a look (not a full one) can bring something new by itself.

        None where only a hint or the next full look can: nothing is settling, or the root fails.
        """
        if self._failed:
            return None
        if self._unprobed:
            return 0.0
        due_s = self._settler.next_due_s()
        return None if due_s is None else max(0.0, due_s - now_s)

    def recall(self, waiting: Mapping[str, str], missing: Iterable[str] = ()) -> None:
        """Take in what an earlier life has told: the names that wait, with the reason, and those that are gone."""
        self._told.update(waiting)
        self._unprobed.update(dict.fromkeys(waiting, "scan"))
        self._missing.update(missing)

    def forget(self, name: str) -> None:
        """Drop what is remembered of a name."""
        self._settler.forget(name)
        self._unprobed.pop(name, None)
        self._told.pop(name, None)
        self._found_by.pop(name, None)
        self._looked_s.pop(name, None)
        self._missing.discard(name)

    def _scan(self, known: Known) -> Listing:
        """Make one pass, and notice a root whose file system was unmounted."""
        self._failed = True
        listing = scan(self.root, self.names)
        self._had_names = self._had_names or bool(listing.names)
        if self._had_names and not listing.names and self._device not in (None, listing.device):
            raise ScanFailed(
                f"{self.root}: the watch directory is empty and on another file system than before:"
                " it seems to be unmounted; waiting for it"
            )
        self._failed = False
        self._device = listing.device
        self.problems = (
            *(
                printable(f"{self.root}/{directory}: cannot be read ({why})")
                for directory, why in listing.unreadable.items()
            ),
            *(f"{self.root}: {sentence}" for sentence in listing.refused),
        )
        if (known or self._told) and not self._had_names:
            self.problems += (
                f"{self.root}: the watch directory is empty, and was not before: if it is not mounted, mount it",
            )
        return listing

    def _leave_out(self, listing: Listing, known: Known) -> list[Event]:
        """Forget the names beside which there is a preferred one by now."""
        names = sorted(
            name
            for name in listing.left_out
            if name in known or name in self._settler or name in self._unprobed
        )
        for name in names:
            self.forget(name)
        return [*map(LeftOut, names)]

    def _drop_gone(self, listing: Listing) -> list[Event]:
        """Forget the waiting names that are not there any more."""
        events: list[Event] = []
        for name in [*self._settler.names, *self._unprobed]:
            if name in listing.names or listing.hides(name):
                continue
            if self._told.get(name, GONE) != GONE:
                events.append(Gone(name))
            self.forget(name)
        return events

    def _compare(self, listing: Listing, known: Known) -> list[Event]:
        """Return which finished names are gone since the last look but one, and which are back.

        One that is being replaced, or that a server leaves out once, is there at the next look.
        """
        absent = {name for name in known.keys() - listing.names - listing.left_out if not listing.hides(name)}
        gone = (absent & self._absent) - self._missing
        back = self._missing & listing.names
        self._absent = absent
        self._missing = (self._missing - back) | gone
        return [*map(Gone, sorted(gone)), *map(Back, sorted(back))]

    def _meet(self, name: str, known: Known, found_by: FoundBy) -> None:
        """Take in a name that is new, or whose file is not the one that it was finished with."""
        if name in self._settler or name in self._unprobed:
            return
        if name in known:
            finished = known[name]
            if finished is None:
                return
            try:
                sighting = sight(self.root, name)
            except IncompleteMicrograph:
                return  # deleted or unreadable: what was picked stays
            if not sighting.is_file or sighting.fingerprint == finished:
                return
        self._unprobed[name] = found_by

    def _next_slice(self, known: Known) -> list[str]:
        """Return the next finished names to compare with their files, in turn."""
        names = list(islice(known, self._cursor, self._cursor + self._rechecks_per_look))
        self._cursor += len(names)
        if self._cursor >= len(known):
            self._cursor = 0
        return names

    def _choose(self, known: Known, hinted: Iterable[str], now_s: float, *, full: bool) -> list[str]:
        """Return the names to open in this look, as many as may be: hinted, due, new, then the rest."""
        for name in [*self._settler.names, *self._unprobed]:
            if name in known and known[name] is None:
                self.forget(name)  # the caller has it in hand
        due: list[str] = []
        rest: list[str] = []
        for name in self._settler.names:
            due_s = self._settler.due_s(name)
            if due_s is not None and due_s <= now_s:
                due.append(name)
            elif due_s is None or due_s > now_s + self._settle_s:
                rest.append(name)  # nothing to expect before its file changes
        chosen = dict.fromkeys(name for name in hinted if name in self._settler or name in self._unprobed)
        chosen.update(dict.fromkeys([*due, *self._unprobed]))
        if full:
            chosen.update(dict.fromkeys(sorted(rest, key=self._looked_s.__getitem__)))
        return list(islice(chosen, self._probes_per_look))

    def _observe(self, name: str, now_s: float) -> list[Event]:
        """Open one file and return its verdict, if that is news."""
        found_by = self._unprobed.pop(name, None)
        if found_by is not None:
            self._found_by[name] = found_by
        self._looked_s[name] = now_s
        seen = self._probe(self.root / name)
        if seen.fingerprint is not None:  # hints may have brought it: the disk may go before a scan sees it
            self._had_names = True
        verdict = self._settler.observe(name, seen, now_s)
        if isinstance(verdict, Waiting):
            if self._told.get(name) == verdict.reason:
                return []
            self._told[name] = verdict.reason
            return [verdict]
        preferred = self.names.preferred_to(name) if isinstance(verdict, Ready) else None
        if preferred is not None and os.path.lexists(self.root / preferred):
            self.forget(name)
            return [LeftOut(name)]
        if isinstance(verdict, Ready):
            verdict = replace(verdict, found_by=self._found_by[name])
        self.forget(name)
        return [verdict]
