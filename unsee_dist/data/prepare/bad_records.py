"""Bad records: a line, row or member that cannot be read. The first one stops the preparation, or each is skipped and counted."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from unsee_dist.data.prepare.formats import printable
from unsee_dist.errors import UserError

# How they are counted.
BAD_RECORD = "bad record"
RECORD = "JSON, or another record or tag"  # that stands among the lines of a text
MEMBERS = "tar members that are not text, or hidden"
FIRST = 10  # sentences that are kept: a file with a million bad lines says the same a million times


class Skipped(NamedTuple):
    """How many records were skipped, the sentences about the first of them, and how many members of tars are no text."""

    number: int = 0
    first: tuple[str, ...] = ()
    ignored: int = 0

    def with_more(self, more: Skipped) -> Skipped:
        first = (*self.first, *more.first)[:FIRST]
        return Skipped(self.number + more.number, first, self.ignored + more.ignored)


class BadRecords:
    """What `on_bad_record` says: stop at the first, or skip and count."""

    def __init__(self, skip: bool = False) -> None:
        self.skip, self.skipped = skip, Skipped()

    def add(self, what: str, remedy: str) -> None:
        """A record that cannot be read: `what` names file and line, and says why. UserError unless they are skipped."""
        if not self.skip:
            stop(what, remedy)
        self.skipped = self.skipped.with_more(Skipped(1, (printable(what),)))

    def ignore_member(self) -> None:
        """A member of a tar that is no text: an image, a class. It is no mistake, and counted all the same."""
        self.skipped = self.skipped._replace(ignored=self.skipped.ignored + 1)

    def take(self) -> Skipped:
        """Those since the last call."""
        skipped, self.skipped = self.skipped, Skipped()
        return skipped


def stop(what: str, remedy: str) -> NoReturn:
    """The error of a record that may be skipped."""
    raise UserError(f"{what}. {remedy} Or write --on-bad-record skip: such records are counted and left out.")
