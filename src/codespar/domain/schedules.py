"""When a schedule is due. Pure: the clock is an argument.

Times are those of the clock on the wall in the schedule's zone. What was missed while the server was away is done once, however often it was
missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from codespar.domain.base import Value
from codespar.domain.messages import UtcDatetime
from codespar.domain.notifications import local_zone

MOST_COUNTED = 500  # missed times that are counted one by one


def check_cron(expression: str) -> None:
    """Raise ValueError unless it is a cron expression of five fields that comes true at some time."""
    if len(expression.split()) != 5:
        raise ValueError("must have five fields, such as `0 9 * * 1-5` for nine o'clock on weekdays")
    try:
        next(CronSim(expression, datetime(2024, 1, 1)))
    except (CronSimError, StopIteration) as error:
        why = str(error).lower() or "there is no such day"
        raise ValueError(f"is not a time that ever comes ({why}); see man 5 crontab") from error


class Due(Value):
    """A schedule's time has come. `missed` counts the earlier times that this one stands for, up to `MOST_COUNTED`."""

    at: UtcDatetime
    missed: int = 0


def due(cron: str, zone: str | None, fired: datetime, now: datetime) -> Due | None:
    """The newest time after `fired` that is not after `now`, or None. Times are UTC and aware.

    However long ago it fired last, what is looked at has an end: of many missed times only the newest are walked through.
    """
    newest: datetime | None = None
    count = 0
    for at in _times(cron, zone, fired):
        if at > now:
            break
        newest, count = at, count + 1
        if count > MOST_COUNTED:
            newest = _newest(cron, zone, at, now)
            break
    return Due(at=newest, missed=count - 1) if newest else None


def next_time(cron: str, zone: str | None, after: datetime) -> datetime | None:
    """The first time after `after`; None where none comes within fifty years."""
    return next(_times(cron, zone, after), None)


def _newest(cron: str, zone: str | None, known: datetime, now: datetime) -> datetime:
    """The newest time that is not after `now`, from stretches before it that grow until one has a time in it. `known` is one that has passed."""
    for stretch in (timedelta(hours=1), timedelta(days=2), timedelta(days=62), timedelta(days=400)):
        found = None
        for at in _times(cron, zone, max(known, now - stretch)):
            if at > now:
                break
            found = at
        if found is not None:
            return found
    newest = known  # a time that is as rare as this one has not come often
    for at in _times(cron, zone, known):
        if at > now:
            break
        newest = at
    return newest


def _times(cron: str, zone: str | None, after: datetime) -> Iterator[datetime]:
    """The times after `after`, each once and later than the one before.

    Within an hour that the clock shows twice the library begins with the first showing, which may be over; and when the clock is set
    forward it names the same instant for every time that is left out.
    """
    last = after
    for at in CronSim(cron, after.astimezone(local_zone(zone))):
        if at > last:
            last = at
            yield at
