#!/usr/bin/env python3
"""Writes slots.txt: when ISC cron would run an expression, in ten zones from 2015 to 2035.

    python3 internal/scheduler/testdata/isc/generate.py

It shares nothing with the Go code but the files in zoneinfo/, and goes about it in another
way: it plays the main loop of ISC cron (vixie cron 4.1), which wakes every minute, keeps a
virtual clock beside the one on the wall, and decides from the difference which jobs to run.
Around each change of the clocks its answer is held against a second model, which looks up
all minutes at which the clocks show a reading. Where the two differ nothing is written.

The format of slots.txt stands at its head. It takes half a minute and the standard library.
"""

import bisect
import datetime
import hashlib
import pathlib
import sys
import zoneinfo

HERE = pathlib.Path(__file__).resolve().parent

ZONES = [
    "Africa/Casablanca",  # an hour back in Ramadan, by the moon
    "America/New_York",
    "America/Santiago",  # on the stroke of midnight, and on other dates each few years
    "America/Sao_Paulo",  # at midnight, until 2019
    "Asia/Kathmandu",  # 5:45 ahead
    "Asia/Tehran",  # at midnight, until 2022
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Berlin",
    "Pacific/Chatham",  # 12:45 ahead, at a quarter to three
    "UTC",
]

# Besides those for each quarter of the hours that are left out or come twice somewhere.
EXPRESSIONS = """
0,30 0-4 * * *
30 1-3 * * *
10,50 1,2,23 * * *
59 23 * * *
15 2 */2 * *
0 4 * * 1
30 2 * * 0
5 0 * * sun,sat
0 0 1 * *
30 2 29 2 *
30 2 1-7 3,4,9-11 0
0-59/20 22-23 28-31 * *
@daily
@weekly
@monthly
@yearly
@hourly
0 * * * *
*/30 * * * *
30 */2 * * *
*/15 2 * * *
*/45 0,23 * mar,nov *
50 */2 25-31,1-7 3,10 *
0 4 * * 7
30 2 * * 5-7
5 0 * * fri-sun
30 2 * * 1-7/2
0 3 1-7 * mon,6-7
""".strip().splitlines()

DAY = 24 * 60  # all times are whole minutes since 1970, of UTC or as the clocks show them
AROUND = 36 * 60  # how far from a change all slots are listed
EPOCH = datetime.date(1970, 1, 1)


def minutes(year, month, day):
    return (datetime.date(year, month, day) - EPOCH).days * DAY


FROM, UNTIL = minutes(2015, 1, 1), minutes(2036, 1, 1)


# Expressions


SUNDAY = 7  # and 0


def expand(field, lowest, highest, names=""):
    """The numbers that a field stands for, as a set."""
    chosen = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            first, last = lowest, highest
        else:
            first = number(first, lowest, names)
            last = number(last, lowest, names) if last else first
            if last < first and highest == SUNDAY:  # a week that ends with sun
                last += SUNDAY
        assert lowest <= first <= last <= highest, field
        chosen.update(range(first, last + 1, int(step or 1)))
    return chosen


def number(word, lowest, names):
    names = names.split()
    return names.index(word) + lowest if word in names else int(word)


class Expression:
    NAMED = {
        "@hourly": "0 * * * *",
        "@daily": "0 0 * * *",
        "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *",
        "@yearly": "0 0 1 1 *",
    }

    def __init__(self, text):
        self.text = text
        minute, hour, dom, month, dow = self.NAMED.get(text, text).split()
        self.wild = minute.startswith("*") or hour.startswith("*")
        self.times = sorted(h * 60 + m for h in expand(hour, 0, 23) for m in expand(minute, 0, 59))
        doms = expand(dom, 1, 31)
        months = expand(month, 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec")
        dows = {day % SUNDAY for day in expand(dow, 0, SUNDAY, "sun mon tue wed thu fri sat")}
        self.days = set()
        for day in range(FROM // DAY - 10, UNTIL // DAY + 10):
            date = EPOCH + datetime.timedelta(days=day)
            by_date, by_weekday = date.day in doms, date.isoweekday() % 7 in dows
            if dom.startswith("*") or dow.startswith("*"):
                right = by_date and by_weekday
            else:
                right = by_date or by_weekday
            if right and date.month in months:
                self.days.add(day)

    def readings(self, first, end):
        """What the clocks show, from first until end, when the expression is meant."""
        for day in range(first // DAY, (end - 1) // DAY + 1):
            if day in self.days:
                for time in self.times:
                    if first <= day * DAY + time < end:
                        yield day * DAY + time


# The clocks of a zone


def offset(zone, minute):
    ahead = datetime.datetime.fromtimestamp(minute * 60, zone).utcoffset()
    assert ahead % datetime.timedelta(minutes=1) == datetime.timedelta(0)
    return ahead // datetime.timedelta(minutes=1)


def changes(zone):
    """When clocks are set, found by looking at them every quarter of an hour."""
    found, before = [], offset(zone, FROM - 5 * DAY)
    for minute in range(FROM - 5 * DAY, UNTIL + 5 * DAY, 15):
        if offset(zone, minute) != before:
            before = offset(zone, minute)
            while offset(zone, minute - 1) == before:
                minute -= 1
            found.append(minute)
    return found


# The first model: ISC cron's main loop


def daemon(zone, set_at):
    """What ISC cron does from FROM until UNTIL: (minute, reading, n, advances, wild, fixed).

    From minute on it runs jobs for the n readings from reading on: for one after the other
    as the minutes go by if it advances, for all of them in that one minute if not.
    """
    acts = []

    def run(minute, reading, n, advances, wild, fixed):
        if acts:
            m, r, k, *last = acts[-1]
            if advances and last == [advances, wild, fixed] and (m + k, r + k) == (minute, reading):
                acts[-1] = (m, r, k + n, *last)
                return
        acts.append((minute, reading, n, advances, wild, fixed))

    minute = FROM - 3 * DAY
    virtual = minute + offset(zone, minute) - 1
    while minute < UNTIL:
        running = minute + offset(zone, minute)
        behind = running - virtual
        if behind == 1:
            n = 1
            if not any(minute < change <= minute + DAY for change in set_at):
                n = DAY  # a day like any other: not minute by minute
            run(minute, running, n, True, True, True)
            minute, virtual = minute + n, running + n - 1
            continue
        if -3 * 60 < behind <= 0:  # put back: until the clocks catch up, only what goes with them
            run(minute, running, 1, True, True, False)
        elif 5 < behind <= 3 * 60:  # put forward: what is for a time of day in between is made up for
            run(minute, running, 1, True, True, False)
            run(minute, virtual + 1, behind, False, False, True)
            virtual = running
        else:  # ISC cron has rules for these too, which nobody here needs
            raise SystemExit(f"{zone}: clocks were set by {behind} minutes")
        minute += 1
    return acts


def slots(expression, acts):
    found = set()
    for minute, reading, n, advances, wild, fixed in acts:
        if wild if expression.wild else fixed:
            for r in expression.readings(reading, reading + n):
                found.add(minute + (r - reading if advances else 0))
    return sorted(m for m in found if FROM <= m < UNTIL)


# The second model: look at the clocks in all minutes around a change


class Looker:
    def __init__(self, zone, change):
        self.first, self.end = change - AROUND, change + AROUND
        self.seen = {}  # reading: minutes
        self.shown = [(m, m + offset(zone, m)) for m in range(self.first - DAY, self.end + DAY)]
        for minute, reading in self.shown:
            self.seen.setdefault(reading, []).append(minute)

    def slots(self, expression):
        found = set()
        for reading in expression.readings(self.shown[0][1], self.shown[-1][1]):
            at = self.seen.get(reading, [])
            if expression.wild:
                found.update(at)
            elif at:
                found.add(at[0])
            else:
                found.add(next(m for m, r in self.shown if r > reading))
        return sorted(m for m in found if max(self.first, FROM) <= m < min(self.end, UNTIL))


# The table


def stamp(minute):
    return datetime.datetime.fromtimestamp(minute * 60, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")


def runs(numbers):
    """Writes numbers, and A+D*N for N of them that begin with A and are D apart."""
    words, i = [], 0
    while i < len(numbers):
        n, apart = 1, 0
        if i + 1 < len(numbers):
            apart = numbers[i + 1] - numbers[i]
            while i + n < len(numbers) and numbers[i + n] - numbers[i + n - 1] == apart:
                n += 1
        if n < 3:
            n = 1
        words.append(f"{numbers[i]}+{apart}*{n}" if n > 1 else str(numbers[i]))
        i += n
    return " ".join(words)


HEAD = """\
# When ISC cron runs. Written by generate.py beside this file: do not edit.
#
# with FILE SHA256              what it was made with
# zone NAME
# set TIME BEFORE AFTER         its clocks are set, which are so many minutes ahead of UTC
# cron COUNT SHA256 EXPRESSION  all its slots in the zone, from 2015 until 2036; the sum is
#                               that of their Unix seconds, in decimal, each with a newline
# TIME SLOTS                    its slots from 36 hours before TIME, when clocks are set,
#                               until 36 hours after, in minutes from then. A+D*N stands for
#                               N of them that begin with A and are D apart.
#
# Empty lines mean nothing.
"""


def main():
    lines = [HEAD.rstrip()]
    for path in [pathlib.Path(__file__).resolve()] + [HERE / "zoneinfo" / name for name in ZONES]:
        lines.append(f"with {path.relative_to(HERE).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}")

    zones, odd_hours = [], set()
    for name in ZONES:
        with open(HERE / "zoneinfo" / name, "rb") as f:
            zone = zoneinfo.ZoneInfo.from_file(f, key=name)
        set_at = changes(zone)
        zones.append((name, zone, set_at))
        for change in set_at:
            first, end = sorted((change + offset(zone, change - 1), change + offset(zone, change)))
            odd_hours.update(reading % DAY // 60 for reading in range(first, end))
    daily = [f"{quarter} {hour} * * *" for hour in sorted(odd_hours) for quarter in (0, 15, 30, 45)]
    expressions = [Expression(text) for text in daily + EXPRESSIONS]

    for name, zone, set_at in zones:
        print(name, file=sys.stderr)
        acts = daemon(zone, set_at)
        set_at = [change for change in set_at if FROM <= change < UNTIL]
        lookers = [Looker(zone, change) for change in set_at]
        lines += ["", f"zone {name}"]
        lines += [f"set {stamp(change)} {offset(zone, change - 1)} {offset(zone, change)}" for change in set_at]
        for expression in expressions:
            found = slots(expression, acts)
            total = hashlib.sha256("".join(f"{m * 60}\n" for m in found).encode()).hexdigest()
            lines += ["", f"cron {len(found)} {total} {expression.text}"]
            for change, looker in zip(set_at, lookers):
                listed = found[bisect.bisect_left(found, looker.first) : bisect.bisect_left(found, looker.end)]
                if listed != looker.slots(expression):
                    raise SystemExit(f"{name}, {expression.text}, {stamp(change)}: {listed}, {looker.slots(expression)}")
                lines.append(f"{stamp(change)} {runs([m - change for m in listed])}".rstrip())
    (HERE / "slots.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
